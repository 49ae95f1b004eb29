"""Arms × seeds in one table: each arm's numbers with intervals, and paired tests against the arms it must beat.

plan.py            arms at each size, in an order in which every run comes after those it starts from
recipes.py         each arm's recipe, checked, in a folder named by its content
table.py           the table of classifiers: top-1
measured_table.py  the table of arms that are judged by several measures
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gen2real.comparison.measured_table import MeasuredRow, MeasuredTable, check_reading, make_measured_table
from gen2real.comparison.plan import Place, Plan, make_plan
from gen2real.comparison.recipes import TRANSDUCTIVE, evaluation_of, make_recipes
from gen2real.comparison.table import Row, Table, make_table
from gen2real.config import dump
from gen2real.files import digest, write_json, write_text
from gen2real.methods import run
from gen2real.methods.compare_settings import CompareConfig, SoupOf
from gen2real.methods.measured import Measured
from gen2real.methods.result import FinishedRun, Result
from gen2real.methods.settings import SoupConfig
from gen2real.training.distributed import rank, wait_for_all

__all__ = ["TRANSDUCTIVE", "MeasuredRow", "MeasuredTable", "Row", "Table", "compare"]


def compare(
    config: CompareConfig, *, quiet: bool = False, on_run: Callable[[str], None] | None = None
) -> Table | MeasuredTable | None:
    """Runs what is not run yet, and writes table.json, table.csv, table.md and recipe.yaml into the output folder.

    Arms whose trainings are equal share them; a comparison that was interrupted goes on where it was. Every
    arm's recipe and sets are checked before the first run, and a classifier's reading is.

    Args:
        on_run: called with a line for each training that is about to start or is found finished.

    Returns: the table, a `MeasuredTable` where any arm's method is judged by measures; None on the processes other
        than the first.

    Raises: RecipeError for an arm that does not fit, naming it.
    """
    plan = make_plan(config)
    recipes = make_recipes(plan)
    trainings: dict[Path, Place] = {}
    for place, recipe in recipes.items():
        trainings.setdefault(recipe.output, place)
    done: dict[Path, Any] = {}
    for number, (folder, place) in enumerate(trainings.items(), start=1):
        if on_run is not None:
            on_run(f"[{number}/{len(trainings)}] {place[0]}, seed {place[1]}")
        done[folder] = run(recipes[place], quiet=quiet)
        # The first process is the last to leave a run, and the next run may start from its model.
        wait_for_all()
        if isinstance(done[folder], Measured):
            for row in dict.fromkeys(row for (row, _), recipe in recipes.items() if recipe.output == folder):
                check_reading(plan, row, done[folder])
    if rank() > 0:
        return None
    results = {place: done[recipe.output] for place, recipe in recipes.items()}
    seconds = {place: float(result.summary["cost"]["training_seconds"]) for place, result in results.items()}
    _mix(plan, results, seconds, on_run)
    table = tabulate(plan, results, seconds, {row: evaluation_of(recipe) for (row, _), recipe in recipes.items()})
    write_text(config.output / "recipe.yaml", dump(config))
    write_json(config.output / "table.json", table.to_json())
    write_text(config.output / "table.csv", table.comma_separated())
    write_text(config.output / "table.md", table.markdown())
    return table


def tabulate(
    plan: Plan,
    results: Mapping[Place, FinishedRun],
    seconds: Mapping[Place, float],
    evaluation: Mapping[str, Path | None],
) -> Table | MeasuredTable:
    """The table of finished runs: that of classifiers where all of them are. evaluation: what a row was measured on.

    Runs that are measured by nothing, as generations, have no row; the table's notes name them.
    """
    with_numbers = {place: result for place, result in results.items() if isinstance(result, Result | Measured)}
    classified = {place: result for place, result in with_numbers.items() if isinstance(result, Result)}
    if len(classified) == len(with_numbers):
        return make_table(plan, classified, seconds)
    return make_measured_table(plan, with_numbers, seconds, evaluation)


def _mix(
    plan: Plan,
    results: dict[Place, Any],
    seconds: dict[Place, float],
    on_run: Callable[[str], None] | None,
) -> None:
    """Adds the soups, and what their ingredients took."""
    for name, arm in plan.arms.items():
        if arm.soup is None:
            continue
        for seed, ingredients in plan.ingredients(name).items():
            folders = tuple(dict.fromkeys(results[place].folder for place in ingredients))
            if on_run is not None:
                on_run(f"{name}, seed {seed}: {arm.soup.kind} soup of {len(folders)}")
            results[name, seed] = _soup(plan.config, arm.soup, folders)
            seconds[name, seed] = sum({results[place].folder: seconds[place] for place in ingredients}.values())


def _soup(config: CompareConfig, of: SoupOf, runs: tuple[Path, ...]) -> Result:
    key = digest([path.name for path in runs], of.kind, of.include_zero_shot)
    soup = SoupConfig(
        output=config.output / "runs" / key[:16],
        runs=runs,
        kind=of.kind,
        include_zero_shot=of.include_zero_shot,
        save_model=False,
    )
    found: Result = run(soup, quiet=True)
    return found
