"""Settings of the head, chosen on drawings alone: train on two drawing styles, measure on the third.

    python benchmarks/drawn2photo/leave_one_style_out.py

Prints, for each setting, the mean over the three styles of top-1 at alpha 0.5 and 1. No photograph is involved.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
STYLES = ("noto", "twemoji", "fluent")
SETS = {style: f"benchmarks/drawn2photo/data/drawn-{style}" for style in STYLES}


def main() -> None:
    """Runs the grid; a second call reads what is there."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    print("| learning rate | weight decay | updates | alpha 0.5 | alpha 1 |\n| ---: | ---: | ---: | ---: | ---: |")
    for rate, decay, steps in itertools.product((1e-2, 3e-2, 1e-1), (0.01, 0.1), (100, 300)):
        folds = np.array([_fold(style, rate, decay, steps) for style in STYLES])
        half, whole = 100 * folds.mean(axis=0)
        print(f"| {rate:g} | {decay:g} | {steps} | {half:.1f} % | {whole:.1f} % |", flush=True)


def _fold(left_out: str, rate: float, decay: float, steps: int) -> tuple[float, float]:
    from gen2real import RegFTConfig, load_recipe, run

    recipe = load_recipe(
        "benchmarks/drawn2photo/recipes/head.yaml",
        {"regft": RegFTConfig},
        [
            f"output=runs/drawn2photo/styles/{left_out}-{rate:g}-{decay:g}-{steps}",
            f"data.generated=[{', '.join(path for style, path in SETS.items() if style != left_out)}]",
            f"data.held_out={SETS[left_out]}",
            "data.evaluation=null",
            "transductive=false",
            "save_model=false",
            "gap=false",
            f"optimizer.lr={rate:g}",
            f"optimizer.weight_decay={decay:g}",
            f"training.steps={steps}",
            "training.batch_size=300",
        ],
    )
    result = run(recipe, quiet=True)
    return tuple(float(result.correct(reading, "generated").mean()) for reading in ("blend", "tuned"))  # type: ignore[return-value]


if __name__ == "__main__":
    main()
