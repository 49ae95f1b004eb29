"""GMAIL on the kit: aligned and trained on generated pictures, measured on photographs of `home`.

    python benchmarks/kit/gmail.py              every arm over its seeds; resumes; about an hour on two cores
    python benchmarks/kit/gmail.py scaling      the same recipe at growing sizes of the generated set
    python benchmarks/kit/gmail.py --publish    also writes the table to benchmarks/kit/results

The sets are made by the commands in SETS. Learning rate, updates and the weight of the moments were chosen on `home`'s
validation photographs (docs/kit.md has every look); the test photographs are measured on once, at the end of each run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from comparing import make_sets, options_of, run_comparison  # noqa: E402

SETS = {
    "home-train": "kit home --split train",
    "home-test": "kit home --split test --count 1000 --captions 5",
    "web-train": "kit web --split train --count 6000",
    "home-drawn": "generate {sets}/home-train --generator src/gen2real/kit/checkpoints/generator --per-caption 4 "
    "--steps 10 --guidance 3",
}


def main() -> None:
    """The command line."""
    options = options_of(__doc__, ("gmail", "scaling"), output="runs/kit").parse_args()
    os.chdir(HERE.parents[1])
    # Where the recipes look for them.
    make_sets(Path("runs/kit/sets"), SETS)
    name = "gmail-scaling" if options.table == "scaling" else options.table
    run_comparison(HERE, HERE / "recipes" / f"{name}.yaml", name, options)


if __name__ == "__main__":
    main()
