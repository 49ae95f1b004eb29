"""Numbers → places on a drawing. Templates draw; nothing here knows colours or SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gen2real.evaluation.statistics import Interval

# In units of the drawing. It is shown between 330 and 480 pixels wide, so that a letter of 13 stays legible on a phone.
WIDTH, HEIGHT = 400, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 44
SMALL = 300, 190
"""The size of one of many charts, of which three stand in a row."""


@dataclass(frozen=True)
class Tick:
    """place: along its axis, in units of the drawing. label: what stands there."""

    place: float
    label: str


@dataclass(frozen=True)
class Line:
    """line, band: points of an SVG polyline and polygon. dots: (x, y, what a pointer is told)."""

    name: str
    kind: str
    line: str
    band: str
    dots: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True)
class Chart:
    """A chart with two axes. summary: the chart in words, for those who do not see it."""

    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    summary: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Point:
    """A value with its interval; equal ends draw no band."""

    x: float
    y: float
    low: float
    high: float
    told: str


@dataclass(frozen=True)
class Series:
    """kind: a CSS class."""

    name: str
    kind: str
    points: Sequence[Point]


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    summary: str,
    percent: bool = False,
    most_dots: int = 30,
    log_x: bool = False,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    holds: Sequence[float] = (),
) -> Chart:
    """Lines with bands; the axes hold every point and band, and end at round numbers.

    percent: y is a share of 1 and is labelled in percent. most_dots: series with more points than that have none.
    log_x: equal ratios are equally far apart, and each x > 0 that has a point has a tick. size: width, height.
    holds: further values that the y axis must hold.
    """
    width, height = size
    points = [point for one in series for point in one.points]
    scale = 100 if percent else 1
    lowest, highest = min([*holds, *(point.low for point in points)]), max([*holds, *(point.high for point in points)])
    y_values = ticks(scale * lowest, scale * highest, about=round(5 * height / HEIGHT))
    # A letter of the tick labels is some 7 units wide; four fit into the usual margin beside the axis' own label.
    left = LEFT + 7 * max(0, *(len(f"{value:g}") - 4 for value in y_values))
    placed = math.log if log_x else float
    given = sorted({point.x for point in points})
    x_values = given if log_x else ticks(given[0], given[-1], about=round(5 * width / WIDTH))
    x_low, x_high = placed(min(given[0], x_values[0])), placed(max(given[-1], x_values[-1]))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (placed(x) - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (scale * y - y_values[0]) / (y_values[-1] - y_values[0])
        return (
            round(left + across * (width - left - RIGHT), 1),
            round(height - BOTTOM - up * (height - TOP - BOTTOM), 1),
        )

    return Chart(
        x_label=x_label,
        y_label=y_label,
        x_ticks=tuple(Tick(at(value, 0)[0], f"{value:,.0f}" if log_x else f"{value:g}") for value in x_values),
        y_ticks=tuple(Tick(at(given[0], value / scale)[1], f"{value:g}") for value in y_values),
        lines=tuple(_line(one, at, most_dots) for one in series),
        summary=summary,
        width=width,
        height=height,
        left=left,
        right=width - RIGHT,
        bottom=height - BOTTOM,
    )


def _line(one: Series, at: object, most_dots: int) -> Line:
    assert callable(at)
    ordered = sorted(one.points, key=lambda point: point.x)
    middle = [at(point.x, point.y) for point in ordered]
    band = ""
    if any(point.low < point.high for point in ordered):
        around = [at(point.x, point.low) for point in ordered] + [at(p.x, p.high) for p in reversed(ordered)]
        band = _places(around)
    dots = [] if len(ordered) > most_dots else [(*place, p.told) for place, p in zip(middle, ordered, strict=True)]
    return Line(one.name, one.kind, _places(middle), band, tuple(dots))


def _places(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (steps of 1, 2, 2.5 or 5 times a power of ten) that enclose low … high, about `about` of them."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Scatter:
    """Points of two sorts on a square. groups: (name, kind, [(x, y)])."""

    groups: tuple[tuple[str, str, tuple[tuple[float, float], ...]], ...]
    summary: str
    side: int = 400


def scatter(
    groups: Sequence[tuple[str, str, Sequence[tuple[float, float]]]],
    *,
    window: tuple[float, float, float, float],
    summary: str,
    side: int = 400,
    margin: int = 12,
) -> Scatter:
    """Points in a window (x low, x high, y low, y high); x and y have one scale, so that distances are true."""
    x_low, x_high, y_low, y_high = window
    scale = (side - 2 * margin) / (max(x_high - x_low, y_high - y_low) or 1)
    x_middle, y_middle = (x_low + x_high) / 2, (y_low + y_high) / 2

    def at(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        return round(side / 2 + scale * (x - x_middle), 1), round(side / 2 - scale * (y - y_middle), 1)

    return Scatter(tuple((name, kind, tuple(at(point) for point in own)) for name, kind, own in groups), summary, side)


@dataclass(frozen=True)
class Bar:
    """An interval from x_low to x_high at height y, its mean at x. told: what a pointer is told."""

    kind: str
    x_low: float
    x: float
    x_high: float
    y: float
    told: str


@dataclass(frozen=True)
class IntervalChart:
    """Intervals below each other on one axis. labels: (height, text), one a group."""

    bars: tuple[Bar, ...]
    labels: tuple[tuple[float, str], ...]
    kinds: tuple[tuple[str, str], ...]
    x_ticks: tuple[Tick, ...]
    x_label: str
    summary: str
    width: int
    height: int
    left: int
    bottom: int
    top: int = TOP


def interval_chart(
    groups: Sequence[tuple[str, Sequence[tuple[str, str, Interval]]]], *, x_label: str, summary: str
) -> IntervalChart:
    """Groups (label, [(name, kind, interval)]) below each other; the axis holds every end and has round numbers."""
    found = [one for _, own in groups for _, _, one in own]
    values = ticks(min(one.low for one in found), max(one.high for one in found), about=4)
    left, row, between = 70, 24, 16

    def at(value: float) -> float:
        return round(left + (value - values[0]) / (values[-1] - values[0]) * (WIDTH - left - 2 * RIGHT), 1)

    bars, labels, y = [], [], float(TOP)
    for label, own in groups:
        labels.append((y + row * len(own) / 2, label))
        for name, kind, one in own:
            told = f"{label}, {name}: {one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]"
            bars.append(Bar(kind, at(one.low), at(one.mean), at(one.high), y + row / 2, told))
            y += row
        y += between
    kinds = {kind: name for _, own in groups for name, kind, _ in own}
    bottom = round(y)
    return IntervalChart(
        tuple(bars),
        tuple(labels),
        tuple(kinds.items()),
        tuple(Tick(at(value), f"{value:g}") for value in values),
        x_label,
        summary,
        WIDTH,
        bottom + BOTTOM,
        left,
        bottom,
    )
