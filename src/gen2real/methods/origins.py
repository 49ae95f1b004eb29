"""Generated pictures enter a run where its recipe says generated, real ones where it says real."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from gen2real.errors import RecipeError
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.sampling import nested_rows


def origin_checked(one: ImageSet, expected: Literal["generated", "real"]) -> ImageSet:
    """The set itself. Name-only means name-only: real pictures enter through data.real, where the result says so.

    Raises: RecipeError where pictures have another origin than `expected`.
    """
    others = sum(origin != expected for origin in one.table["origin"].to_pylist())
    if others and expected == "generated":
        raise RecipeError(
            f"{others} of the {len(one)} pictures in {one.manifest} are not of origin 'generated'. Real pictures to "
            "learn from belong under data.real; where these are generated, import them with --origin generated."
        )
    if others:
        raise RecipeError(
            f"{others} of the {len(one)} pictures in {one.manifest} are not of origin 'real'. Generated ones belong "
            "under data.generated; where these are photographs, import them with --origin real."
        )
    return one


def at_most(origins: Sequence[str], sets: Sequence[ImageSet], most: int, seed: int) -> list[ImageSet]:
    """The sets with at most `most` pictures of each origin, over all sets of it; a larger number's contain a smaller's.

    Args:
        origins: of each set.
    """
    found = [*sets]
    for origin in dict.fromkeys(origins):
        places = [place for place, own in enumerate(origins) if own == origin]
        starts = np.cumsum([0, *(len(sets[place]) for place in places)])
        chosen = nested_rows(int(starts[-1]), most, seed)
        for place, start, end in zip(places, starts[:-1], starts[1:], strict=True):
            found[place] = sets[place].select(chosen[(chosen >= start) & (chosen < end)] - start)
    return found
