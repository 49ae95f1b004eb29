"""UniDiff on the kit: a CLIP and a Stable Diffusion that know `web`, tuned together on 500 pictures of `home`.

    python benchmarks/kit/unidiff.py              each loss alone, together, every form and direction; resumes
    python benchmarks/kit/unidiff.py circle       domain set → UniDiff → generate → RegFT → photographs
    python benchmarks/kit/unidiff.py --publish    also writes the table to benchmarks/kit/results

The sets are made by the commands in SETS; the arms are those of recipes/compare, on the kit as recipes/unidiff/kit.yaml
has it. `home`'s test photographs are measured on once, at the end of each run; what is chosen is chosen on
`home-validation` (--set set.data.evaluation=runs/kit/sets/home-validation).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from comparing import make_sets, options_of, run_comparison  # noqa: E402

SETS = {
    "home-train": "kit home --split train",
    "home-validation": "kit home --split validation --captions 5",
    "home-test": "kit home --split test --count 1000 --captions 5",
    "home-names": "kit home --split test --count 1000 --toys 1",
    "web-test": "kit web --split test --count 500 --toys 1",
}


def main() -> None:
    """The command line."""
    options = options_of(__doc__, ("unidiff", "circle"), output="runs/kit").parse_args()
    os.chdir(ROOT)
    # Where the recipes look for them.
    make_sets(Path("runs/kit/sets"), SETS)
    if options.table == "circle":
        run_comparison(HERE, ROOT / "recipes" / "compare" / "unidiff-circle.yaml", "unidiff-circle", options)
    else:
        run_comparison(HERE, HERE / "recipes" / "unidiff.yaml", "unidiff", options)


if __name__ == "__main__":
    main()
