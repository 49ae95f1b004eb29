"""Does anything collapse? What was measured before, while and after two models were trained together.

`result.json` keeps it as `collapse`: {"before": PANEL, "during": [{"step": n} | PANEL, …], "after": PANEL}, and a PANEL
is measure → number, or number with an interval ({"value" | "mean", "low", "high"}), or a further PANEL by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gen2real.methods.measures import Measure
from gen2real.report.charts import SMALL, Chart, Point, Series, line_chart

_SHARE = re.compile(r"(.*_)?(top1|top5|accuracy|\w+_recall@\d+)")
_COUNTS = ("pictures", "texts", "prompts")
_NAMES = {
    "effective_rank_pictures": "effective rank of pictures",
    "effective_rank_texts": "effective rank of captions",
    "uniformity_pictures": "uniformity of pictures",
    "uniformity_texts": "uniformity of captions",
    "caption_cosine": "cosine of two different captions",
    "text_drift": "drift of texts: 1 − cosine",
    "text_drift_norm": "drift of texts: length",
}
_MEANING = (
    (r"rank", "falls where features shrink into few directions"),
    (r"uniformity", "rises towards 0 where features crowd together"),
    (r"drift.*norm|norm.*drift", "how much longer the states of generic prompts became, as a share; 0 before training"),
    (r"drift", "how far the states of generic prompts have turned; 0 before training"),
    (r"caption\w*_cosine|pair\w*_cosine", "rises towards 1 where captions become alike"),
    (r"gap", "distance between the means of pictures and texts; neither way is better in itself"),
    (r"diversity", "falls where the pictures of one prompt become alike"),
    (r"clip_score|fidelity", "falls where drawn pictures fit their prompts less"),
    (r"general|retention", "falls where the models forget what they could do before"),
)


@dataclass(frozen=True)
class Told:
    """A number as text, and below it in small what belongs to it: its interval, or what chance would give."""

    value: str
    below: str = ""


@dataclass(frozen=True)
class Row:
    """One measure of the panel. meaning: which way collapse lies. chart: None where nothing was measured in between."""

    name: str
    meaning: str
    before: Told | None
    after: Told | None
    chart: Chart | None


@dataclass(frozen=True)
class Collapse:
    """The panel of one run; measures in the order of the first that has them. of: what it was taken on, if known."""

    rows: Sequence[Row]
    of: str

    @property
    def charts(self) -> list[Row]:
        """The measures that were also taken while training went on."""
        return [row for row in self.rows if row.chart is not None]


@dataclass(frozen=True)
class ArmsPanel:
    """The panels of several arms at their ends: measure names with meanings; arm → one text a measure.

    before: of the arm that was measured first; those of the others are equal where they start from the same models.
    """

    names: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, Sequence[Told | None]]]


def collapse_of(summary: Mapping[str, Any]) -> Collapse | None:
    """What `result.json` says of collapse; None where it says nothing."""
    told = summary.get("collapse")
    if not told:
        return None
    before, after = (dict(_flat(told.get(end) or {})) for end in ("before", "after"))
    during = [(row["step"], dict(_flat(row))) for row in told.get("during") or [] if "step" in row]
    last = summary["cost"]["updates"]
    keys = dict.fromkeys(key for panel in (before, after, *(own for _, own in during)) for key in panel)
    rows = []
    for key in keys:
        points = [(step, own[key]) for step, own in during if key in own]
        if key in before:
            points.insert(0, (0, before[key]))
        if key in after:
            # A panel taken at the last update is that of the end, on other pictures or other weights perhaps.
            points = [*(point for point in points if point[0] < last), (last, after[key])]
        rows.append(
            Row(
                _name(key),
                _meaning(key),
                _told(key, before.get(key)),
                _told(key, after.get(key)),
                _chart(key, points) if len(points) > 2 else None,
            )
        )
    return Collapse(rows, _counted(told.get("after") or told.get("before") or {}))


def ends_of_arms(arms: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> ArmsPanel | None:
    """Arms (name, each seed's summary) side by side: the panel before training, then after it.

    Of several seeds the mean is told, with the lowest and the highest.
    """
    kept = [(name, [one["collapse"] for one in own if one.get("collapse")]) for name, own in arms]
    kept = [(name, own) for name, own in kept if own]
    if not kept:
        return None
    ends = [("before training", _over_seeds([own[0].get("before") or {} for _, own in kept]))]
    ends += [(name, _over_seeds([one.get("after") or {} for one in own])) for name, own in kept]
    keys = list(dict.fromkeys(key for _, panel in ends for key in panel))
    rows = [(name, [_told(key, panel.get(key)) for key in keys]) for name, panel in ends]
    return ArmsPanel([(_name(key), _meaning(key)) for key in keys], rows)


_Value = tuple[float, float, float]
"""A number and the ends of its interval, which are the number itself where there is none."""


def _flat(panel: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, _Value]]:
    for key, own in panel.items():
        if isinstance(own, Mapping):
            value = own.get("value", own.get("mean"))
            if isinstance(value, int | float):
                yield before + key, (float(value), float(own.get("low", value)), float(own.get("high", value)))
            else:
                yield from _flat(own, f"{before}{key}_")
        elif isinstance(own, int | float) and not isinstance(own, bool) and key not in ("step", *_COUNTS):
            yield before + key, (float(own),) * 3


def _counted(panel: Mapping[str, Any]) -> str:
    """`64 pictures, 60 texts`, wherever in a panel that is told first."""
    found = {key: panel[key] for key in _COUNTS if isinstance(panel.get(key), int)}
    words = ", ".join(f"{count:,} {'different texts' if key == 'texts' else key}" for key, count in found.items())
    return words or next((told for own in panel.values() if isinstance(own, Mapping) and (told := _counted(own))), "")


def _over_seeds(panels: Sequence[Mapping[str, Any]]) -> dict[str, _Value]:
    flat = [dict(_flat(panel)) for panel in panels]
    found: dict[str, _Value] = {}
    for key in dict.fromkeys(key for panel in flat for key in panel):
        own = [panel[key][0] for panel in flat if key in panel]
        found[key] = float(np.mean(own)), min(own), max(own)
    return found


def _name(key: str) -> str:
    if _SHARE.fullmatch(key):
        return Measure(key).name
    return _NAMES.get(key) or key.replace("_", " ")


def _meaning(key: str) -> str:
    return next((meaning for pattern, meaning in _MEANING if re.search(pattern, key)), "")


def _told(key: str, value: _Value | None) -> Told | None:
    if value is None:
        return None
    mean, low, high = value
    ends = [_written(key, end).partition("\u00a0")[0] for end in (low, high)]
    return Told(_written(key, mean), f"[{', '.join(ends)}]" if low < high else "")


def _written(key: str, value: float) -> str:
    if _SHARE.fullmatch(key):
        return f"{100 * value:.1f}\u00a0%"
    return f"{value + 0.0:.{1 if 'rank' in key else 3}f}".replace("-", "−")


def _chart(key: str, points: Sequence[tuple[int, _Value]]) -> Chart:
    share = _SHARE.fullmatch(key) is not None
    drawn = [
        Point(step, mean, low, high, f"update {step:,}: {_written(key, mean)}") for step, (mean, low, high) in points
    ]
    words = f"{_name(key)} by update. {', '.join(point.told for point in drawn)}."
    return line_chart(
        [Series(_name(key), "real", drawn)],
        x_label="update",
        y_label="%" if share else "",
        summary=words,
        percent=share,
        size=SMALL,
    )
