"""The hub's image-processor settings, in every spelling that checkpoints use."""

from __future__ import annotations

from typing import Any

import pytest

from gen2real.errors import ModelError
from gen2real.imagesets.transforms import Preprocess
from gen2real.models.hub_preprocess import preprocess_from_hub

HALF = (0.5, 0.5, 0.5)
BILINEAR = Preprocess(256, HALF, HALF, "stretch", resample="bilinear")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"size": 224, "crop_size": 224, "do_center_crop": True}, Preprocess(224, HALF, HALF)),
        ({"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "do_center_crop": True},
         Preprocess(336, HALF, HALF)),
        ({"size": {"height": 256, "width": 256}, "resample": 2}, BILINEAR),
        ({"size": {"shortest_edge": 64}, "do_center_crop": False}, Preprocess(64, HALF, HALF)),
        ({"size": {"shortest_edge": 64, "height": None, "width": None}}, Preprocess(64, HALF, HALF)),
        ({"patch_size": 16, "max_num_patches": 256, "resample": 2}, BILINEAR),
        ({"patch_size": 8, "max_num_patches": 20, "resample": 1},
         Preprocess(32, HALF, HALF, "stretch", resample="lanczos")),
        ({"size": 8, "do_normalize": False}, Preprocess(8, (0.0,) * 3, (1.0,) * 3, "stretch")),
        ({"size": 8, "rescale_factor": 2 / 255, "image_mean": [1.0] * 3, "image_std": [2.0] * 3},
         Preprocess(8, HALF, (1.0,) * 3, "stretch")),
    ],
)  # fmt: skip
def test_spellings(settings: dict[str, Any], expected: Preprocess) -> None:
    assert preprocess_from_hub(settings, model_name="m") == expected


def test_a_smaller_crop_warns() -> None:
    settings = {"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}
    with pytest.warns(UserWarning, match="a little more of each picture"):
        assert preprocess_from_hub(settings, model_name="m").size == 224


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "size None"),
        ({"size": {"height": 10, "width": 20}}, "needs a square"),
        ({"size": 8, "resample": 0}, "PIL's filter 0"),
    ],
)
def test_refusals(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        preprocess_from_hub(settings, model_name="m")
