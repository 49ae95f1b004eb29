"""What a finished generator draws, measured: beside the real pictures of the same captions, in a scorer's eyes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gen2real.errors import ImageSetError
from gen2real.evaluation.features import FeatureCache, cached_texts, cached_views, encode_drawn
from gen2real.evaluation.statistics import bootstrap_interval
from gen2real.evaluation.synthesis import synthesis_details, synthesis_values
from gen2real.generation.drawing import Drawn, Painter
from gen2real.generation.generating import pictures_at_once
from gen2real.generation.generators import load_generator
from gen2real.generation.settings import GeneratorSettings
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.methods.captioned import captions_to_draw, with_captions
from gen2real.models.image_encoder import load_image_encoder
from gen2real.progress import WorkProgress

PICTURES = 256
"""How many are drawn unless told otherwise, as by the recipes of UniDiff."""


@dataclass(frozen=True, eq=False)
class Synthesised:
    """What `evaluate_synthesis` finds.

    values: measure → [N], one value a picture whose mean is the measure (`synthesis_values`).
    details: FID, CMMD and notes (`synthesis_details`).
    ids: of the real pictures whose captions were drawn, in order. faults: how many drawn pictures were blank, held NaN,
        or were refused by the pipeline's safety checker; they count as they are.
    drawing: what drew: generator, its content's hash, scheduler, steps, guidance, size, precision.
    """

    ids: Sequence[str]
    captions: Sequence[str]
    values: Mapping[str, npt.NDArray[np.float64]]
    details: Mapping[str, Any]
    faults: int
    scorer: str
    drawing: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values, always with the same keys, but for `clip_score`, which a scorer without texts has none of."""
        return {
            "pictures": len(self.ids),
            "measures": {name: bootstrap_interval(own).to_json() for name, own in self.values.items()},
            "fid": self.details["fid"],
            "cmmd": self.details["cmmd"],
            "notes": self.notes,
            "faults": self.faults,
            "scorer": self.scorer,
            "drawing": dict(self.drawing),
        }

    @property
    def notes(self) -> list[str]:
        """What makes the numbers less than they look, in words."""
        notes = list(self.details["notes"])
        if self.faults:
            notes.append(
                f"{self.faults} of {len(self.ids)} drawn pictures are blank, not a number or refused by the pipeline; "
                "they count as they are."
            )
        return notes


def evaluate_synthesis(
    generator: str | Path,
    image_set: ImageSet,
    scorer: str | Path,
    *,
    pictures: int | None = PICTURES,
    steps: int | None = None,
    guidance: float | None = None,
    on_unreadable: str = "error",
    quiet: bool = True,
) -> Synthesised:
    """Draws a picture for each caption of a set and compares it with caption and real picture.

    Each picture is of a seed of its own, a function of the real picture's id alone, so that two generators draw the
    same captions from the same seeds, and their values can be compared picture by picture.

    Args:
        generator: a text-to-image pipeline by hub name or folder, or a run that has one.
        image_set: real pictures with captions, of which the first one is drawn. Without a caption they are left out.
        scorer: what looks at the pictures: a dual encoder, or an image encoder such as DINOv2, which reads no captions
            and so gives no `clip_score`. It should be in no training of what it judges.
        pictures: at most so many, spread evenly over the set; None: all.
        steps, guidance: None: the pipeline's own, and 20 steps of DPM-Solver++ where its scheduler needs fifty.
        quiet: shows no progress.

    Raises: ModelError; ImageSetError where fewer than two pictures have a caption; UnreadablePictures.
    """
    # Whatever is wrong with scorer and pictures is found before anything is drawn.
    judge = load_image_encoder(scorer)
    captioned = with_captions(image_set, "pictures are drawn by them")
    real = Pictures(
        captioned.select([one.row for one in captions_to_draw(captioned, pictures)]),
        judge.preprocess,
        on_unreadable=on_unreadable,  # type: ignore[arg-type]
    )
    ids = real.image_set.ids
    # Of those that can be read.
    asked = captions_to_draw(real.image_set)
    captions = [one.text for one in asked]
    if len(ids) < 2:
        raise ImageSetError(f"{image_set.manifest} has {len(ids)} picture(s) to compare with; expected at least 2.")
    painter = Painter(load_generator(GeneratorSettings(name=str(generator), steps=steps, guidance=guidance)))
    judge.vision.to(painter.generator.device)
    seen = cached_views(judge.vision, real, views=1, seed=0, cache=FeatureCache())[0]
    read = None if judge.encoder is None else cached_texts(judge.encoder, captions, FeatureCache())
    drawn = _draw(painter, captions, [one.seed for one in asked], quiet)
    looked = encode_drawn(judge.vision, judge.preprocess, [one.pixels for one in drawn])
    return Synthesised(
        ids=ids,
        captions=captions,
        values=synthesis_values(looked, seen, read),
        details=synthesis_details(looked, seen),
        faults=sum(one.fault is not None for one in drawn),
        scorer=judge.name,
        drawing=painter.generator.provenance,
    )


def _draw(painter: Painter, captions: Sequence[str], seeds: Sequence[int], quiet: bool) -> list[Drawn]:
    size = pictures_at_once(painter.generator)
    with WorkProgress("drawing", start=0, total=len(captions), quiet=quiet) as progress:
        return painter.draw_all(captions, seeds, batch_size=size, on_batch=progress.update)
