from __future__ import annotations

import io

import numpy as np
from pictures import smooth
from PIL import Image, ImageEnhance

from gen2real.imagesets.hashing import hamming_distance, perceptual_hash


def coarse(seed: int) -> Image.Image:
    """200 × 150 pixels with detail in every one of the frequencies that are hashed."""
    shades = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return Image.fromarray(shades).resize((200, 150), Image.Resampling.BICUBIC)


def test_a_hash_is_sixteen_hexadecimal_digits() -> None:
    assert len(perceptual_hash(smooth(40, 30))) == 16
    assert int(perceptual_hash(smooth(40, 30)), 16) >= 0


def test_a_plain_picture_has_its_mean_and_nothing_else() -> None:
    assert perceptual_hash(Image.new("RGB", (50, 50), (90, 90, 90))) == "8000000000000000"
    assert perceptual_hash(Image.new("RGB", (50, 50))) == "0000000000000000"


def test_a_horizontal_ramp_sets_bits_of_the_first_row_only() -> None:
    ramp = Image.linear_gradient("L").rotate(90).convert("RGB")
    assert perceptual_hash(ramp)[2:] == "0" * 14


def test_the_same_picture_in_other_clothes_is_near_and_another_is_far() -> None:
    picture = coarse(seed=1)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=40)
    clothes = [Image.open(stream), picture.resize((90, 110)), ImageEnhance.Brightness(picture).enhance(0.8)]
    home = perceptual_hash(picture)
    assert all(hamming_distance(home, perceptual_hash(other)) <= 8 for other in clothes)
    others = [perceptual_hash(coarse(seed)) for seed in range(2, 12)]
    assert all(hamming_distance(home, other) >= 16 for other in others)


def test_distance_counts_bits() -> None:
    assert hamming_distance("00000000000000ff", "0000000000000000") == 8
