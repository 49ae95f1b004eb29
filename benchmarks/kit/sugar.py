"""Sugar on the kit: a LLaVA that knows `web`, tuned on stories, captions and questions of 500 pictures of `home`.

    python benchmarks/kit/sugar.py              without L_d, with it, and with each control in its place; resumes
    python benchmarks/kit/sugar.py --publish    also writes the table to benchmarks/kit/results

The sets are made by the commands in SETS; the arms are those of recipes/compare/sugar.yaml, on the kit as
recipes/sugar/kit.yaml has it. `home`'s test pictures are measured on once, at the end of each run; what is chosen is
chosen on `home-told-validation`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from sugar_claims import ANSWERS, SEARCHES, Claims, settle  # noqa: E402

from comparing import make_sets, options_of, run_comparison, typed  # noqa: E402
from gen2real.comparison import MeasuredTable  # noqa: E402
from gen2real.methods.measured import Measured  # noqa: E402
from publishing import publish  # noqa: E402

SETS = {
    "home-told": "kit home --split train --stories 500",
    "home-pairs.jsonl": "import pairs {sets}/home-told --order both",
    "home-talks.jsonl": "import questions {sets}/home-told/questions.jsonl --turns 4",
    "home-known": "kit home --split train --seed 1 --count 500",
    "home-told-validation": "kit home --split validation --count 300 --captions 5 --stories 200 --tasks 300",
    "home-told-test": "kit home --split test --count 500 --captions 5 --stories 500 --tasks 500",
}


def main() -> None:
    """The command line."""
    options = options_of(__doc__, ("sugar",), output="runs/kit").parse_args()
    options.set = [f"measures=[{', '.join((*SEARCHES, *ANSWERS))}]", *options.set]
    os.chdir(ROOT)
    # Where the recipes look for them.
    make_sets(Path("runs/kit/sets"), SETS)
    folder, table = run_comparison(HERE, ROOT / "recipes" / "compare" / "sugar.yaml", "sugar", options)
    claims = _settled(folder, table)
    print(claims.markdown())
    if options.publish:
        publish(HERE / "results", "sugar-claims", claims, command=typed())


def _settled(folder: Path, table: MeasuredTable) -> Claims:
    rows = {row.arm: row for row in table.rows}

    def values(arm: str, measure: str) -> np.ndarray:
        row = rows[arm]
        return np.stack([Measured.read(folder / run).values(row.reading, measure) for run in row.runs.values()])

    return settle(values)


if __name__ == "__main__":
    main()
