"""What one arm found, over all of its seeds: alpha curve, classes gained and lost, confusions, map, cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gen2real.evaluation.statistics import bootstrap_interval, proportion_interval
from gen2real.methods.result import Result
from gen2real.report.charts import Chart, Point, Scatter, Series, line_chart, scatter
from gen2real.report.curves import loss_curve

_RESAMPLES = 1000


@dataclass(frozen=True)
class ClassChange:
    """One class: its real pictures, and the share of them that was named right before and after."""

    index: int
    name: str
    count: int
    before: float
    after: float

    @property
    def change(self) -> float:
        """after − before."""
        return self.after - self.before


@dataclass(frozen=True)
class Confused:
    """Real pictures of the class `true` taken for `predicted`. rows: of the measured set, those most often wrong first.

    times: over all seeds together.
    """

    true: int
    predicted: int
    true_name: str
    predicted_name: str
    times: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Arm:
    """One line of the table: equal trainings under several seeds, and the reading of them that counts."""

    name: str
    reading: str
    results: tuple[Result, ...]

    @property
    def first(self) -> Result:
        """The first seed's, for what is shown of one training only."""
        return self.results[0]

    @cached_property
    def measured(self) -> bool:
        """Whether real pictures were answered."""
        return all(f"real.{self.reading}" in result.answers for result in self.results)

    def correct(self, reading: str, on: str = "real") -> npt.NDArray[np.bool_]:
        """Bool [S N]."""
        return np.stack([result.correct(reading, on) for result in self.results])

    def alpha_curve(self) -> Chart | None:
        """Top-1 at each alpha of the sweep, on real and on generated pictures; None for a sweep of one."""
        alphas = [row["alpha"] for row in self.first.summary["sweep"]]
        if len(alphas) < 2:
            return None
        series = []
        for on, name in (("real", "real photographs"), ("generated", "generated pictures")):
            keys = [f"alpha={alpha:g}" for alpha in alphas]
            if all(f"{on}.{key}" in result.answers for key in keys for result in self.results):
                points = [self._point(alpha, key, on) for alpha, key in zip(alphas, keys, strict=True)]
                series.append(Series(name, on, points))
        if not series:
            return None
        told = "; ".join(f"{one.name}: " + ", ".join(point.told for point in one.points) for one in series)
        return line_chart(
            series,
            x_label="alpha: 0 original … 1 tuned",
            y_label="top-1, %",
            percent=True,
            summary=f"Top-1 accuracy by alpha. {told}.",
        )

    def _point(self, alpha: float, key: str, on: str) -> Point:
        right = self.correct(key, on)
        if len(right) == 1:
            found = proportion_interval(int(right.sum()), right.size)
        else:
            found = bootstrap_interval(right, resamples=_RESAMPLES)
        return Point(alpha, found.mean, found.low, found.high, f"alpha {alpha:g}: {found.percent()}")

    def classes(self) -> list[ClassChange]:
        """Every class with real pictures; the one that gained the most pictures first."""
        if not self.measured:
            return []
        labels = self.first.answers["real"].numpy()
        before, after = (self.correct(reading).mean(axis=0) for reading in ("zero_shot", self.reading))
        found = []
        for index, name in enumerate(self.first.summary["classes"]):
            own = labels == index
            if own.any():
                found.append(
                    ClassChange(index, name, int(own.sum()), float(before[own].mean()), float(after[own].mean()))
                )
        return sorted(found, key=lambda one: (-one.change * one.count, -one.change, one.index))

    def confusions(self, most: int) -> list[Confused]:
        """The pairs of classes that real pictures were mistaken between most often."""
        if not self.measured:
            return []
        labels = self.first.answers["real"].numpy()
        rows: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)
        for result in self.results:
            answers = result.answers[f"real.{self.reading}"][:, 0].numpy()
            for row in np.flatnonzero(answers != labels).tolist():
                rows[int(labels[row]), int(answers[row])][row] += 1
        names = self.first.summary["classes"]
        pairs = sorted(rows.items(), key=lambda pair: (-sum(pair[1].values()), pair[0]))[:most]
        return [
            Confused(
                true,
                predicted,
                names[true],
                names[predicted],
                sum(times.values()),
                tuple(row for row, _ in times.most_common()),
            )
            for (true, predicted), times in pairs
        ]

    def loss_curve(self) -> Chart | None:
        """The first seed's."""
        return loss_curve(self.first.folder)

    def seconds(self) -> float:
        """Of training, a seed."""
        return training_seconds([result.summary for result in self.results])


def training_seconds(summaries: Sequence[Mapping[str, Any]]) -> float:
    """The mean over the runs of an arm."""
    return float(np.mean([summary["cost"]["training_seconds"] for summary in summaries]))


def maps(plane: Mapping[str, Tensor], work: str = "tuning") -> list[tuple[str, Scatter]]:
    """Generated and real pictures on `Result.plane`, before and after the `work`."""
    ends = [end for end in ("zero_shot", "tuned") if f"real.{end}" in plane]
    if not ends:
        return []
    places = np.concatenate([plane[f"{side}.{end}"].numpy() for side in ("generated", "real") for end in ends])
    low, high = places.min(axis=0).tolist(), places.max(axis=0).tolist()
    window = (low[0], high[0], low[1], high[1])
    titles = {"zero_shot": f"before {work}" if len(ends) > 1 else "the image encoder, which was not tuned"}
    drawn = []
    for end in ends:
        groups = []
        for side, name in (("generated", "generated"), ("real", "real")):
            own = [(float(x), float(y)) for x, y in plane[f"{side}.{end}"].tolist()]
            groups.append((name, side, own))
        title = titles.get(end, f"after {work}")
        told = f"Features {title}: {len(groups[0][2])} generated and {len(groups[1][2])} real pictures as points."
        drawn.append((title, scatter(groups, window=window, summary=told)))
    return drawn
