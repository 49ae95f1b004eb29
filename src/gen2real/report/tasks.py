"""What tasks tell besides their leading measures: by place, by category, of controls, and of what was looked up.

`result.json` keeps it in each reading's `details`: task → {"categories", "chance", "spread", "looked_up", …}, as
`evaluation.tasks.TaskScores.details` has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gen2real.evaluation.statistics import Interval
from gen2real.methods.measures import Measure
from gen2real.report.charts import Chart, Point, Series, line_chart
from gen2real.report.collapse import Told

_WAYS = ("image_to_text", "text_to_image")
_TWINS = ("text", "image", "group")
_OF_CATEGORIES = ("accuracy", "f1", *_TWINS)
"""Of a category that has several measures; all of each would be too many to read."""

_COUNTED = {"unclear": "answers that say neither yes nor no", "unread": "answers that name no option"}
_NAMES = {
    "accuracy_plus": "pictures whose questions are all right",
    "yes_rate": "share of yes",
    "precision": "precision",
    "recall": "recall",
}


@dataclass(frozen=True)
class Column:
    """A reading of a run, or an arm by its headline: its details, and its measures by key."""

    name: str
    details: Mapping[str, Any]
    measures: Mapping[str, Any]


@dataclass(frozen=True)
class TaskTable:
    """One task. columns: the readings or arms that have it. rows: (name, what chance gives, a cell a column).

    chart: of accuracy by place; None for other tasks.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[Told | None]]]
    chart: Chart | None


def tasks_of(columns: Sequence[Column]) -> list[TaskTable]:
    """The tasks that have anything to tell besides their measures, in the order of the first column that has them."""
    names = dict.fromkeys(
        name for column in columns for name, own in column.details.items() if isinstance(own, Mapping)
    )
    several = len(names) > 1
    return [table for name in names if (table := _table(name, columns, f"{name}_" if several else "")).rows]


def lookups_of(columns: Sequence[Column]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(reading, task, what was looked up) of each reading that looked something up."""
    return [
        (column.name, task, own["looked_up"])
        for column in columns
        for task, own in column.details.items()
        if isinstance(own, Mapping) and own.get("looked_up")
    ]


def _table(task: str, columns: Sequence[Column], before: str) -> TaskTable:
    having = [column for column in columns if isinstance(column.details.get(task), Mapping)]
    cells = [dict(_cells(column.details[task], column.measures, before)) for column in having]
    keys = dict.fromkeys(key for own in cells for key in own)
    chance = _chances([column.details[task] for column in having])
    rows = [(key, _chance(key, chance), [own.get(key) for own in cells]) for key in keys]
    return TaskTable(task.replace("_", " "), [column.name for column in having], rows, _by_place(having, task, before))


def _cells(details: Mapping[str, Any], measures: Mapping[str, Any], before: str) -> Iterator[tuple[str, Told]]:
    if "foursomes" in details:
        for key in _TWINS:
            if before + key in measures:
                yield f"{key} score", _interval(measures[before + key])
    for place in range(1, details.get("places", 0) + 1):
        if (key := f"{before}accuracy_at_{place}") in measures:
            yield f"relevant pair at place {place}", _interval(measures[key])
    if "spread" in details:
        by_chance = f"by chance {100 * details['spread_by_chance']:.1f}, p = {details['p_value']:.2g}"
        yield "best place less the worst", Told(f"{100 * details['spread']:.1f}\u00a0pp", by_chance)
    for key in _NAMES:
        if _is_interval(details.get(key)):
            yield _NAMES[key], _interval(details[key])
    for key, name in _COUNTED.items():
        if key in details:
            yield name, Told(f"{details[key]:,} of {details['questions']:,}")
    for category, own in (details.get("categories") or {}).items():
        if _is_interval(own):
            yield category, _interval(own)
            continue
        for key in _OF_CATEGORIES:
            if key in own:
                yield f"{category}: {Measure(key).name}", _interval(own[key])
    for control, own in (details.get("controls") or {}).items():
        yield f"{control}: R@1", _interval(own["recall@1"])
    for search, own in details.items():
        # The searches of retrieval have theirs told with the measures without intervals.
        if search not in _WAYS and isinstance(own, Mapping) and "median_rank" in own:
            gallery = f"of {own['gallery']:,.0f}"
            yield f"median rank, {search.replace('_', ' ')}", Told(f"{own['median_rank']:g}", gallery)


def _is_interval(own: Any) -> bool:
    return isinstance(own, Mapping) and {"mean", "low", "high"} <= set(own)


def _interval(own: Mapping[str, Any]) -> Told:
    found, measure = Interval(**own), Measure("accuracy")
    return Told(measure.value(found.mean), measure.ends(found))


def _chances(details: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
    """A row, or its ending → what chance gives: of winoground each score's, of choices each category's."""
    told: Any = next((own["chance"] for own in details if "chance" in own), {})
    if isinstance(told, Mapping):
        return {f"{key} score": float(value) for key, value in told.items()}
    return next((own["category_chance"] for own in details if "category_chance" in own), {})


def _chance(row: str, chance: Mapping[str, float]) -> str:
    if row in _COUNTED.values():
        return ""
    found = chance.get(row, next((value for ending, value in chance.items() if row.endswith(f": {ending}")), None))
    return "" if found is None else f"by chance {100 * found:.1f}\u00a0%"


def _by_place(columns: Sequence[Column], task: str, before: str) -> Chart | None:
    series = []
    for number, column in enumerate(columns):
        points = []
        for place in range(1, column.details[task].get("places", 0) + 1):
            if (own := column.measures.get(f"{before}accuracy_at_{place}")) is not None:
                found = Interval(**own)
                told = f"place {place}: {Measure('accuracy').interval(found)}"
                points.append(Point(place, found.mean, found.low, found.high, told))
        if points:
            series.append(Series(column.name, f"arm-{number % 6}", points))
    if not series:
        return None
    words = "; ".join(f"{one.name}: " + ", ".join(point.told for point in one.points) for one in series)
    return line_chart(
        series,
        x_label="place of the relevant pair",
        y_label="accuracy, %",
        summary=f"Accuracy by the place of the relevant pair. {words}.",
        percent=True,
    )
