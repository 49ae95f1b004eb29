"""The map of a run that kept none: encoded anew from the encoder, the run's tuned weights and its image sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gen2real.errors import Gen2RealError, RecipeError
from gen2real.evaluation.features import FeatureCache, cached_views
from gen2real.evaluation.projection import sample_rows
from gen2real.imagesets import ImageSet, Pictures
from gen2real.methods.readings import MAP_POINTS, plane_of
from gen2real.methods.result import Result
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder


def plane_again(result: Result, recipe: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """`Result.plane` and, where that is empty, why. At most `MAP_POINTS` pictures a side are encoded, and cached.

    The generated pictures are a sample of all that the recipe names, held out or not.
    """
    if not any("real" in reading for reading in result.readings.values()):
        return {}, "no real pictures were measured"
    if stored := result.plane():
        return stored, ""
    try:
        data, known = recipe["data"], recipe["encoder"]
        encoder = load_dual_encoder(known["name"], revision=known["revision"])
        generated = _sample([one["path"] for one in data["generated"]])
        real = _sample([data["evaluation"]])
        before = [_features(encoder, one) for one in (generated, real)]
        changed = _tune(encoder.vision, result)
        after = [_features(encoder, one) for one in (generated, real)] if changed else before
    except (Gen2RealError, OSError, KeyError, ValueError) as error:
        first = (str(error).splitlines() or ["no reason is known"])[0]
        return {}, f"the run kept none, and it could not be drawn again: {first}"
    sides = [{0.0: one, 1.0: other} for one, other in zip(before, after, strict=True)]
    return plane_of(sides[0], sides[1], frozen=not changed), ""


def _sample(paths: Sequence[str]) -> list[ImageSet]:
    sets = [ImageSet.read(path).kept() for path in paths]
    rows = sample_rows(sum(len(one) for one in sets), MAP_POINTS).tolist()
    found, start = [], 0
    for one in sets:
        found.append(one.select([row - start for row in rows if start <= row < start + len(one)]))
        start += len(one)
    return [one for one in found if len(one)]


def _features(encoder: DualEncoder, sets: Sequence[ImageSet]) -> Tensor:
    parts = [Pictures(one, encoder.preprocess, on_unreadable="skip") for one in sets]
    return torch.cat([cached_views(encoder.vision, one, views=1, seed=0, cache=FeatureCache())[0] for one in parts])


def _tune(vision: nn.Module, result: Result) -> bool:
    """Lays the run's tuned weights over the image encoder; whether there were any."""
    prefix = "vision."
    changed = {
        name.removeprefix(prefix): value for name, value in result.changed_weights().items() if name.startswith(prefix)
    }
    if not changed:
        return False
    if unknown := changed.keys() - vision.state_dict().keys():
        raise RecipeError(f"tuned.safetensors has weights that the encoder does not: {sorted(unknown)[0]}")
    vision.load_state_dict(changed, strict=False)
    return True
