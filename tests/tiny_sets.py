"""Tiny image sets that a tiny encoder can learn: one plain colour a class, with noise; real ones are darker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gen2real.files import sha256_of
from gen2real.imagesets import ImageSet
from gen2real.imagesets.manifest import ClassName
from gen2real.imagesets.slugs import unique_slugs

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 210), "F-16A/B": (200, 200, 60)}


def colour_set(
    root: Path, *, per_class: int = 6, origin: str = "generated", seed: int = 0, side: int = 40, names=tuple(COLOURS)
) -> ImageSet:
    """A set of `per_class` noisy plain pictures of each colour."""
    random = np.random.default_rng([seed, origin == "real"])
    classes = [ClassName(label, name) for label, name in zip(unique_slugs(names), names, strict=True)]
    rows = []
    for known in classes:
        for number in range(per_class):
            base = np.array(COLOURS[known.name]) * (0.6 if origin == "real" else 1.0)
            pixels = np.clip(base + random.normal(0, 25, (side, side, 3)), 0, 255).astype(np.uint8)
            path = root / known.label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            rows.append(
                {
                    "id": f"{known.label}-{number}",
                    "path": f"{known.label}/{number}.png",
                    "origin": origin,
                    "label": known.label,
                    "captions": [f"a {known.name} square"],
                    "sha256": sha256_of(path),
                    "kept": True,
                }
            )
    return ImageSet.write(root, rows, classes)
