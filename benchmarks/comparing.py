"""What benchmarks that are one comparison have in common: their sets, the run of the recipe, the published table."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from publishing import ROOT, publish


def options_of(description: str | None, tables: Sequence[str], *, output: str) -> argparse.ArgumentParser:
    """The command line of such a benchmark. tables: what may be asked for, the first one by default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if len(tables) > 1:
        parser.add_argument("table", nargs="?", choices=tables, default=tables[0])
    else:
        parser.set_defaults(table=tables[0])
    parser.add_argument("--publish", action="store_true", help="write the table, with its provenance, to results/")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these; several processes may share the work so")
    parser.add_argument("--output", type=Path, default=Path(output), help="where the runs go")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="over the comparison, as set.training.steps=2"
    )
    return parser


def make_sets(folder: Path, sets: Mapping[str, str]) -> None:
    """Image sets and files of samples, each by the command a user would type; what is there is left as it is.

    sets: name → the words after `gen2real`, `{sets}` in them being `folder`. A name that ends in .jsonl is a file.
    """
    for name, words in sets.items():
        made = folder / name
        if not (made if made.suffix == ".jsonl" else made / "manifest.parquet").exists():
            command = [*shlex.split(words.format(sets=folder)), "--out", str(folder / name)]
            print("gen2real", *command, file=sys.stderr)
            subprocess.run([sys.executable, "-m", "gen2real", *command], check=True)


def run_comparison(here: Path, recipe: Path, name: str, options: argparse.Namespace) -> tuple[Path, Any]:
    """Runs a comparison's recipe into OUTPUT/name, prints its table, writes its report, and publishes it if asked to.

    here: the benchmark's folder, under which `results` lie. Returns: where the runs lie, and the table.
    """
    from gen2real import CompareConfig, compare, load_recipe, write_report

    os.chdir(ROOT)
    overrides = [f"output={options.output / name}", *options.set]
    if options.seeds:
        overrides.append(f"seeds={options.seeds}")
    config = load_recipe(recipe, {"compare": CompareConfig}, overrides)
    assert isinstance(config, CompareConfig)
    table = compare(config, on_run=lambda line: print(line, file=sys.stderr, flush=True))
    assert table is not None
    print(table.markdown())
    print(write_report(config.output))
    if options.publish:
        publish(here / "results", name, table, command=typed())
    return config.output, table


def typed() -> str:
    """The command that runs this process, as a user types it."""
    script, *words = sys.argv
    return shlex.join(["python", Path(script).resolve().relative_to(ROOT).as_posix(), *words])
