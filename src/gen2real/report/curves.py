"""What a run logged of its training: its loss; of several losses each one, and how far their gradients agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gen2real.report.charts import SMALL, Chart, Point, Series, line_chart

_NAMES = {
    "itc": "contrastive (ITC)",
    "is": "synthesis (IS)",
    "rsc": "reciprocal consistency (RSC)",
    "L_g": "next tokens (L_g)",
    "L_d": "alike and unlike (L_d)",
}
_GROUPS = {
    "text": "the text encoder",
    "image": "the image encoder",
    "unet": "the denoiser",
    "lora": "the adapters",
}
# As gradients are logged: of what stands in the sum, so that L_d is weighed.
_TERMS = {"itc": "ITC", "is": "IS", "rsc": "RSC", "g": "L_g", "d": "α·L_d"}
_LENGTH = re.compile(rf"gradient_(?P<one>{'|'.join(_TERMS)})")
_COSINE = re.compile(rf"cosine_(?P<group>\w+)_(?P<one>{'|'.join(_TERMS)})_(?P<other>{'|'.join(_TERMS)})")
_MOST_POINTS = 60
"""Of a small chart; where more updates were logged, a point is the mean of several."""


@dataclass(frozen=True)
class Agreement:
    """The gradients of two losses in the weights of a group, over all logged updates.

    mean: of the cosines. against: the share of updates at which it was below 0. updates: how many were logged.
    """

    group: str
    pair: str
    mean: float
    against: float
    updates: int


@dataclass(frozen=True)
class JointCurves:
    """losses: (name, chart). conflict: (group of weights, chart of the cosine of each two losses' gradients).

    together: how many logged updates a point of the charts is the mean of. lengths: of each loss's gradient, where the
    run logged them.
    """

    losses: Sequence[tuple[str, Chart]]
    conflict: Sequence[tuple[str, Chart]]
    agreements: Sequence[Agreement]
    together: int
    lengths: Chart | None = None


def loss_curve(run: Path) -> Chart | None:
    """The loss at each logged update of a run, stage after stage; None where fewer than two were logged."""
    rows = [row for row in _rows(run) if "loss" in row]
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    if len(rows) < 2:
        return None
    series, start = [], 0
    for stage in stages:
        own = [row for row in rows if row["stage"] == stage]
        points = [_exact(start + row["step"], row["loss"]) for row in own]
        series.append(
            Series(f"loss, {stage.replace('-', ' ')}", "real" if stage == stages[-1] else "generated", points)
        )
        start += own[-1]["step"]
    told = f"Training loss, from {rows[0]['loss']:.3g} to {rows[-1]['loss']:.3g} over {start} updates."
    return line_chart(series, x_label="update", y_label="loss", summary=told, most_dots=0)


def joint_curves(run: Path) -> JointCurves | None:
    """Each loss of several, and the cosines of their gradients; None for a run that logged one alone or none of them.

    A row of `metrics.jsonl` has `itc`, `is`, `rsc`, or `L_g` and `L_d`, as far as they are trained, and where the
    gradients were looked at `cosine_<group>_<loss>_<loss>` and `gradient_<loss>`.
    """
    rows = [row for row in _rows(run) if any(key in row for key in _NAMES)]
    logged: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key in _NAMES or _COSINE.fullmatch(key) or _LENGTH.fullmatch(key):
                logged.setdefault(key, []).append((row["step"], float(value)))
    together = max((-(-len(own) // _MOST_POINTS) for own in logged.values()), default=1)
    losses = [(name, _of_a_loss(name, logged[key], together)) for key, name in _NAMES.items() if key in logged]
    if not losses or set(logged) == {"L_g"}:
        return None
    groups: dict[str, list[Series]] = {}
    agreements = []
    for key, own in logged.items():
        if found := _COSINE.fullmatch(key):
            pair = f"{_TERMS[found['one']]} and {_TERMS[found['other']]}"
            group = _GROUPS.get(found["group"], found["group"].replace("_", " "))
            series = groups.setdefault(group, [])
            series.append(Series(pair, f"arm-{len(series) % 6}", _points(own, together)))
            values = np.array([value for _, value in own])
            agreements.append(Agreement(group, pair, float(values.mean()), float((values < 0).mean()), len(values)))
    conflict = [(group, _of_a_group(group, series)) for group, series in groups.items()]
    return JointCurves(losses, conflict, agreements, together, _of_lengths(logged, together))


def _of_a_loss(name: str, own: Sequence[tuple[int, float]], together: int) -> Chart:
    points = _points(own, together)
    told = f"Loss, {name}: from {points[0].y:.3g} to {points[-1].y:.3g} over {own[-1][0]:,} updates."
    return _small([Series(name, "real", points)], told)


def _of_a_group(group: str, series: Sequence[Series]) -> Chart:
    told = "; ".join(f"{one.name} from {one.points[0].y:.2f} to {one.points[-1].y:.2f}" for one in series)
    return _small(series, f"Cosine of two losses' gradients in the weights of {group}: {told}.", holds=(0.0,))


def _of_lengths(logged: Mapping[str, Sequence[tuple[int, float]]], together: int) -> Chart | None:
    series: list[Series] = []
    for key, own in logged.items():
        if found := _LENGTH.fullmatch(key):
            series.append(Series(_TERMS[found["one"]], f"arm-{len(series) % 6}", _points(own, together)))
    if not series:
        return None
    told = "; ".join(f"{one.name} from {one.points[0].y:.3g} to {one.points[-1].y:.3g}" for one in series)
    return _small(series, f"Length of each loss's gradient: {told}.", holds=(0.0,))


def _small(series: Sequence[Series], summary: str, holds: Sequence[float] = ()) -> Chart:
    # A line of few points is drawn as points as well: of a single one there would be nothing to see.
    return line_chart(series, x_label="update", y_label="", summary=summary, most_dots=3, size=SMALL, holds=holds)


def _points(own: Sequence[tuple[int, float]], together: int) -> list[Point]:
    """The mean of every `together` logged updates, at the last of them."""
    parts = [own[start : start + together] for start in range(0, len(own), together)]
    return [_exact(part[-1][0], float(np.mean([value for _, value in part]))) for part in parts]


def _exact(x: float, y: float) -> Point:
    return Point(x, y, y, y, f"{x:g}: {y:.4g}")


def _rows(run: Path) -> list[Mapping[str, Any]]:
    path = run / "metrics.jsonl"
    return list(_whole(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []


def _whole(lines: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # torn by a kill
            continue
