"""Arms × seeds in one table: each arm's accuracy with an interval, and paired tests against the arms it must beat."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gen2real.config import load_recipe, to_json
from gen2real.errors import RecipeError
from gen2real.evaluation.statistics import (
    Interval,
    PairedTest,
    bootstrap_interval,
    holm,
    paired_bootstrap,
    seed_interval,
)
from gen2real.files import digest, write_json, write_text
from gen2real.methods import CONFIGS, run
from gen2real.methods.result import Result
from gen2real.methods.settings import Arm, CompareConfig, SoupConfig


@dataclass(frozen=True)
class Row:
    """One arm's line. `real` and `generated` are top-1; `tests` are against the arms of `against`, Holm-corrected."""

    arm: str
    seeds: int
    real: Interval | None
    real_over_seeds: Interval | None
    generated: Interval
    generated_pictures_are: str
    tests: Mapping[str, tuple[PairedTest, float]]
    seconds: float
    note: str

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        return {
            "arm": self.arm,
            "seeds": self.seeds,
            "real_top1": None if self.real is None else self.real.to_json(),
            "real_top1_over_seeds": None if self.real_over_seeds is None else self.real_over_seeds.to_json(),
            "generated_top1": self.generated.to_json(),
            "generated_pictures_are": self.generated_pictures_are,
            "against": {
                name: {**test.to_json(), "p_value_holm": corrected} for name, (test, corrected) in self.tests.items()
            },
            "training_seconds_a_seed": self.seconds,
            "note": self.note,
        }


@dataclass(frozen=True)
class Table:
    """All rows, in the recipe's order."""

    rows: tuple[Row, ...]
    against: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        return {"version": 1, "against": list(self.against), "rows": [row.to_json() for row in self.rows]}

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Heads and lines for people."""
        heads = ["arm", "seeds", "real top-1", "± seeds", "generated top-1"]
        heads += [f"against {name}" for name in self.against]
        lines = []
        for row in self.rows:
            spread = row.real_over_seeds
            line = [
                row.arm,
                str(row.seeds),
                "–" if row.real is None else row.real.percent(),
                "–" if spread is None else f"{100 * (spread.high - spread.low) / 2:.1f}",
                f"{100 * row.generated.mean:.1f} %",
            ]
            for name in self.against:
                found = row.tests.get(name)
                line.append("–" if found is None else f"{100 * found[0].difference:+.1f} (p {found[1]:.2g})")
            lines.append(line)
        return heads, lines

    def markdown(self) -> str:
        """A GitHub table."""
        heads, lines = self.cells()
        rule = ["---", *["---:"] * (len(heads) - 1)]
        escaped = [[cell.replace("|", "\\|") for cell in line] for line in [heads, rule, *lines]]
        return "".join(f"| {' | '.join(line)} |\n" for line in escaped)

    def comma_separated(self) -> str:
        """CSV with plain numbers."""
        stream = io.StringIO()
        heads = ["arm", "seeds", "real_top1", "real_low", "real_high", "generated_top1"]
        for name in self.against:
            heads += [f"difference_to_{name}", f"p_to_{name}", f"p_holm_to_{name}"]
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(heads)
        for row in self.rows:
            real = row.real
            line: list[Any] = [row.arm, row.seeds, *([real.mean, real.low, real.high] if real else ["", "", ""])]
            line.append(row.generated.mean)
            for name in self.against:
                found = row.tests.get(name)
                line += ["", "", ""] if found is None else [found[0].difference, found[0].p_value, found[1]]
            writer.writerow(line)
        return stream.getvalue()


def compare(config: CompareConfig, *, quiet: bool = False, on_run: Callable[[str], None] | None = None) -> Table:
    """Runs what is not run yet, and writes table.json, table.csv and table.md into the output folder.

    Arms whose trainings are equal share them; a comparison that was interrupted goes on where it was. Every
    arm's recipe is checked before the first run.

    Args:
        on_run: called with a line for each training that is about to start or is found finished.

    Raises: RecipeError for an arm that does not fit, naming it.
    """
    recipes = {
        (name, seed): _recipe(config, name, seed)
        for name, arm in config.arms.items()
        if arm.soup is None
        for seed in arm.seeds or config.seeds
    }
    results: dict[tuple[str, int], Result] = {}
    for place, ((name, seed), recipe) in enumerate(recipes.items(), start=1):
        if on_run is not None:
            on_run(f"[{place}/{len(recipes)}] {name}, seed {seed}")
        results[name, seed] = run(recipe, quiet=quiet)
    for name, arm in config.arms.items():
        if arm.soup is not None:
            results |= _soups(config, name, arm, results, on_run)
    table = _table(config, results)
    write_json(config.output / "table.json", table.to_json())
    write_text(config.output / "table.csv", table.comma_separated())
    write_text(config.output / "table.md", table.markdown())
    return table


def _recipe(config: CompareConfig, name: str, seed: int) -> Any:
    """An arm's recipe for one seed, in a folder named by its content, so that equal trainings are one."""
    arm = config.arms[name]
    path = arm.recipe or config.recipe
    assert path is not None
    changed = {**_leaves(config.set), **_leaves(arm.set)}
    overrides = [f"{key}={json.dumps(value)}" for key, value in changed.items()]
    fixed = [f"output={json.dumps(str(config.output))}", "save_model=false", "gap=false"]
    types = {method: config for method, config in CONFIGS.items() if method != "soup"}
    try:
        recipe: Any = load_recipe(path, types, [*fixed, *overrides, f"seed={seed}"])
    except RecipeError as error:
        raise RecipeError(f"arm {name}: {error}") from error
    content = {key: value for key, value in to_json(recipe).items() if key != "output"}
    return recipe.model_copy(update={"output": config.output / "runs" / digest(content)[:16]})


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → value; nested sections and dotted keys mean the same."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _soups(
    config: CompareConfig,
    name: str,
    arm: Arm,
    results: Mapping[tuple[str, int], Result],
    on_run: Callable[[str], None] | None,
) -> dict[tuple[str, int], Result]:
    assert arm.soup is not None
    of = arm.soup
    by_seed: dict[int, list[Path]] = {}
    for ingredient in of.arms:
        for seed in config.arms[ingredient].seeds or config.seeds:
            by_seed.setdefault(seed if of.over == "arms" else 0, []).append(results[ingredient, seed].folder)
    found = {}
    for seed, runs in by_seed.items():
        if on_run is not None:
            on_run(f"{name}, seed {seed}: {of.kind} soup of {len(runs)}")
        distinct = tuple(dict.fromkeys(runs))
        key = digest([path.name for path in distinct], of.kind, of.include_zero_shot)
        soup = SoupConfig(
            output=config.output / "runs" / key[:16],
            runs=distinct,
            kind=of.kind,
            include_zero_shot=of.include_zero_shot,
            save_model=False,
        )
        found[name, seed] = run(soup, quiet=True)
    return found


def _table(config: CompareConfig, results: Mapping[tuple[str, int], Result]) -> Table:
    by_arm = {name: [result for (arm, _), result in results.items() if arm == name] for name in config.arms}
    correct: dict[str, npt.NDArray[np.bool_]] = {}
    for name, found in by_arm.items():
        if all("real" in result.answers for result in found):
            correct[name] = np.stack([result.correct(config.arms[name].reading) for result in found])
    tests: dict[str, dict[str, tuple[PairedTest, float]]] = {name: {} for name in config.arms}
    for reference in config.against:
        others = [name for name in correct if name != reference and reference in correct]
        paired = [paired_bootstrap(correct[name], correct[reference]) for name in others]
        for name, test, corrected in zip(others, paired, holm([test.p_value for test in paired]), strict=True):
            tests[name][reference] = (test, corrected)
    rows = []
    for name, found in by_arm.items():
        reading = config.arms[name].reading
        shown = reading if any(key == f"generated.{reading}" for key in found[0].answers) else "tuned"
        generated = np.stack([result.correct(shown, "generated") for result in found])
        real = correct.get(name)
        rows.append(
            Row(
                arm=name,
                seeds=len(found),
                real=None if real is None else bootstrap_interval(real),
                real_over_seeds=None if real is None or len(found) < 2 else seed_interval(real.mean(axis=1)),
                generated=bootstrap_interval(generated),
                generated_pictures_are=found[0].summary["generated_pictures_are"],
                tests=tests[name],
                seconds=float(np.mean([result.summary["cost"]["training_seconds"] for result in found])),
                note=config.arms[name].note,
            )
        )
    return Table(tuple(rows), config.against)
