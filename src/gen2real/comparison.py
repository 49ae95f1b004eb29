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

from gen2real.config import dump, load_recipe, nearest, to_json
from gen2real.errors import Gen2RealError, RecipeError
from gen2real.evaluation.statistics import (
    Interval,
    PairedTest,
    bootstrap_interval,
    holm,
    paired_bootstrap,
    seed_interval,
)
from gen2real.files import digest, write_json, write_text
from gen2real.imagesets import ImageSet
from gen2real.methods import CONFIGS, run
from gen2real.methods.result import Result
from gen2real.methods.settings import Arm, ClassificationConfig, CompareConfig, SoupConfig, SoupOf
from gen2real.methods.soup import check_ingredients
from gen2real.training.distributed import rank

Place = tuple[str, int]
"""An arm's name and a seed."""


TRANSDUCTIVE = {"centring": "transductive", "batch_norm": "transductive_batch_norm"}
"""Whose statistics are the unlabelled real pictures' → how the readings that use them begin."""


@dataclass(frozen=True)
class Row:
    """One arm's line. `real` and `generated` are top-1; `tests` are against the arms of `against`, Holm-corrected.

    transductive: the same reading with statistics of the unlabelled real pictures, by what they are of.
    seconds: of training, a seed; a soup's are those of its ingredients together.
    runs: each seed's run folder, named from the comparison's.
    """

    arm: str
    reading: str
    seeds: int
    real: Interval | None
    real_over_seeds: Interval | None
    generated: Interval
    generated_pictures_are: str
    tests: Mapping[str, tuple[PairedTest, float]]
    transductive: Mapping[str, Interval]
    seconds: float
    note: str
    runs: Mapping[int, str]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        return {
            "arm": self.arm,
            "reading": self.reading,
            "seeds": self.seeds,
            "real_top1": None if self.real is None else self.real.to_json(),
            "real_top1_over_seeds": None if self.real_over_seeds is None else self.real_over_seeds.to_json(),
            "generated_top1": self.generated.to_json(),
            "generated_pictures_are": self.generated_pictures_are,
            "against": {
                name: {**test.to_json(), "p_value_holm": corrected} for name, (test, corrected) in self.tests.items()
            },
            "transductive_top1": {name: found.to_json() for name, found in self.transductive.items()},
            "training_seconds_a_seed": self.seconds,
            "note": self.note,
            "runs": {str(seed): folder for seed, folder in self.runs.items()},
        }


@dataclass(frozen=True)
class Table:
    """All rows, in the recipe's order."""

    rows: tuple[Row, ...]
    against: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        return {"version": 1, "against": list(self.against), "rows": [row.to_json() for row in self.rows]}

    @property
    def statistics(self) -> list[str]:
        """The transductive columns that any row has."""
        return [name for name in TRANSDUCTIVE if any(name in row.transductive for row in self.rows)]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Heads and lines for people."""
        heads = ["arm", "seeds", "real top-1", "± seeds", "generated top-1"]
        heads += [f"against {name}" for name in self.against]
        statistics = self.statistics
        heads += [f"transductive: {name.replace('_', ' ')}" for name in statistics]
        lines = []
        for row in self.rows:
            spread = row.real_over_seeds
            line = [
                f"{row.arm} (a bound)" if row.reading == "oracle" else row.arm,
                str(row.seeds),
                "–" if row.real is None else row.real.percent(),
                "–" if spread is None else f"{100 * (spread.high - spread.low) / 2:.1f}",
                f"{100 * row.generated.mean:.1f} %",
            ]
            for name in self.against:
                found = row.tests.get(name)
                line.append("–" if found is None else f"{100 * found[0].difference:+.1f} (p {found[1]:.2g})")
            line += [row.transductive[name].percent() if name in row.transductive else "–" for name in statistics]
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
        heads = ["arm", "reading", "seeds", "real_top1", "real_low", "real_high", "generated_top1"]
        for name in self.against:
            heads += [f"difference_to_{name}", f"p_to_{name}", f"p_holm_to_{name}"]
        heads += [f"transductive_{name}" for name in self.statistics]
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(heads)
        for row in self.rows:
            real = row.real
            line: list[Any] = [row.arm, row.reading, row.seeds]
            line += ["", "", ""] if real is None else [real.mean, real.low, real.high]
            line.append(row.generated.mean)
            for name in self.against:
                found = row.tests.get(name)
                line += ["", "", ""] if found is None else [found[0].difference, found[0].p_value, found[1]]
            line += [row.transductive[name].mean if name in row.transductive else "" for name in self.statistics]
            writer.writerow(line)
        return stream.getvalue()


def compare(config: CompareConfig, *, quiet: bool = False, on_run: Callable[[str], None] | None = None) -> Table | None:
    """Runs what is not run yet, and writes table.json, table.csv, table.md and recipe.yaml into the output folder.

    Arms whose trainings are equal share them; a comparison that was interrupted goes on where it was. Every
    arm's recipe, sets and reading are checked before the first run.

    Args:
        on_run: called with a line for each training that is about to start or is found finished.

    Returns: the table; None on the processes other than the first.

    Raises: RecipeError for an arm that does not fit, naming it.
    """
    recipes = _recipes(config)
    trainings: dict[Path, Place] = {}
    for place, recipe in recipes.items():
        trainings.setdefault(recipe.output, place)
    done: dict[Path, Result] = {}
    for number, (folder, place) in enumerate(trainings.items(), start=1):
        if on_run is not None:
            on_run(f"[{number}/{len(trainings)}] {place[0]}, seed {place[1]}")
        done[folder] = run(recipes[place], quiet=quiet)
    if rank() > 0:
        return None
    results = {place: done[recipe.output] for place, recipe in recipes.items()}
    seconds = {place: float(result.summary["cost"]["training_seconds"]) for place, result in results.items()}
    for name, arm in config.arms.items():
        if arm.soup is not None:
            for seed, ingredients in _ingredients(config, arm).items():
                folders = tuple(dict.fromkeys(results[place].folder for place in ingredients))
                if on_run is not None:
                    on_run(f"{name}, seed {seed}: {arm.soup.kind} soup of {len(folders)}")
                results[name, seed] = _soup(config, arm.soup, folders)
                seconds[name, seed] = sum({results[place].folder: seconds[place] for place in ingredients}.values())
    table = _table(config, results, seconds)
    write_text(config.output / "recipe.yaml", dump(config))
    write_json(config.output / "table.json", table.to_json())
    write_text(config.output / "table.csv", table.comma_separated())
    write_text(config.output / "table.md", table.markdown())
    return table


def _recipes(config: CompareConfig) -> dict[Place, ClassificationConfig]:
    """The recipe of each arm and seed that is trained, every one of them checked."""
    fingerprints: dict[Path, str] = {}
    recipes: dict[Place, ClassificationConfig] = {}
    for name, arm in config.arms.items():
        if arm.soup is None:
            for seed in arm.seeds or config.seeds:
                try:
                    recipes[name, seed] = _recipe(config, arm, seed, fingerprints)
                    _check_reading(arm.reading or "blend", recipes[name, seed])
                except Gen2RealError as error:
                    raise RecipeError(f"arm {name}: {error}") from error
    for name, arm in config.arms.items():
        for ingredients in _ingredients(config, arm).values() if arm.soup is not None else ():
            assert arm.soup is not None
            try:
                check_ingredients({f"arm {of}": recipes[of, seed] for of, seed in ingredients}, arm.soup.kind)
                _check_reading(arm.reading or "blend", recipes[ingredients[0]])
            except Gen2RealError as error:
                raise RecipeError(f"arm {name}: {error}") from error
    measured = {recipe.data.evaluation: name for (name, _), recipe in recipes.items() if recipe.data.evaluation}
    if len(measured) > 1:
        listed = "".join(f"\n  {name}: {path}" for path, name in measured.items())
        raise RecipeError(f"arms are tested picture by picture, so data.evaluation must be one set for all:{listed}")
    return recipes


def _recipe(config: CompareConfig, arm: Arm, seed: int, fingerprints: dict[Path, str]) -> ClassificationConfig:
    """An arm's recipe for one seed, in a folder named by its content, so that equal trainings are one.

    The content of its image sets is part of that: a set made anew under the old name is another one.
    """
    path = arm.recipe or config.recipe
    assert path is not None
    changed = {**_leaves(config.set), **_leaves(arm.set)}
    overrides = [f"{key}={json.dumps(value)}" for key, value in changed.items()]
    # One seed tells how far the sets are apart; the others would repeat it.
    gap = json.dumps(seed == (arm.seeds or config.seeds)[0])
    fixed = [f"output={json.dumps(str(config.output))}", "save_model=false", f"gap={gap}"]
    types = {method: config for method, config in CONFIGS.items() if method != "soup"}
    recipe: Any = load_recipe(path, types, [*fixed, *overrides, f"seed={seed}"])
    data = recipe.data
    sets = [*(one.path for one in data.generated), data.held_out, data.real and data.real.path, data.evaluation]
    for one in sets:
        if one is not None and one not in fingerprints:
            fingerprints[one] = ImageSet.read(one).fingerprint
    content = {key: value for key, value in to_json(recipe).items() if key != "output"}
    key = digest(content, [None if one is None else fingerprints[one] for one in sets])
    return recipe.model_copy(update={"output": config.output / "runs" / key[:16]})


def _check_reading(reading: str, recipe: ClassificationConfig) -> None:
    known = ["zero_shot", "tuned", "blend", "output_ensemble"]
    if recipe.data.held_out is not None or recipe.data.holdout > 0:
        known.insert(3, "blend_generated")
    if recipe.data.evaluation is not None:
        for prefix in TRANSDUCTIVE.values() if recipe.transductive else ():
            known += [f"{prefix}_{name}" for name in ("zero_shot", "tuned", "blend")]
        known.append("oracle")
    alphas = sorted({0.0, 1.0, recipe.ensemble.alpha, *recipe.ensemble.sweep})
    if reading not in [*known, *(f"alpha={alpha:g}" for alpha in alphas)]:
        near = nearest(reading, known)
        raise RecipeError(
            f"reading: given {reading!r}; expected one of {', '.join(known)}, or alpha=… with one of "
            f"{', '.join(f'{alpha:g}' for alpha in alphas)}" + (f"; did you mean {near}?" if near else "")
        )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → value; nested sections and dotted keys mean the same."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _ingredients(config: CompareConfig, arm: Arm) -> dict[int, list[Place]]:
    """For each seed of a soup, the arms and seeds it is made of; one soup over seeds has the seed 0."""
    found: dict[int, list[Place]] = {}
    assert arm.soup is not None
    for name in arm.soup.arms:
        for seed in config.arms[name].seeds or config.seeds:
            found.setdefault(seed if arm.soup.over == "arms" else 0, []).append((name, seed))
    return found


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


def _table(config: CompareConfig, results: Mapping[Place, Result], seconds: Mapping[Place, float]) -> Table:
    by_arm = {name: [result for (arm, _), result in results.items() if arm == name] for name in config.arms}
    correct: dict[str, npt.NDArray[np.bool_]] = {}
    for name, found in by_arm.items():
        if all("real" in result.answers for result in found):
            correct[name] = np.stack([result.correct((config.arms[name].reading or "blend")) for result in found])
    tests: dict[str, dict[str, tuple[PairedTest, float]]] = {name: {} for name in config.arms}
    for reference in config.against:
        others = [name for name in correct if name != reference and reference in correct]
        paired = [paired_bootstrap(correct[name], correct[reference]) for name in others]
        for name, test, corrected in zip(others, paired, holm([test.p_value for test in paired]), strict=True):
            tests[name][reference] = (test, corrected)
    rows = []
    for name, found in by_arm.items():
        reading = (config.arms[name].reading or "blend")
        shown = reading if any(key == f"generated.{reading}" for key in found[0].answers) else "tuned"
        generated = np.stack([result.correct(shown, "generated") for result in found])
        real = correct.get(name)
        rows.append(
            Row(
                arm=name,
                reading=reading,
                seeds=len(found),
                real=None if real is None else bootstrap_interval(real),
                real_over_seeds=None if real is None or len(found) < 2 else seed_interval(real.mean(axis=1)),
                generated=bootstrap_interval(generated),
                generated_pictures_are=found[0].summary["generated_pictures_are"],
                tests=tests[name],
                transductive={
                    statistic: bootstrap_interval(np.stack([result.correct(f"{prefix}_{reading}") for result in found]))
                    for statistic, prefix in TRANSDUCTIVE.items()
                    if all(f"real.{prefix}_{reading}" in result.answers for result in found)
                },
                seconds=float(np.mean([spent for (arm, _), spent in seconds.items() if arm == name])),
                note=config.arms[name].note,
                runs={
                    seed: result.folder.relative_to(config.output).as_posix()
                    for (arm, seed), result in results.items()
                    if arm == name
                },
            )
        )
    return Table(tuple(rows), config.against)
