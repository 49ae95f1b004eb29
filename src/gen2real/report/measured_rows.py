"""The tables of measured runs: for each measure, every reading, run or arm with its interval and its tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gen2real.evaluation.statistics import Interval, PairedTest, paired_bootstrap
from gen2real.methods.findings import Standing, standing_of
from gen2real.methods.measured import KIND, Measured
from gen2real.methods.measured_findings import baseline_of, lines, measures_of, reading_name
from gen2real.methods.measures import Measure, leading
from gen2real.report.arms import training_seconds
from gen2real.report.charts import Chart, Point, Series, line_chart, ticks
from gen2real.report.rows import read_test, scale

_SMALL = 0.1
_CHANCE = 0.05
"""A difference with a greater p-value than that, after correction, is neither called better nor worse."""


@dataclass(frozen=True)
class MeasuredArm:
    """Equal trainings under several seeds, and the reading of them that counts.

    In a comparison an arm may be a classifier's: its results then have answers where others have values.
    """

    name: str
    reading: str
    results: tuple[Measured, ...]

    @property
    def first(self) -> Measured:
        """The first seed's, for what is shown of one training only."""
        return self.results[0]

    @property
    def measured(self) -> bool:
        """Whether the runs have values picture by picture."""
        return self.first.summary.get("kind") == KIND

    def seconds(self) -> float:
        """Of training, a seed."""
        return training_seconds([result.summary for result in self.results])


@dataclass(frozen=True)
class MeasuredRow:
    """seeds: the measure at each seed. tests: reference → (test, its p-value after correction)."""

    name: str
    note: str
    standing: Standing
    interval: Interval | None
    tests: Mapping[str, tuple[PairedTest, float]]
    seeds: Sequence[float] = ()
    is_headline: bool = False


@dataclass(frozen=True)
class MeasureTable:
    """One measure of every row. against: the references, a column each. low, top: the ends of the drawn scale."""

    measure: Measure
    rows: Sequence[MeasuredRow]
    against: Sequence[str]
    low: float
    top: float

    def having(self, standing: Standing) -> list[MeasuredRow]:
        """The rows of a standing."""
        return [row for row in self.rows if row.standing == standing]

    def end(self, value: float) -> str:
        """An end of the scale, without the zeros that end its decimals."""
        return re.sub(r"\.0+(?!\d)|(\.\d*[1-9])0+(?!\d)", r"\1", self.measure.value(value))

    def weighed(self, test: tuple[PairedTest, float]) -> Literal["better", "worse", ""]:
        """Whether a difference is for the better; empty where its interval or its p-value leaves it to chance."""
        found = self.measure.weighed(test[0])
        return "" if found == "chance" or test[1] >= _CHANCE else found


@dataclass(frozen=True)
class Tables:
    """leading: drawn. every: all measures, the same rows in each. of: what a row is. corrected: p-values are Holm's."""

    leading: Sequence[MeasureTable]
    every: Sequence[MeasureTable]
    of: str
    corrected: bool


def of_readings(result: Measured) -> Tables:
    """A single run: each of its readings, tested against the baseline; those that look up, against the headline too."""
    baseline = baseline_of(result.summary)
    found = lines(result.summary, result.all_values)
    plain = reading_name(result.headline)
    against = [] if baseline is None else [reading_name(baseline)]

    def rows(key: str) -> list[MeasuredRow]:
        own = []
        for line in found:
            tests = {against[0]: (line.changes[key], line.changes[key].p_value)} if key in line.changes else {}
            if _looks_up(result, line.reading) and key in line.measures:
                test = paired_bootstrap(
                    result.values(line.reading, key), result.values(result.headline, key), resamples=2000
                )
                tests[plain] = test, test.p_value
            own.append(
                MeasuredRow(
                    reading_name(line.reading),
                    line.meaning,
                    line.standing,
                    line.measures.get(key),
                    tests,
                    is_headline=line.is_headline,
                )
            )
        return own

    return _tables(measures_of(result.summary), rows, [*against, plain], "reading", corrected=False)


def _looks_up(result: Measured, reading: str) -> bool:
    """Whether something was looked up for a reading's questions."""
    details = result.readings[reading].get("details", {})
    return any(isinstance(own, Mapping) and own.get("looked_up") for own in details.values())


def of_runs(arms: Sequence[MeasuredArm]) -> Tables:
    """Several runs by their headlines; those measured on the same pictures are tested against the first."""
    first = arms[0]

    def rows(key: str) -> list[MeasuredRow]:
        found = []
        for arm in arms:
            own, tests = arm.first.readings[arm.reading], {}
            if arm is not first and _same_pictures(arm.first, first.first):
                ours, theirs = (one.first.all_values.get(f"{one.reading}/{key}") for one in (arm, first))
                if ours is not None and theirs is not None and len(ours) == len(theirs):
                    test = paired_bootstrap(ours, theirs, resamples=2000)
                    tests = {first.name: (test, test.p_value)}
            interval = Interval(**own["measures"][key]) if key in own["measures"] else None
            note = f"{reading_name(arm.reading)}: {own['meaning']}"
            found.append(MeasuredRow(arm.name, note, standing_of(arm.reading), interval, tests))
        return found

    keys = list(dict.fromkeys(key for arm in arms for key in arm.first.readings[arm.reading]["measures"]))
    return _tables(keys, rows, [first.name], "run", corrected=False)


def of_comparison(table: Mapping[str, Any], arms: Mapping[str, MeasuredArm]) -> Tables:
    """A comparison's table.json; `arms` by row name adds each seed's number where the runs are there."""

    def rows(key: str) -> list[MeasuredRow]:
        found = []
        for row in table["rows"]:
            own, arm = row["measures"].get(key), arms.get(row_name(row))
            seeds = []
            if own is not None and arm is not None and arm.measured and len(arm.results) > 1:
                values = [result.all_values.get(f"{arm.reading}/{key}") for result in arm.results]
                seeds = [float(value.mean()) for value in values if value is not None]
            found.append(
                MeasuredRow(
                    row_name(row),
                    row["note"],
                    standing_of(row["reading"]),
                    None if own is None else Interval(**own["interval"]),
                    {} if own is None else {name: read_test(test) for name, test in own["against"].items()},
                    seeds,
                )
            )
        return found

    keys = list(dict.fromkeys(key for row in table["rows"] for key in row["measures"]))
    return _tables(keys, rows, table["against"], "arm", corrected=True)


def row_name(row: Mapping[str, Any]) -> str:
    """The arm, and its size where the comparison has several."""
    return f"{row['arm']}, {row['size']:,} pictures" if row.get("size") is not None else str(row["arm"])


def scaling_curves(scaling: Sequence[Mapping[str, Any]]) -> list[tuple[Measure, Chart]]:
    """Each leading measure over the size of the data, a line an arm, with its intervals."""
    drawn = []
    arms = list(dict.fromkeys(one["arm"] for one in scaling))
    for key in leading(list(dict.fromkeys(one["measure"] for one in scaling))):
        measure, series = Measure(key), []
        for number, arm in enumerate(arms):
            points = []
            for one in scaling:
                if (one["arm"], one["measure"]) == (arm, key):
                    found = Interval(**one["interval"])
                    told = f"{one['size']:,} pictures: {measure.interval(found)}"
                    points.append(Point(one["size"], found.mean, found.low, found.high, told))
            if points:
                series.append(Series(arm, f"arm-{number % 6}", points))
        words = "; ".join(f"{one.name}: " + ", ".join(point.told for point in one.points) for one in series)
        chart = line_chart(
            series,
            x_label="generated pictures, on a logarithmic scale",
            y_label=f"{measure.name}{', %' if measure.unit else ''}",
            summary=f"{measure.name} by the number of generated pictures. {words}.",
            percent=True,
            log_x=True,
        )
        drawn.append((measure, chart))
    return drawn


def _tables(keys: Sequence[str], rows: Any, against: Sequence[str], of: str, *, corrected: bool) -> Tables:
    every = []
    for key in keys:
        own = rows(key)
        ends = [end for row in own if row.interval for end in (row.interval.low, row.interval.high, *row.seeds)]
        columns = [name for name in against if any(name in row.tests for row in own)]
        every.append(MeasureTable(Measure(key), own, columns, *_scale(ends)))
    first = leading(keys)
    return Tables([one for key in first for one in every if one.measure.key == key], every, of, corrected)


def _scale(ends: Sequence[float]) -> tuple[float, float]:
    """Whole tenths, as of shares; round numbers nearer by where a measure is small or greater than 1, as distances."""
    if any(ends) and not _SMALL <= max(map(abs, ends)) <= 1:
        values = ticks(min(ends), max(ends), about=4)
        return values[0], values[-1]
    return scale(ends)


def _same_pictures(one: Measured, other: Measured) -> bool:
    """Whether both were measured on sets of equal content."""
    mine, theirs = (
        [known["fingerprint"] for known in result.summary["sets"] if known["role"] == "measured on"]
        for result in (one, other)
    )
    return mine == theirs
