"""The table of drawn2photo: every arm over its seeds, trained on drawn pictures, tested on photographs.

    python benchmarks/drawn2photo/run.py            all arms; resumes; hours on two cores
    python benchmarks/drawn2photo/run.py --quick    the arms that train the head alone; minutes
    python benchmarks/drawn2photo/run.py --publish  also writes the table to benchmarks/drawn2photo/results

No photograph and no photo label is read before a run's training and choices have ended; the hyper-parameters in
recipes/ were chosen on drawn pictures of a style that was left out (README.md beside this file says how).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="head-only arms")
    parser.add_argument("--publish", action="store_true", help="write the table, with its provenance, to results/")
    parser.add_argument("--output", type=Path, default=Path("runs/drawn2photo"), help="where the runs go")
    options = parser.parse_args()

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.path.insert(0, str(HERE.parent))
    import fetch

    from publishing import publish

    if fetch.main([]):
        raise SystemExit(1)
    from gen2real import CompareConfig, compare, load_recipe

    name = "quick" if options.quick else "full"
    recipe = HERE.relative_to(ROOT) / "recipes" / f"{name}.yaml"
    config = load_recipe(recipe, {"compare": CompareConfig}, [f"output={options.output / name}"])
    assert isinstance(config, CompareConfig)
    table = compare(config, on_run=lambda line: print(line, file=sys.stderr, flush=True))
    print(table.markdown())
    print(f"{options.output / name / 'table.md'}, table.csv and table.json hold the same.")
    if options.publish:
        command = f"python benchmarks/drawn2photo/run.py{' --quick' if options.quick else ''} --publish"
        publish(HERE / "results", name, table, command=command)


if __name__ == "__main__":
    main()
