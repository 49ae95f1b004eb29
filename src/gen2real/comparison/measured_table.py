"""The table of arms that are judged by measures: a column each with intervals, and paired tests measure by measure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gen2real.comparison.plan import Place, Plan
from gen2real.comparison.recipes import BLEND
from gen2real.comparison.table import (
    Point,
    Values,
    extras,
    github_table,
    mean_seconds,
    notes_on,
    paired_tests,
    points,
    run_folders,
    shown_rows,
)
from gen2real.config import nearest
from gen2real.errors import RecipeError
from gen2real.evaluation.statistics import Interval, PairedTest, bootstrap_interval, seed_interval
from gen2real.methods.measured import KIND, Measured
from gen2real.methods.measures import Measure, leading
from gen2real.methods.result import Result

TOP1 = "top1"
"""The measure that a classifier's run is judged by."""


@dataclass(frozen=True)
class MeasuredRow:
    """One arm's line, or one size's of an arm that was run at several. Of each mapping the keys are measures.

    arm: what the line is called; of: the arm it is of; size: that of its data, None where sizes were not asked of it.
    measures: over seeds and pictures; over_seeds: over seeds alone, where there are several.
    tests: the arm of `against` → measure → the test and its p-value, Holm-corrected over the rows.
    seconds: of training, a seed. runs: each seed's run folder, named from the comparison's.
    """

    arm: str
    of: str
    size: int | None
    method: str
    reading: str
    seeds: int
    measures: Mapping[str, Interval]
    over_seeds: Mapping[str, Interval]
    tests: Mapping[str, Mapping[str, tuple[PairedTest, float]]]
    seconds: float
    note: str
    runs: Mapping[int, str]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        return {
            "arm": self.of,
            "size": self.size,
            "method": self.method,
            "reading": self.reading,
            "seeds": self.seeds,
            "measures": {
                measure: {
                    "interval": found.to_json(),
                    "over_seeds": self.over_seeds[measure].to_json() if measure in self.over_seeds else None,
                    "against": {
                        name: {**tests[measure][0].to_json(), "p_value_holm": tests[measure][1]}
                        for name, tests in self.tests.items()
                        if measure in tests
                    },
                }
                for measure, found in self.measures.items()
            },
            "training_seconds_a_seed": self.seconds,
            "note": self.note,
            "runs": {str(seed): folder for seed, folder in self.runs.items()},
        }


@dataclass(frozen=True)
class MeasuredTable:
    """All rows, in the recipe's order, and the measures that have a column, as their keys in `result.json`.

    scaling: each measure of every arm that was run at several sizes. notes: of arms that have no row.
    """

    rows: tuple[MeasuredRow, ...]
    against: tuple[str, ...]
    measures: tuple[str, ...]
    scaling: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable, `scaling` and `notes` are there where there are any."""
        table = {
            "version": 1,
            "kind": KIND,
            "against": list(self.against),
            "measures": list(self.measures),
            "rows": [row.to_json() for row in self.rows],
        }
        return table | extras(self.scaling, self.notes)

    def cells(self, *measures: str) -> tuple[list[str], list[list[str]]]:
        """Heads and lines for people, of these measures or of all; values are shown × 100."""
        columns = [Measure(key) for key in measures or self.measures]
        heads = ["arm", "seeds"]
        for measure in columns:
            heads.append(measure.heading)
            heads += [f"{measure.name} against {name}" if len(columns) > 1 else f"against {name}"
                      for name in self.against]  # fmt: skip
        lines = []
        for row in self.rows:
            line = [row.arm, str(row.seeds)]
            for measure in columns:
                found = row.measures.get(measure.key)
                line.append("–" if found is None else measure.interval(found))
                for name in self.against:
                    tested = row.tests.get(name, {}).get(measure.key)
                    line.append("–" if tested is None else _tested(measure, *tested))
            lines.append(line)
        return heads, lines

    def markdown(self) -> str:
        """A GitHub table, and the notes."""
        return github_table(*self.cells(), notes=self.notes)

    def comma_separated(self) -> str:
        """CSV with plain numbers."""
        heads = ["arm", "size", "method", "reading", "seeds"]
        for key in self.measures:
            heads += [key, f"{key}_low", f"{key}_high"]
            for name in self.against:
                heads += [f"{key}_difference_to_{name}", f"{key}_p_to_{name}", f"{key}_p_holm_to_{name}"]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(heads)
        for row in self.rows:
            line: list[Any] = [row.of, row.size, row.method, row.reading, row.seeds]
            for key in self.measures:
                found = row.measures.get(key)
                line += ["", "", ""] if found is None else [found.mean, found.low, found.high]
                for name in self.against:
                    tested = row.tests.get(name, {}).get(key)
                    line += ["", "", ""] if tested is None else [tested[0].difference, tested[0].p_value, tested[1]]
            writer.writerow(line)
        return stream.getvalue()


def check_reading(plan: Plan, row: str, result: Measured) -> None:
    """Whether a finished run has the reading that its arm counts by.

    Raises: RecipeError, naming the arm and the readings there are.
    """
    reading = plan.arms[row].reading
    if reading is not None and reading not in result.readings:
        near = nearest(reading, result.readings)
        raise RecipeError(
            f"arm {row}: reading: given {reading!r}; a run of method {result.summary['method']} has "
            f"{', '.join(result.readings)}{f'; did you mean {near}?' if near else ''}"
        )


def make_measured_table(
    plan: Plan,
    results: Mapping[Place, Result | Measured],
    seconds: Mapping[Place, float],
    evaluation: Mapping[str, Path | None],
) -> MeasuredTable:
    """The table of finished runs; a classifier's measure is `top1`.

    Arms that others start from may be measured on a set of their own; such rows have no numbers here.

    Args:
        seconds: of training, by row and seed. evaluation: the set that a row is measured on.

    Raises: RecipeError for measures that no arm has, and for values of different pictures.
    """
    starts = {other for arm in plan.arms.values() for other in arm.starts.values()}
    common = {evaluation.get(row) for row in plan.arms if row not in starts} - {None}
    values: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
    shown = shown_rows(plan, results)
    for row in shown:
        found = [result for (name, _), result in results.items() if name == row]
        elsewhere = row in starts and bool(common) and evaluation.get(row) not in common
        values[row] = {} if elsewhere else _values(found, plan.arms[row].reading)
    measures = _columns(plan, values)
    tests: dict[str, dict[str, dict[str, tuple[PairedTest, float]]]] = {row: {} for row in shown}
    for measure in measures:
        own = {row: found[measure] for row, found in values.items() if measure in found}
        _check_same_pictures(measure, own)
        for against in plan.config.against:
            for row, test in paired_tests(plan, against, own).items():
                tests[row].setdefault(against, {})[measure] = test
    rows = []
    for row in shown:
        of = plan.rows[row]
        first = next(result for (name, _), result in results.items() if name == row)
        counted = {measure: values[row][measure] for measure in measures if measure in values[row]}
        rows.append(
            MeasuredRow(
                arm=row,
                of=of.arm,
                size=of.size,
                method=first.summary["method"],
                reading=_reading(first, plan.arms[row].reading),
                seeds=sum(name == row for name, _ in results),
                measures={measure: bootstrap_interval(found) for measure, found in counted.items()},
                over_seeds={
                    measure: seed_interval(found.mean(axis=1)) for measure, found in counted.items() if len(found) > 1
                },
                tests=tests[row],
                seconds=mean_seconds(row, seconds),
                note=plan.arms[row].note,
                runs=run_folders(plan, row, results),
            )
        )
    scaling = tuple(point for row in rows for point in points(plan, row.arm, row.measures))
    return MeasuredTable(tuple(rows), plan.config.against, measures, scaling, notes_on(plan, results))


def _tested(measure: Measure, test: PairedTest, p_value: float) -> str:
    return f"{measure.difference(test.difference)} (p {p_value:.2g})"


def _reading(result: Result | Measured, asked: str | None) -> str:
    return asked or (BLEND if isinstance(result, Result) else result.headline)


def _values(results: list[Result | Measured], asked: str | None) -> dict[str, npt.NDArray[np.float64]]:
    """Measure → [S N] of a row's runs, one a seed."""
    found: dict[str, list[npt.NDArray[np.float64]]] = {}
    for result in results:
        reading = _reading(result, asked)
        if isinstance(result, Measured):
            for measure in result.measures(reading):
                found.setdefault(measure, []).append(result.values(reading, measure))
        elif "real" in result.answers:
            found.setdefault(TOP1, []).append(result.correct(reading).astype(np.float64))
    return {measure: np.stack(own) for measure, own in found.items()}


def _columns(plan: Plan, values: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The measures asked for; else those that a reader looks for first, of each row in turn."""
    asked = plan.config.measures
    if asked is None:
        return tuple(dict.fromkeys(measure for found in values.values() for measure in leading(list(found))))
    known = dict.fromkeys(measure for found in values.values() for measure in found)
    missing = [measure for measure in asked if measure not in known]
    if missing:
        near = nearest(missing[0], known)
        raise RecipeError(
            f"measures: given {missing[0]!r}, which no arm has; the arms have {', '.join(known) or 'none'}"
            f"{f'; did you mean {near}?' if near else ''}"
        )
    return asked


def _check_same_pictures(measure: str, values: Values) -> None:
    counts = {row: found.shape[1] for row, found in values.items()}
    if len(set(counts.values())) > 1:
        listed = "".join(f"\n  {row}: {count}" for row, count in counts.items())
        raise RecipeError(
            f"arms are tested picture by picture, and {measure} was measured on different numbers of them:{listed}"
        )
