"""Draws docs/pictures/web.png and home.png, the first 50 scenes of each domain's test split, and drawn.png.

    python benchmarks/kit/contact_sheet.py

drawn.png is by the kit's generator: each kind in two colours, then pairs of toys. First seeds, nothing chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from gen2real import kit
from gen2real.files import atomic_file
from gen2real.generation.drawing import Painter
from gen2real.generation.generators import load_generator
from gen2real.generation.settings import GeneratorSettings
from gen2real.kit.world import COLOURS, HELD_OUT, KINDS, SIDE, render, sample_scene
from gen2real.kit.world.vocabulary import DomainName

COLUMNS, ROWS, SCALE, GAP = 10, 5, 2, 3
# So many steps of each channel keep the file small and are not seen; a palette of 256 colours loses the purple.
LEVELS = 24


def rendered(domain: DomainName) -> list[np.ndarray]:
    """The first scenes of a test split."""
    return list(render([sample_scene(domain, "test", index) for index in range(COLUMNS * ROWS)]))


def drawn() -> list[np.ndarray]:
    """What the generator makes of 50 prompts, seeds 0 to 49, by `gen2real generate`'s own loop."""
    generator = load_generator(GeneratorSettings(name=str(kit.folder("generator")), steps=20, guidance=3.0))
    single = [_look(kind, place + 3 * row) for row in range(2) for place, kind in enumerate(KINDS)]
    pairs = [
        f"{_look(left, place)} and {_look(right, place + 2)}"
        for place, (left, right) in enumerate(zip(KINDS[:14], KINDS[4:], strict=True))
    ]
    prompts = [f"a photo of {toys}" for toys in (*single, *pairs)]
    return [one.pixels for one in Painter(generator).draw(prompts, range(len(prompts)))]


def _look(kind: str, number: int) -> str:
    """The kind in one of the colours that `web` shows it in."""
    shown = [colour for colour in COLOURS if (kind, colour) not in HELD_OUT]
    colour = shown[number % len(shown)]
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {kind}"


def contact_sheet(pictures: Sequence[np.ndarray]) -> Image.Image:
    """Ten by five pictures, each pixel as four, white between them."""
    cell = SIDE + GAP
    sheet = np.full((ROWS * cell - GAP, COLUMNS * cell - GAP, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = place // COLUMNS * cell, place % COLUMNS * cell
        sheet[top : top + SIDE, left : left + SIDE] = picture
    steps = np.rint(sheet / 255 * (LEVELS - 1))
    small = Image.fromarray(np.rint(steps * 255 / (LEVELS - 1)).astype(np.uint8))
    return small.resize((small.width * SCALE, small.height * SCALE), Image.Resampling.NEAREST)


def main(argv: list[str] | None = None) -> None:
    """Writes the sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs" / "pictures")
    folder = parser.parse_args(argv).out
    sheets = {domain: partial(rendered, domain) for domain in get_args(DomainName)} | {"drawn": drawn}
    for name, pictures in sheets.items():
        path = folder / f"{name}.png"
        with atomic_file(path) as unfinished:
            contact_sheet(pictures()).save(unfinished, optimize=True)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
