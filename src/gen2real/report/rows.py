"""The table that a report begins with: arms or readings, each with its interval and what it is tested against."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gen2real.evaluation.statistics import Interval, PairedTest, paired_bootstrap
from gen2real.methods.findings import Standing, headline, lines, spoken, standing_of
from gen2real.methods.result import Result
from gen2real.report.arms import Arm


@dataclass(frozen=True)
class Row:
    """seeds: each seed's top-1 on real pictures. tests: reference → (test, its p-value after correction)."""

    name: str
    note: str
    standing: Standing
    alpha: float | None
    real: Interval | None
    top5: Interval | None
    calibration_error: float | None
    generated: Interval | None
    tests: Mapping[str, tuple[PairedTest, float]]
    seeds: Sequence[float] = ()
    is_saved: bool = False
    seconds: float | None = None


@dataclass(frozen=True)
class Rows:
    """rows in their order. against: the references, a column each. low, top: the scale's ends, shares of 1."""

    rows: Sequence[Row]
    against: Sequence[str]
    corrected: bool
    of: str
    low: float = field(init=False)
    top: float = field(init=False)

    def __post_init__(self) -> None:
        ends = [end for row in self.rows if row.real is not None for end in (row.real.low, row.real.high, *row.seeds)]
        low, top = scale(ends)
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "top", top)

    def having(self, *standings: Standing) -> list[Row]:
        """The rows of these standings."""
        return [row for row in self.rows if row.standing in standings]

    @property
    def columns(self) -> dict[str, bool]:
        """Which columns any row fills."""
        return {
            "top5": any(row.top5 is not None for row in self.rows),
            "calibration": any(row.calibration_error is not None for row in self.rows),
            "seeds": any(len(row.seeds) > 1 for row in self.rows),
            "seconds": any(row.seconds is not None for row in self.rows),
        }


def scale(ends: Sequence[float]) -> tuple[float, float]:
    """Whole tenths that enclose all of `ends`."""
    # Rounding keeps 0.3 // 0.1 from being 2.
    low = math.floor(round(10 * min(ends, default=0.0), 6)) / 10
    return low, max(math.ceil(round(10 * max(ends, default=1.0), 6)) / 10, low + 0.1)


def of_readings(result: Result) -> Rows:
    """A single run: each of its readings."""
    rows = []
    for line in lines(result.summary, result.answers):
        tested = {} if line.change is None or line.reading == "zero_shot" else {"zero-shot": line.change}
        rows.append(
            Row(
                name=spoken(line.reading),
                note=line.meaning,
                standing=line.standing,
                alpha=line.alpha,
                real=line.real,
                top5=line.top5,
                calibration_error=line.calibration_error,
                generated=line.generated,
                tests={name: (test, test.p_value) for name, test in tested.items()},
                is_saved=line.is_saved,
            )
        )
    return Rows(rows, ["zero-shot"] if any(row.tests for row in rows) else [], False, "reading")


def of_comparison(table: Mapping[str, Any], arms: Sequence[Arm]) -> Rows:
    """A comparison's table.json; `arms` adds each seed's number where the runs are there."""
    by_name = {arm.name: arm for arm in arms}
    rows = []
    for row in table["rows"]:
        arm = by_name.get(row["arm"])
        seeds = []
        if arm is not None and arm.measured:
            seeds = [float(value) for value in arm.correct(arm.reading).mean(axis=1)]
        rows.append(
            Row(
                name=row["arm"],
                note=row["note"],
                standing=standing_of(row["reading"]),
                alpha=None,
                real=None if row["real_top1"] is None else Interval(**row["real_top1"]),
                top5=None,
                calibration_error=None,
                generated=Interval(**row["generated_top1"]),
                tests={name: read_test(test) for name, test in row["against"].items()},
                seeds=seeds or [row["real_top1"]["mean"] if row["real_top1"] else 0.0] * (row["seeds"] > 1),
                seconds=row["training_seconds_a_seed"],
            )
        )
    return Rows(rows, table["against"], True, "arm")


def of_runs(arms: Sequence[Arm]) -> Rows:
    """Several runs side by side; those that answered the same pictures as the first are tested against it."""
    first = arms[0]
    rows = []
    for arm in arms:
        tests = {}
        if arm is not first and arm.measured and first.measured and _same_pictures(arm, first):
            test = paired_bootstrap(arm.correct(arm.reading), first.correct(first.reading), resamples=2000)
            tests = {first.name: (test, test.p_value)}
        line = next(one for one in lines(arm.first.summary, arm.first.answers) if one.reading == arm.reading)
        rows.append(
            Row(
                name=arm.name,
                note=f"{spoken(arm.reading)}: {line.meaning}",
                standing="result",
                alpha=line.alpha,
                real=line.real,
                top5=line.top5,
                calibration_error=line.calibration_error,
                generated=line.generated,
                tests=tests,
                seconds=arm.seconds(),
            )
        )
    return Rows(rows, [first.name] if any(row.tests for row in rows) else [], False, "run")


def of_a_run(result: Result, name: str) -> Arm:
    """A run as an arm of one seed; what counts is the model it saved."""
    return Arm(name, headline(result.summary), (result,))


def _same_pictures(one: Arm, other: Arm) -> bool:
    mine, theirs = one.first.answers["real"], other.first.answers["real"]
    return len(mine) == len(theirs) and bool((mine == theirs).all())


def read_test(stored: Mapping[str, Any]) -> tuple[PairedTest, float]:
    """A test of table.json, and its p-value after correction."""
    values = {key: value for key, value in stored.items() if key != "p_value_holm"}
    return PairedTest(**values), float(stored["p_value_holm"])
