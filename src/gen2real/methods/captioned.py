"""Captioned pictures: which of them a measure looks at, and which captions are drawn, by which seeds.

Caches and paired comparisons rest on these choices: a change here is a change of numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from gen2real.errors import ImageSetError
from gen2real.generation.plan import seed_of
from gen2real.imagesets.manifest import ImageSet

T = TypeVar("T")


@dataclass(frozen=True)
class CaptionToDraw:
    """row: of its real picture in the set. seed: of what is drawn, a function of that picture's id alone."""

    row: int
    text: str
    seed: int


def captions_to_draw(image_set: ImageSet, pictures: int | None = None) -> list[CaptionToDraw]:
    """The first caption of at most so many of a set's captioned pictures, spread evenly over them; None: of all.

    Two generators draw the same captions by the same seeds, in training and afterwards.
    """
    ids = image_set.ids
    found = ((row, next((text for text in own if text.strip()), "")) for row, own in enumerate(image_set.captions))
    captioned = [CaptionToDraw(row, text, seed_of(0, ids[row])) for row, text in found if text]
    return spread(captioned, pictures)


def spread(items: Sequence[T], most: int | None) -> list[T]:
    """At most so many items, spread evenly, in their order; None: all."""
    count = len(items)
    wanted = count if most is None else min(most, count)
    return [items[place * count // wanted] for place in range(wanted)]


def spread_over(image_set: ImageSet, pictures: int | None) -> ImageSet:
    """At most so many pictures, spread evenly over the set, in its order; None: all."""
    return image_set.select(spread(range(len(image_set)), pictures))


def with_captions(image_set: ImageSet, purpose: str) -> ImageSet:
    """The kept pictures that have a caption; it warns of the others. purpose: as in `retrieval searches by them`.

    Raises: ImageSetError where there are none.
    """
    kept = image_set.kept()
    captioned = [place for place, own in enumerate(kept.captions) if any(caption.strip() for caption in own)]
    if not captioned:
        raise ImageSetError(
            f"{image_set.manifest} has no captions on its {len(kept)} kept picture(s), and {purpose}. "
            "Import them with gen2real import coco, or gen2real import table --caption-column NAME."
        )
    if len(captioned) < len(kept):
        without = len(kept) - len(captioned)
        warnings.warn(f"{without} of {len(kept)} picture(s) have no caption and are left out.", stacklevel=3)
    return kept.select(captioned)
