"""What the world is made of, and which part of it each domain shows.

Fixed before any method was measured on it. Changing a number here changes every picture after it: don't.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SIDE = 64
"""Pixels a picture is wide and high."""

KINDS = (
    "ball",
    "block",
    "boat",
    "car",
    "cat",
    "cup",
    "duck",
    "fish",
    "flower",
    "heart",
    "house",
    "moon",
    "mushroom",
    "ring",
    "rocket",
    "star",
    "tree",
    "umbrella",
)
COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.86, 0.16, 0.17),
    "orange": (0.96, 0.52, 0.10),
    "yellow": (0.98, 0.83, 0.20),
    "green": (0.24, 0.66, 0.30),
    "blue": (0.18, 0.40, 0.82),
    "purple": (0.52, 0.27, 0.70),
    "pink": (0.96, 0.55, 0.70),
    "white": (0.95, 0.95, 0.93),
}
"""Reflectance of each colour, red, green and blue from 0 to 1."""
PATTERNS = ("plain", "striped", "dotted", "checked")
SIZES = ("small", "medium", "large")

WEB_GROUNDS: Mapping[str, str] = {
    "white studio": "on a white background",
    "grey studio": "on a grey background",
    "cream studio": "on a cream background",
    "mint studio": "on a mint background",
    "sky studio": "on a light blue background",
    "striped paper": "on striped paper",
    "dotted paper": "on dotted paper",
}
HOME_GROUNDS: Mapping[str, str] = {
    "wooden table": "on a wooden table",
    "tiled floor": "on a tiled floor",
    "checked cloth": "on a checked tablecloth",
    "woollen rug": "on a woollen rug",
    "lawn": "on a lawn",
    "bed sheet": "on a bed sheet",
}
"""Ground → how a caption names it. No ground is in both domains."""
GROUNDS: Mapping[str, str] = {**WEB_GROUNDS, **HOME_GROUNDS}

HELD_OUT = frozenset(
    (kind, colour)
    for k, kind in enumerate(KINDS)
    for c, colour in enumerate(COLOURS)
    if (3 * k + 5 * c) % len(COLOURS) < 2
)
"""Kind–colour pairs that `web` never shows: two colours of each kind, each colour with four or five kinds."""

DomainName = Literal["web", "home"]
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Domain:
    """How a domain's pictures come about. Ranges are (least, most), drawn evenly unless said otherwise.

    Attributes:
        grounds: what toys stand on.
        horizon: where the ground ends, as a share of the picture's height from the top.
        held_out: whether kind–colour pairs of `HELD_OUT` occur.
        caption_noise: share of pictures with a wrong caption.
        clutter: most things that lie about in the background.
        distance: toys' size against the domain `web`'s.
        warmth: white balance; 0.1 is 10 % more red and less blue.
        exposure: factor on all light.
        ambient: share of light from everywhere; little makes hard shadows.
        light: sideways direction of the lamp; −1 left, 1 right.
        blur: standard deviation in pixels. noise: of the sensor, of full scale. vignette: light lost in the corners.
        tilt: most degrees that a toy leans.
    """

    grounds: tuple[str, ...]
    horizon: tuple[float, float]
    held_out: bool
    caption_noise: float
    clutter: int
    distance: tuple[float, float]
    warmth: tuple[float, float]
    exposure: tuple[float, float]
    ambient: tuple[float, float]
    light: tuple[float, float]
    blur: tuple[float, float]
    noise: tuple[float, float]
    vignette: tuple[float, float]
    tilt: float


DOMAINS: Mapping[DomainName, Domain] = {
    "web": Domain(
        grounds=tuple(WEB_GROUNDS),
        horizon=(0.3, 0.5),
        held_out=False,
        caption_noise=0.2,
        clutter=0,
        distance=(0.95, 1.1),
        warmth=(-0.02, 0.03),
        exposure=(0.97, 1.05),
        ambient=(0.5, 0.6),
        light=(-0.7, -0.2),
        blur=(0.2, 0.35),
        noise=(0.003, 0.008),
        vignette=(0.0, 0.12),
        tilt=6.0,
    ),
    "home": Domain(
        grounds=tuple(HOME_GROUNDS),
        horizon=(0.18, 0.36),
        held_out=True,
        caption_noise=0.0,
        clutter=3,
        distance=(0.72, 1.05),
        warmth=(-0.08, 0.18),
        exposure=(0.7, 1.12),
        ambient=(0.28, 0.5),
        light=(-1.0, 1.0),
        blur=(0.25, 0.85),
        noise=(0.008, 0.024),
        vignette=(0.1, 0.4),
        tilt=16.0,
    ),
}

SPLITS: Mapping[tuple[DomainName, Split], int] = {
    ("web", "train"): 60_000,
    ("web", "validation"): 1_000,
    ("web", "test"): 2_000,
    ("home", "train"): 500,
    ("home", "validation"): 500,
    ("home", "test"): 2_000,
}
"""Scenes of each split. A scene is a pure function of (seed, domain, split, index)."""
