from __future__ import annotations

import pytest
import torch

from gen2real.imagesets import colour


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(64, 3, 12, 10, generator=torch.Generator().manual_seed(3)) * 0.4 + 0.3


def test_mirroring_goes_by_probability(x: torch.Tensor, generator: torch.Generator) -> None:
    assert torch.equal(colour.mirrored(x, 1, generator), x.flip(-1))
    assert torch.equal(colour.mirrored(x, 0, generator), x)
    half = colour.mirrored(x, 0.5, generator)
    assert 16 < sum(torch.equal(one, before) for one, before in zip(half, x, strict=True)) < 48


def test_brightness_multiplies_each_picture_by_one_factor(x: torch.Tensor, generator: torch.Generator) -> None:
    ratio = (colour.brightened(x, 0.3, generator) / x).flatten(1)
    assert (ratio.max(1).values - ratio.min(1).values).max() < 1e-5
    assert 0.7 <= ratio.min() < 0.8
    assert 1.2 < ratio.max() <= 1.3


def test_contrast_keeps_the_mean_brightness(x: torch.Tensor, generator: torch.Generator) -> None:
    found = colour.contrasted(x, 0.3, generator)
    torch.testing.assert_close(colour.luma(found).mean((1, 2, 3)), colour.luma(x).mean((1, 2, 3)))
    assert not torch.allclose(found, x)


def test_saturation_and_hue_keep_each_pixels_brightness(x: torch.Tensor, generator: torch.Generator) -> None:
    for change in (colour.saturated, colour.hue_turned):
        found = change(x, 0.3, generator)
        inside = ((found > 0) & (found < 1)).all(1, keepdim=True)
        torch.testing.assert_close(colour.luma(found)[inside], colour.luma(x)[inside], atol=1e-5, rtol=0)
        assert not torch.allclose(found, x)


def test_grey_has_three_equal_channels(x: torch.Tensor, generator: torch.Generator) -> None:
    found = colour.greyed(x, 1, generator)
    assert torch.equal(found[:, 0], found[:, 2])
    torch.testing.assert_close(found[:, :1], colour.luma(x))


def test_blur_keeps_plain_pictures_and_smooths_others(x: torch.Tensor, generator: torch.Generator) -> None:
    plain = torch.full_like(x, 0.25)
    torch.testing.assert_close(colour.blurred(plain, 1, 1.0, generator), plain)
    assert (colour.blurred(x, 1, 1.0, generator).std((1, 2, 3)) <= x.std((1, 2, 3)) + 1e-6).all()
    assert torch.equal(colour.blurred(x, 0, 1.0, generator), x)


def test_rotation_turns_by_both_signs_and_fills_the_corners(x: torch.Tensor, generator: torch.Generator) -> None:
    plain = torch.full_like(x, 0.25)
    torch.testing.assert_close(colour.rotated(plain, 30, generator), plain)
    ramp = torch.linspace(0, 1, 21).view(1, 1, 1, 21).expand(64, 3, 21, 21)
    tilt = colour.rotated(ramp, 30, generator)[:, 0, 12, 10] - 0.5
    assert tilt.min() < 0 < tilt.max()
