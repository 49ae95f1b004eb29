from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from pictures import smooth
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from gen2real.errors import ImageSetError
from gen2real.imagesets.transforms import Augmentation, Preprocess, shortest_to


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8))


SHAPES = [(100, 80), (80, 101), (33, 97), (224, 224), (500, 31), (41, 400), (20, 30), (7, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [32, 63])
def test_crop_is_transformers_clip_to_one_level(shape: tuple[int, int], size: int) -> None:
    stock = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    theirs = stock(noise(*shape), do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
    ours = Preprocess(size=size).geometry(noise(*shape))
    assert ours.shape == (3, size, size)
    assert ours.dtype == torch.uint8
    assert np.abs(ours.numpy().astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_stretch_is_transformers_siglip_to_one_level(shape: tuple[int, int]) -> None:
    stock = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    settings = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    theirs = stock(noise(*shape), resample=Image.Resampling.BICUBIC, **settings)["pixel_values"][0]
    ours = Preprocess(size=32, fit="stretch").geometry(noise(*shape))
    assert np.abs(ours.numpy().astype(int) - theirs.astype(int)).max() <= 1


def test_normalised_values_are_transformers() -> None:
    stock = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    preprocess = Preprocess(size=32, mean=tuple(stock.image_mean), std=tuple(stock.image_std))
    theirs = stock(smooth(50, 40), return_tensors="pt")["pixel_values"]
    ours = preprocess.normalize(preprocess.geometry(smooth(50, 40)).unsqueeze(0))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, atol=1.01 / 255 / 0.26, rtol=0)
    torch.testing.assert_close(
        Preprocess(size=1, mean=(0.5, 0, 1), std=(0.5, 1, 2)).normalize(
            torch.tensor([[[[255]], [[51]], [[0]]]]).byte()
        ),
        torch.tensor([[[[1.0]], [[0.2]], [[-0.5]]]]),
    )


def test_a_very_long_picture_is_cropped_without_being_blown_up() -> None:
    assert Preprocess(size=224).geometry(Image.new("RGB", (60_000, 2))).shape == (3, 224, 224)


def test_pad_puts_the_whole_picture_in_the_middle_with_a_margin() -> None:
    found = Preprocess(size=20, fit="pad", margin=0.1, background=(1, 2, 3)).geometry(Image.new("RGB", (32, 16), "red"))
    inside = found[0] == 255
    assert inside.nonzero().min(0).values.tolist() == [6, 2]
    assert inside.nonzero().max(0).values.tolist() == [13, 17]
    assert inside.sum() == 16 * 8
    assert found[:, 0, 0].tolist() == [1, 2, 3]


def test_pad_keeps_a_pixel_of_the_thinnest_picture() -> None:
    found = Preprocess(size=20, fit="pad").geometry(Image.new("RGB", (1000, 2)))
    assert (found == 0).sum() == 3 * 20


def test_canvas_never_blows_a_picture_up_for_crop() -> None:
    preprocess = Preprocess(size=32)
    assert preprocess.canvas_size((20, 60), 34) == (20, 60)
    assert preprocess.canvas_size((100, 50), 34) == (68, 34)
    assert preprocess.canvas(smooth(100, 50), 34).shape == (3, 34, 68)
    assert Preprocess(size=32, fit="pad").canvas(smooth(100, 50), 34).shape == (3, 34, 34)
    assert shortest_to((101, 50), 34) == (68, 34)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "at least 1 pixel"),
        ({"fit": "squash"}, "'crop', 'stretch', 'pad'"),
        ({"resample": "nearest"}, "lanczos"),
        ({"fit": "pad", "margin": 0.5}, "margin < 0.5"),
        ({"margin": 0.1}, 'fit="pad" only'),
        ({"std": (1, 0, 1)}, "std above 0"),
        ({"background": (0, 0, 256)}, "0…255"),
    ],
)
def test_preprocess_refuses_what_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageSetError, match=message):
        Preprocess(**settings)


def test_settings_survive_json() -> None:
    preprocess = Preprocess(size=64, fit="pad", margin=0.125, background=(0, 9, 8), resample="lanczos")
    augmentation = Augmentation(crop_scale=(0.5, 0.75), flip=0.5, hue=0.25)
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    assert Augmentation.from_dict(json.loads(json.dumps(augmentation.to_dict()))) == augmentation
    with pytest.raises(ImageSetError, match=r"no setting \['sise'\]"):
        Preprocess.from_dict({"sise": 3})


def tensors(*shapes: tuple[int, int]) -> list[torch.Tensor]:
    return [Preprocess(size=8).canvas(smooth(*shape, seed), 1000) for seed, shape in enumerate(shapes)]


EVERYTHING = Augmentation(
    flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2, blur=0.5, noise=0.02, rotation=15
)


@pytest.mark.parametrize("augmentation", [Augmentation(), EVERYTHING])
def test_the_same_generator_state_gives_the_same_batch(augmentation: Augmentation) -> None:
    pictures = tensors((40, 30), (30, 40), (64, 64))
    first = augmentation.apply(pictures, 16, torch.Generator().manual_seed(1))
    again = augmentation.apply(pictures, 16, torch.Generator().manual_seed(1))
    other = augmentation.apply(pictures, 16, torch.Generator().manual_seed(2))
    assert first.shape == (3, 3, 16, 16)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_whole_picture_uncropped_is_an_antialiased_resize(generator: torch.Generator) -> None:
    picture = smooth(64, 64)
    found = Augmentation(crop_scale=(1, 1), crop_ratio=(1, 1)).apply([Preprocess().canvas(picture, 64)], 24, generator)
    wanted = np.asarray(picture.resize((24, 24), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(found[0].permute(1, 2, 0).numpy().astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (200, 10), (3, 1)])
def test_crops_keep_to_area_and_ratio(shape: tuple[int, int], rng: np.random.Generator) -> None:
    width, height = shape
    for _ in range(200):
        top, left, crop_height, crop_width = Augmentation()._crop(height, width, rng.random((10, 4)))
        assert 0 <= top <= height - crop_height
        assert 0 <= left <= width - crop_width
        if min(shape) >= 30:
            assert 0.9 - 0.05 <= crop_height * crop_width / (height * width) <= 1
            assert 3 / 4 - 0.05 <= crop_width / crop_height <= 4 / 3 + 0.05
    if shape == (200, 10):
        assert (top, left, crop_height, crop_width) == (0, 93, 10, 13)


def test_crops_reach_every_corner(rng: np.random.Generator) -> None:
    crops = [Augmentation(crop_ratio=(1, 1))._crop(100, 100, rng.random((10, 4))) for _ in range(500)]
    assert {top for top, _, height, _ in crops if height == 95} == set(range(6))


def test_no_pictures_give_an_empty_batch(generator: torch.Generator) -> None:
    assert Augmentation().apply([], 8, generator).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_scale": (0, 1)}, "crop_scale"),
        ({"crop_scale": (0.5, 1.5)}, "crop_scale"),
        ({"crop_ratio": (2, 1)}, "crop_ratio"),
        ({"flip": 1.5}, "flip ≤ 1"),
        ({"noise": -1}, "0 ≤ noise"),
        ({"hue": 0.6}, "hue ≤ 0.5"),
        ({"blur": float("nan")}, "blur"),
    ],
)
def test_augmentation_refuses_what_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageSetError, match=message):
        Augmentation(**settings)
