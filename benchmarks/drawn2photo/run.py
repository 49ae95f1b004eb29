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
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="head-only arms")
    parser.add_argument("--publish", action="store_true", help="write the table, with its provenance, to results/")
    parser.add_argument("--output", type=Path, default=Path("runs/drawn2photo"), help="where the runs go")
    options = parser.parse_args()

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    import fetch

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
        publish(name, table)


def publish(name: str, table: Any) -> None:
    """The table under results/, with command, commit, seeds and machine."""
    from gen2real.files import write_json, write_text

    stated = provenance(name)
    lines = "".join(f"{key}: {value}\n" for key, value in stated.items())
    write_text(RESULTS / f"{name}.md", f"{table.markdown()}\n```text\n{lines}```\n")
    write_text(RESULTS / f"{name}.csv", table.comma_separated())
    write_json(RESULTS / f"{name}.json", {"provenance": stated, **table.to_json()})
    print(f"published under {RESULTS.relative_to(ROOT)}")


def provenance(name: str) -> dict[str, str]:
    """What made the numbers."""
    import torch

    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False)
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "src", "benchmarks"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    return {
        "command": f"python benchmarks/drawn2photo/run.py{' --quick' if name == 'quick' else ''} --publish",
        "commit": commit.stdout.strip() + (" with local changes" if changed.stdout.strip() else ""),
        "seeds": "as in the table's second column, from 0",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "software": f"Python {platform.python_version()}, torch {torch.__version__}",
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
