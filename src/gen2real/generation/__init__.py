"""Prompts → pictures: a resumable image set drawn by any text-to-image pipeline of diffusers.

settings    what may be asked for
sources     class names in templates, captions, an image set's captions
plan        one row a picture: a pure function of the settings
generators  loading a pipeline: device, precision, scheduler
drawing     prompts and seeds → pixels, batch by batch
pictures    PNG and WebP files with their provenance inside
writer      the unfinished set: journal, resume, manifest
generating  all of it together: generate(config)
cost        what it will cost, before anything is spent
redrawing   one picture again, from its row
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gen2real.late import late

if TYPE_CHECKING:
    from gen2real.generation.cost import estimate as estimate
    from gen2real.generation.generating import generate as generate
    from gen2real.generation.pictures import read_provenance as read_provenance
    from gen2real.generation.plan import make_plan as make_plan
    from gen2real.generation.redrawing import redraw as redraw
    from gen2real.generation.settings import GenerateConfig as GenerateConfig
    from gen2real.generation.settings import GeneratorSettings as GeneratorSettings

# Looked up on first use, so that a mistake in the settings is told before torch is imported.
_WHERE = {
    "GenerateConfig": "settings",
    "GeneratorSettings": "settings",
    "estimate": "cost",
    "generate": "generating",
    "make_plan": "plan",
    "read_provenance": "pictures",
    "redraw": "redrawing",
}

__all__ = sorted(_WHERE)
__getattr__, __dir__ = late(__name__, _WHERE)
