"""UniDiff on Tux Paint's stamps: the kit's CLIP and Stable Diffusion, tuned on pictures and captions of other people's.

    python benchmarks/tuxpaint/unidiff.py                 every arm over its seeds; resumes
    python benchmarks/tuxpaint/unidiff.py --photographs   learns from and is measured on the photographs alone
    python benchmarks/tuxpaint/unidiff.py --publish       also writes the table to benchmarks/tuxpaint/results

The arms are some of recipes/compare/unidiff.yaml. The test stamps are measured on once, at the end of each run; what
is chosen is chosen on the validation stamps (--set set.data.evaluation=benchmarks/tuxpaint/data/validation).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]

import prepare  # noqa: E402

from comparing import make_sets, options_of, run_comparison  # noqa: E402

GENERAL = {"web-test": "kit web --split test --count 500 --toys 1"}
"""What the two models could do before."""


def main() -> None:
    """The command line."""
    parser = options_of(__doc__, ("unidiff",), output="runs/tuxpaint")
    parser.add_argument("--photographs", action="store_true", help="without the stamps that are drawings and letters")
    options = parser.parse_args()
    os.chdir(ROOT)
    if prepare.main([]):
        raise SystemExit(1)
    make_sets(Path("runs/kit/sets"), GENERAL)
    name = "unidiff"
    if options.photographs:
        name = "unidiff-photographs"
        data = prepare.DATA.relative_to(ROOT)
        changed = {"pictures": "train", "evaluation": "test"}
        options.set[:0] = [f"set.data.{key}={data / split / 'photographs.parquet'}" for key, split in changed.items()]
    run_comparison(HERE, HERE / "recipes" / "unidiff.yaml", name, options)


if __name__ == "__main__":
    main()
