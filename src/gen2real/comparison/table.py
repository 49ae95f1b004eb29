"""The table of a comparison of classifiers: top-1 with intervals, and paired tests against the arms it must beat."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gen2real.comparison.plan import Place, Plan
from gen2real.comparison.recipes import BLEND, TRANSDUCTIVE
from gen2real.evaluation.statistics import (
    Interval,
    PairedTest,
    bootstrap_interval,
    holm,
    paired_bootstrap,
    seed_interval,
)
from gen2real.methods.result import Result

Values = Mapping[str, npt.NDArray[Any]]
"""Row → [S N], one value a seed and picture."""


@dataclass(frozen=True)
class Point:
    """One measure of an arm at one size of the data."""

    arm: str
    size: int
    measure: str
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        return {"arm": self.arm, "size": self.size, "measure": self.measure, "interval": self.interval.to_json()}


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
    """All rows, in the recipe's order. scaling: top-1 of every arm that was run at several sizes.

    notes: of arms that have no row.
    """

    rows: tuple[Row, ...]
    against: tuple[str, ...]
    scaling: tuple[Point, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable, `scaling` and `notes` are there where there are any."""
        table = {"version": 1, "against": list(self.against), "rows": [row.to_json() for row in self.rows]}
        return table | extras(self.scaling, self.notes)

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
        """A GitHub table, and the notes."""
        return github_table(*self.cells(), notes=self.notes)

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


def make_table(plan: Plan, results: Mapping[Place, Result], seconds: Mapping[Place, float]) -> Table:
    """The table of finished runs. seconds: of training, by row and seed."""
    by_row = {
        name: [result for (row, _), result in results.items() if row == name] for name in shown_rows(plan, results)
    }
    correct: dict[str, npt.NDArray[np.bool_]] = {}
    for name, found in by_row.items():
        if all("real" in result.answers for result in found):
            correct[name] = np.stack([result.correct(plan.arms[name].reading or BLEND) for result in found])
    tests = {against: paired_tests(plan, against, correct) for against in plan.config.against}
    rows = []
    for name, found in by_row.items():
        reading = plan.arms[name].reading or BLEND
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
                tests={against: own[name] for against, own in tests.items() if name in own},
                transductive={
                    statistic: bootstrap_interval(np.stack([result.correct(f"{prefix}_{reading}") for result in found]))
                    for statistic, prefix in TRANSDUCTIVE.items()
                    if all(f"real.{prefix}_{reading}" in result.answers for result in found)
                },
                seconds=mean_seconds(name, seconds),
                note=plan.arms[name].note,
                runs=run_folders(plan, name, results),
            )
        )
    scaling = (points(plan, row.arm, {"top1": row.real}) for row in rows if row.real is not None)
    scaled = tuple(point for own in scaling for point in own)
    return Table(tuple(rows), plan.config.against, scaled, notes_on(plan, results))


def shown_rows(plan: Plan, results: Mapping[Place, Any]) -> list[str]:
    """The rows that have results, in the recipe's order."""
    there = {row for row, _ in results}
    return [row for row in plan.arms if row in there]


def notes_on(plan: Plan, results: Mapping[Place, Any]) -> tuple[str, ...]:
    """What a table says of arms that have no row in it."""
    there = shown_rows(plan, results)
    missing = [row for row in plan.arms if row not in there]
    are, their = ("is a step", "it") if len(missing) == 1 else ("are steps", "them")
    return (f"{', '.join(missing)} {are} on the way to other arms; nothing is measured of {their}.",) if missing else ()


def paired_tests(plan: Plan, against: str, values: Values) -> dict[str, tuple[PairedTest, float]]:
    """Every row against the arm `against`, at its own size: the test, and its p-value, Holm-corrected over the rows.

    values: of the rows that were measured on the same pictures.
    """
    pairs = {name: reference for name in values if (reference := plan.reference(name, against)) in values}
    found = [paired_bootstrap(values[name], values[reference]) for name, reference in pairs.items() if reference]
    corrected = holm([test.p_value for test in found])
    return dict(zip(pairs, zip(found, corrected, strict=True), strict=True))


def points(plan: Plan, row: str, measures: Mapping[str, Interval]) -> list[Point]:
    """What a row adds to the curves over the size of the data; nothing where its arm is not scaled."""
    of = plan.rows[row]
    return [] if of.size is None else [Point(of.arm, of.size, name, found) for name, found in measures.items()]


def mean_seconds(row: str, seconds: Mapping[Place, float]) -> float:
    """Of a row's trainings, a seed."""
    return float(np.mean([spent for (name, _), spent in seconds.items() if name == row]))


def run_folders(plan: Plan, row: str, results: Mapping[Place, Any]) -> dict[int, str]:
    """Each seed's run, named from the comparison's folder."""
    return {
        seed: result.folder.relative_to(plan.config.output).as_posix()
        for (name, seed), result in results.items()
        if name == row
    }


def extras(scaling: Sequence[Point], notes: Sequence[str]) -> dict[str, Any]:
    """What is in a table's JSON only where there is any of it."""
    found: dict[str, Any] = {"scaling": [point.to_json() for point in scaling]} if scaling else {}
    return found | ({"notes": list(notes)} if notes else {})


def github_table(heads: Sequence[str], lines: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """Markdown; a pipe in a cell ends no cell."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in [heads, rule, *lines]]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped) + "".join(f"\n{note}\n" for note in notes)
