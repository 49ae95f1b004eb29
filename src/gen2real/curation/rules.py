"""From evidence to a verdict on every picture, with the numbers that led to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gen2real.curation.search import Index
from gen2real.curation.settings import CurateConfig
from gen2real.imagesets.manifest import ImageSet

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
RULES = (
    "left_out_before", "unreadable", "blank", "unsafe", "leaked", "similarity", "margin", "real_likeness", "duplicate",
)  # fmt: skip


@dataclass(frozen=True)
class Leaks:
    """Of N pictures against the evaluation sets: the nearest one's id and manifest (None: not looked at), its cosine
    (NaN), the fewest differing bits (-1: above the limit), and why it is the same picture (None: it is not)."""

    ids: list[str | None]
    sets: list[str | None]
    cosine: Floats
    bits: Index
    reasons: list[str | None]


@dataclass(frozen=True)
class Evidence:
    """What was found out about N pictures. `scores` by name: float64 [N], NaN where a picture has none. `active`: the
    rows that were looked at. `groups`: int64 [N], equal numbers are near-duplicates, -1 where there are none."""

    active: Mask
    faults: list[str | None]
    blank: Mask
    phash: list[str | None]
    scores: dict[str, Floats]
    groups: Index
    leaks: Leaks | None


@dataclass
class Verdicts:
    """Rules that were broken and why, of N pictures; `thresholds`: what each share came to, class by class."""

    rules: list[list[str]]
    reasons: list[list[str]]
    duplicate_of: list[str | None]
    thresholds: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> Mask:
        """Bool [N]."""
        return np.array([not rules for rules in self.rules], dtype=bool)

    def against(self, row: int, rule: str, reason: str) -> None:
        """Notes that a picture broke a rule."""
        self.rules[row].append(rule)
        self.reasons[row].append(reason)


def decide(config: CurateConfig, image_set: ImageSet, evidence: Evidence) -> Verdicts:
    """Which pictures are left out, and why.

    Faults and thresholds are judged picture by picture. Then of each group of near-duplicates the best by margin (by
    similarity where there is none) of those still standing is kept. Last, shares: of each class's pictures still
    standing, the best ⌈share · count⌉ by each score asked for. Ties go to the smaller id.
    """
    count = len(image_set)
    verdicts = Verdicts([[] for _ in range(count)], [[] for _ in range(count)], [None] * count)
    _left_out_before(image_set, evidence, verdicts)
    for row in np.flatnonzero(evidence.active).tolist():
        if (fault := evidence.faults[row]) is not None:
            verdicts.against(row, "unreadable", f"unreadable: {fault}")
        elif evidence.blank[row]:
            verdicts.against(row, "blank", "blank: every channel is flat")
        if evidence.leaks is not None and (leak := evidence.leaks.reasons[row]) is not None:
            verdicts.against(row, "leaked", f"leaked: {leak}")
    if config.safety is not None:
        limit = config.max_unsafe
        for row in np.flatnonzero(evidence.scores["unsafe"] > limit).tolist():
            verdicts.against(row, "unsafe", f"unsafe {evidence.scores['unsafe'][row]:.3g} above {limit:g}")
    for name in ("similarity", "margin", "real_likeness"):
        least = getattr(config, f"min_{name}")
        if least is not None:
            for row in np.flatnonzero(evidence.scores[name] < least).tolist():
                score = evidence.scores[name][row]
                verdicts.against(row, name, f"{_words(name)} {_shown(score, least)} below {least:g}")
    _keep_one_of_each_group(image_set.ids, evidence, verdicts)
    standing = verdicts.kept
    for name in ("similarity", "margin", "real_likeness"):
        share = getattr(config, f"keep_{name}")
        if share is not None:
            verdicts.thresholds[f"keep_{name}"] = {
                "share": share,
                "reached": _keep_share(name, share, image_set, evidence, standing, verdicts),
            }
    return verdicts


def share_of(count: int, share: float) -> int:
    """⌈share · count⌉, with 0.7 · 10 being 7."""
    return math.ceil(round(share * count, 9))


def best_first(scores: Floats, ids: Sequence[str], rows: Index) -> Index:
    """`rows` by score, the highest first, equal scores by id; NaN comes last."""
    return np.array(sorted(rows.tolist(), key=lambda row: (_descending(float(scores[row])), ids[row])), dtype=np.int64)


def _left_out_before(image_set: ImageSet, evidence: Evidence, verdicts: Verdicts) -> None:
    earlier = image_set.table["reason"].to_pylist() if "reason" in image_set.table.column_names else None
    for row in np.flatnonzero(~evidence.active).tolist():
        known = earlier[row] if earlier else None
        said = "left out before"
        verdicts.against(row, "left_out_before", f"{said}: {str(known).removeprefix(f'{said}: ')}" if known else said)


def _keep_one_of_each_group(ids: Sequence[str], evidence: Evidence, verdicts: Verdicts) -> None:
    standing = verdicts.kept
    margin, similarity = evidence.scores["margin"], evidence.scores["similarity"]
    score = np.where(np.isnan(margin), similarity, margin)
    order = np.argsort(evidence.groups, kind="stable")
    order = order[evidence.groups[order] >= 0]
    groups = evidence.groups[order]
    for members in np.split(order, np.flatnonzero(np.diff(groups)) + 1):
        candidates = members[standing[members]]
        if not len(candidates):
            continue
        best = int(best_first(score, ids, candidates)[0])
        for row in members.tolist():
            if row != best:
                verdicts.duplicate_of[row] = ids[best]
                verdicts.against(row, "duplicate", f"near-duplicate of {ids[best]}, one of {len(members)}")


def _keep_share(
    name: str, share: float, image_set: ImageSet, evidence: Evidence, standing: Mask, verdicts: Verdicts
) -> dict[str, float]:
    """Leaves out the rest of each class; gives the lowest score that stays, by the class's label."""
    scores, reached = evidence.scores[name], {}
    for label in np.unique(image_set.labels):
        rows = np.flatnonzero(standing & (image_set.labels == label))
        if not len(rows):
            continue
        known = image_set.classes[label] if label >= 0 else None
        order = best_first(scores, image_set.ids, rows)
        count = share_of(len(rows), share)
        last = float(scores[order[count - 1]])
        reached[known.label if known else ""] = last
        of = f"of class {known.name}" if known else "of pictures without a class"
        for row in order[count:].tolist():
            verdicts.against(
                row,
                name,
                f"{_words(name)} {_shown(scores[row], last)} is not among the best {share:.0%} {of}, "
                f"which reach {last:.4g}",
            )
    return reached


def _descending(score: float) -> float:
    return math.inf if math.isnan(score) else -score


def _words(name: str) -> str:
    return name.replace("_", "-")


def _shown(score: float, beside: float) -> str:
    """A score with as many digits as it takes to tell it from the number it is compared with."""
    for digits in range(3, 9):
        if f"{score:.{digits}g}" != f"{beside:.{digits}g}":
            return f"{score:.{digits}g}"
    return f"{score:.9g}"
