"""Pictures for tests, drawn on the fly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

# Names that have broken folder layouts: slashes, dots, duplicates, other scripts, devices, case.
AWKWARD = (
    "F-16A/B",
    "F/A-18",
    "../x",
    "..",
    ".",
    "missile",
    "missile",
    "Missile",
    "北京烤鸭",
    "crème brûlée",
    "CON",
    "a\\b:c*?",
    "trailing. ",
    "2012 Ram C/V Cargo Van Minivan",
    "🦊",
    "n" * 300,
)


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB picture of soft colours, different for each seed."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def save(path: Path, seed: int = 0, size: tuple[int, int] = (24, 20)) -> Path:
    """Saves a small picture of that seed, in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth(*size, seed).save(path)
    return path
