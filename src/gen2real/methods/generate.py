"""Generation as a method: an arm of a comparison draws a set with another arm's generator, and a third learns from it.

The run's folder is the image set itself, with `result.json` beside its manifest. It is measured by nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState

from gen2real.files import write_json
from gen2real.generation import GenerateConfig, generate
from gen2real.imagesets.manifest import ImageSet
from gen2real.methods.result import FinishedRun
from gen2real.training.distributed import rank

KIND = "pictures"


@dataclass(frozen=True)
class DrawnSet(FinishedRun):
    """A finished generation. `folder` is the image set, `summary` is `result.json`, whose `kind` is "pictures"."""


def run(config: GenerateConfig, *, quiet: bool = False) -> DrawnSet | None:
    """Draws the set or goes on drawing it; of several processes each draws a part. None on those but the first.

    Raises: what `generation.generate` raises.
    """
    started = time.perf_counter()
    generate(config, quiet=quiet)
    # Whoever ends first does not have the whole set.
    PartialState().wait_for_everyone()
    if rank() > 0:
        return None
    written = config.output / "result.json"
    if not written.exists():
        write_json(written, _summary(config, ImageSet.read(config.output), time.perf_counter() - started))
    return DrawnSet.read(config.output)


def _summary(config: GenerateConfig, made: ImageSet, seconds: float) -> dict[str, Any]:
    return {
        "version": 1,
        "kind": KIND,
        "method": config.method,
        "seed": config.seed,
        "set": str(made.root),
        "pictures": len(made),
        "kept": len(made.kept()),
        "classes": len(made.classes),
        "generators": [one.name for one in config.generators],
        # Of the process that ended the set: what was drawn before an interruption is not in it.
        "cost": {"training_seconds": seconds},
        "readings": {},
    }
