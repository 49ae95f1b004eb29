"""A perceptual hash: pictures that look alike have hashes that differ in few bits."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image

_GRID = 32
_KEPT = 8


def perceptual_hash(picture: Image.Image) -> str:
    """The 64-bit DCT hash of an RGB picture, as 16 hexadecimal digits.

    The picture is made grey, 32 × 32 (Lanczos); the 8 × 8 lowest frequencies of its discrete cosine transform each give
    a bit, row by row: whether the coefficient lies above the median of all of them but the mean brightness. It
    survives scaling, recompression and small changes of brightness, not mirroring, turning or strong crops.
    """
    return _hash(_grid(picture.convert("L")))


def perceptual_hash_views(picture: Image.Image, *, middle: float = 0.9) -> tuple[str, str, str, str]:
    """Perceptual hashes of an RGB picture, of its mirror image, of its middle, and of that mirrored.

    The first is `perceptual_hash(picture)`. A copy that was mirrored, or cropped a little all around, is near one of
    the others.

    middle: share of width and of height that the cropped views keep.
    """
    grey = picture.convert("L")
    width, height = grey.size
    margin = (1 - middle) / 2
    box = (margin * width, margin * height, (1 - margin) * width, (1 - margin) * height)
    whole, cropped = _grid(grey), _grid(grey, box)
    return _hash(whole), _hash(whole[:, ::-1]), _hash(cropped), _hash(cropped[:, ::-1])


def hamming_distance(first: str, second: str) -> int:
    """How many of the 64 bits of two perceptual hashes differ."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


def _grid(grey: Image.Image, box: tuple[float, float, float, float] | None = None) -> npt.NDArray[np.float64]:
    return np.asarray(grey.resize((_GRID, _GRID), Image.Resampling.LANCZOS, box=box), dtype=np.float64)


def _hash(grid: npt.NDArray[np.float64]) -> str:
    basis = _cosines()
    # Rounded so that the coefficients of a plain picture are zero and not the sum's last digit.
    coefficients = np.round(basis @ grid @ basis.T, 3).reshape(-1)
    # The median of 63 numbers is the 32nd; np.median takes five times as long to say so.
    bits = coefficients > np.partition(coefficients[1:], 31)[31]
    return np.packbits(bits).tobytes().hex()


@cache
def _cosines() -> npt.NDArray[np.float64]:
    frequency = np.arange(_KEPT)[:, None]
    position = np.arange(_GRID)[None, :] + 0.5
    return np.cos(np.pi * frequency * position / _GRID)
