"""GMAIL on the kit: aligned and trained on generated pictures, measured on photographs of `home`.

    python benchmarks/kit/gmail.py              every arm over its seeds; resumes; about an hour on two cores
    python benchmarks/kit/gmail.py scaling      the same recipe at growing sizes of the generated set
    python benchmarks/kit/gmail.py --publish    also writes the table to benchmarks/kit/results

The sets are made by the commands in SETS. Learning rate, updates and the weight of the moments were chosen on `home`'s
validation photographs (docs/kit.md has every look); the test photographs are measured on once, at the end of each run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SETS = {
    "home-train": "kit home --split train",
    "home-test": "kit home --split test --count 1000 --captions 5",
    "web-train": "kit web --split train --count 6000",
    "home-drawn": "generate {sets}/home-train --generator src/gen2real/kit/checkpoints/generator --per-caption 4 "
    "--steps 10 --guidance 3",
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=("gmail", "scaling"), default="gmail")
    parser.add_argument("--publish", action="store_true", help="write the table, with its provenance, to results/")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these; several processes may share the work so")
    parser.add_argument("--output", type=Path, default=Path("runs/kit"), help="where sets and runs go")
    options = parser.parse_args()

    os.chdir(ROOT)
    make_sets(options.output / "sets")
    sys.path.insert(0, str(HERE.parent))
    from gen2real import CompareConfig, compare, load_recipe, write_report
    from publishing import publish

    name = "gmail-scaling" if options.table == "scaling" else options.table
    overrides = [f"output={options.output / name}"]
    if options.seeds:
        overrides.append(f"seeds={options.seeds}")
    config = load_recipe(HERE / "recipes" / f"{name}.yaml", {"compare": CompareConfig}, overrides)
    assert isinstance(config, CompareConfig)
    table = compare(config, on_run=lambda line: print(line, file=sys.stderr, flush=True))
    print(table.markdown())
    print(write_report(config.output))
    if options.publish:
        publish(HERE / "results", name, table, command=f"python benchmarks/kit/gmail.py {options.table} --publish")


def make_sets(folder: Path) -> None:
    """Every image set, each by the command a user would type; what is there is left as it is."""
    for name, words in SETS.items():
        if not (folder / name / "manifest.parquet").exists():
            command = [*shlex.split(words.format(sets=folder)), "--out", str(folder / name)]
            print("gen2real", *command, file=sys.stderr)
            subprocess.run([sys.executable, "-m", "gen2real", *command], check=True)


if __name__ == "__main__":
    main()
