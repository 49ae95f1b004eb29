"""Generated pictures enter a run where its recipe says generated, real ones where it says real."""

from __future__ import annotations

from typing import Literal

from gen2real.errors import RecipeError
from gen2real.imagesets.manifest import ImageSet


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
