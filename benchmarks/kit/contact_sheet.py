"""Draws docs/pictures/web.png and home.png: the first 50 scenes of each domain's test split, as they come.

python benchmarks/kit/contact_sheet.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from gen2real.files import atomic_file
from gen2real.kit.world import SIDE, render, sample_scene
from gen2real.kit.world.vocabulary import DomainName

COLUMNS, ROWS, SCALE, GAP = 10, 5, 2, 3
# So many steps of each channel keep the file small and are not seen; a palette of 256 colours loses the purple.
LEVELS = 24


def contact_sheet(domain: DomainName) -> Image.Image:
    """Ten by five pictures, each pixel as four, white between them."""
    pictures = render([sample_scene(domain, "test", index) for index in range(COLUMNS * ROWS)])
    cell = SIDE + GAP
    sheet = np.full((ROWS * cell - GAP, COLUMNS * cell - GAP, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // COLUMNS * cell, place % COLUMNS * cell
        sheet[top : top + SIDE, left : left + SIDE] = picture
    steps = np.rint(sheet / 255 * (LEVELS - 1))
    small = Image.fromarray(np.rint(steps * 255 / (LEVELS - 1)).astype(np.uint8))
    return small.resize((small.width * SCALE, small.height * SCALE), Image.Resampling.NEAREST)


def main(argv: list[str] | None = None) -> None:
    """Writes both sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs" / "pictures")
    folder = parser.parse_args(argv).out
    for domain in get_args(DomainName):
        path = folder / f"{domain}.png"
        with atomic_file(path) as partial:
            contact_sheet(domain).save(partial, optimize=True)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
