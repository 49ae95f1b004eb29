"""gallery.html: an image set to look through. Best and worst by score, near-duplicates, leaks, what was dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gen2real import __version__
from gen2real.errors import Gen2RealError
from gen2real.imagesets import ImageSet
from gen2real.imagesets.provenance import UNNAMED_REASON
from gen2real.report.page import write_page
from gen2real.report.thumbnails import Thumbnails

GALLERY = "gallery.html"
PICTURE_BUDGET = 24 * 2**20
"""Bytes of pictures in a gallery; a thumbnail is about 4 KiB, so some six thousand."""

BINS = 24
_A_CLASS, _A_GROUP, _GROUPS, _LEAKS = 4, 6, 60, 60
_NO_CLASS = "no class"
# Margin says most about a picture's class; what other scores there are comes after these.
_FIRST = ("score_margin", "score_similarity")


@dataclass(frozen=True)
class Gallery:
    """A gallery that was written. pictures: of the set. shown: those that the page holds."""

    path: Path
    pictures: int
    shown: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        return {"gallery": str(self.path), "pictures": self.pictures, "shown": self.shown}


@dataclass(frozen=True)
class Histogram:
    """One score over all rows that have it. edges: `BINS` + 1 of them. kept, dropped: rows in each bin."""

    score: str
    edges: list[float]
    kept: list[int]
    dropped: list[int]

    @property
    def highest(self) -> int:
        """Of the fullest bin."""
        return max(one + other for one, other in zip(self.kept, self.dropped, strict=True))


def write_gallery(image_set: ImageSet | str | Path, out: str | Path | None = None) -> Path:
    """`make_gallery` of an image set, its folder, or one of its manifests; returns the file."""
    return make_gallery(image_set if isinstance(image_set, ImageSet) else ImageSet.read(image_set), out).path


def make_gallery(image_set: ImageSet, out: str | Path | None = None, *, budget: int = PICTURE_BUDGET) -> Gallery:
    """One self-contained HTML file about an image set, curated or not; dropped rows are in it.

    Columns that are there are used: `score_*`, `kept`, `reason`, `rules`, `duplicate_group`, `nearest_evaluation`.

    Args:
        out: an .html file, or a folder for `gallery.html`; None: the manifest's folder.
        budget: bytes of pictures. What does not fit is counted on the page; numbers are of all rows.
    """
    target = image_set.root if out is None else Path(out)
    if target.suffix.lower() not in (".html", ".htm"):
        target = target / GALLERY
    looked = _Looked(image_set)
    thumbs = Thumbnails(budget=budget, side=128)
    leaks, groups, extremes = looked.leaks(), looked.duplicates(), looked.extremes()
    first = [row for pair in leaks for row in [pair["row"]]]
    first += [row for group in groups for row in group["rows"]]
    first += [row for one in extremes for row in [*one["best"], *one["worst"]]]
    order = list(dict.fromkeys([*first, *np.random.default_rng(0).permutation(len(image_set)).tolist()]))
    thumbs.prepare([pair["path"] for pair in leaks if pair["path"] is not None])
    thumbs.prepare([image_set.paths[row] for row in order])
    entries = [
        looked.entry(row, thumb.uri) for row in range(len(image_set)) if (thumb := thumbs.of(image_set.paths[row]))
    ]
    for pair in leaks:
        found = None if pair["path"] is None else thumbs.of(pair["path"])
        pair["uri"] = None if found is None else found.uri
    write_page(
        target,
        "gallery.html.j2",
        title=f"{image_set.root.absolute().name}: {image_set.manifest.name}",
        version=__version__,
        set=image_set,
        looked=looked,
        leaks=leaks,
        groups=groups,
        extremes=extremes,
        data={"scores": looked.score_names, "classes": looked.class_names, "rows": entries},
        shown=len(entries),
        unreadable=len(thumbs.unreadable),
        budget=budget,
    )
    return Gallery(target, len(image_set), len(entries))


class _Looked:
    """A set's rows as the page needs them."""

    def __init__(self, image_set: ImageSet) -> None:
        self.image_set = image_set
        table = image_set.table
        numeric = [
            name
            for name in table.column_names
            if name.startswith("score_")
            and (pa.types.is_floating(kind := table[name].type) or pa.types.is_integer(kind))
        ]
        columns = sorted(numeric, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
        self.scores: dict[str, npt.NDArray[np.float64]] = {
            name.removeprefix("score_"): np.array(
                [np.nan if value is None else value for value in table[name].to_pylist()], dtype=np.float64
            )
            for name in columns
            if table[name].null_count < len(table)
        }
        self.kept = np.array([value is not False for value in table["kept"].to_pylist()], dtype=bool)
        unlabelled = bool((image_set.labels < 0).any())
        self.class_names = [*image_set.class_names, *([_NO_CLASS] if unlabelled else [])]
        self.labels = np.where(image_set.labels < 0, len(image_set.class_names), image_set.labels)

    @property
    def score_names(self) -> list[str]:
        """Names without `score_`, the one that pictures are ranked by first."""
        return list(self.scores)

    @cached_property
    def reasons(self) -> list[str]:
        """Each row's reason in full; empty where it is kept."""
        given = self._column("reason")
        return ["" if kept else str(reason or UNNAMED_REASON) for kept, reason in zip(self.kept, given, strict=True)]

    @cached_property
    def rules(self) -> list[list[str]]:
        """The rules that each dropped row broke; its reason where the set names none."""
        given = self._column("rules")
        return [
            [] if kept else [rule.replace("_", " ") for rule in rules] if rules else [reason]
            for kept, rules, reason in zip(self.kept, given, self.reasons, strict=True)
        ]

    @cached_property
    def rule_counts(self) -> dict[str, int]:
        """Rule → rows that broke it, the commonest first."""
        return dict(Counter(rule for rules in self.rules for rule in rules).most_common())

    @cached_property
    def class_counts(self) -> list[tuple[int, str, int, int]]:
        """(index, name, rows, kept) of each class that has rows."""
        found = []
        for index, name in enumerate(self.class_names):
            own = self.labels == index
            if own.any():
                found.append((index, name, int(own.sum()), int((own & self.kept).sum())))
        return found

    def histograms(self) -> list[Histogram]:
        """Of every score that takes more than one value."""
        found = []
        for name, values in self.scores.items():
            known = np.isfinite(values)
            if known.any() and values[known].min() < values[known].max():
                edges = np.linspace(values[known].min(), values[known].max(), BINS + 1)
                kept, dropped = (np.histogram(values[known & which], edges)[0] for which in (self.kept, ~self.kept))
                found.append(Histogram(name, edges.tolist(), kept.tolist(), dropped.tolist()))
        return found

    def extremes(self) -> list[dict[str, Any]]:
        """Each class's best and worst kept-or-not rows by the first score; without scores a few rows, as `best`."""
        values = next(iter(self.scores.values()), None)
        found = []
        for index, name, count, kept in self.class_counts:
            rows = np.flatnonzero(self.labels == index)
            if values is None:
                best, worst = rows[: 2 * _A_CLASS].tolist(), []
            else:
                ranked = rows[np.isfinite(values[rows])]
                ranked = ranked[np.argsort(-values[ranked], kind="stable")]
                best = ranked[: min(_A_CLASS, (len(ranked) + 1) // 2)].tolist()
                worst = ranked[len(best) :][-_A_CLASS:][::-1].tolist()
            found.append({"name": name, "count": count, "kept": kept, "best": best, "worst": worst})
        return found

    def duplicates(self) -> list[dict[str, Any]]:
        """Groups of near-duplicates, the largest first: the one that was kept, then the others."""
        groups: dict[Any, list[int]] = {}
        for row, group in enumerate(self._column("duplicate_group")):
            if group is not None:
                groups.setdefault(group, []).append(row)
        found: list[dict[str, Any]] = [
            {"rows": sorted(rows, key=lambda row: (not self.kept[row], row))[:_A_GROUP], "count": len(rows)}
            for rows in groups.values()
            if len(rows) > 1
        ]
        self.duplicate_groups = len(found)
        return sorted(found, key=lambda group: -group["count"])[:_GROUPS]

    def leaks(self) -> list[dict[str, Any]]:
        """Rows that were dropped as leaks, each with the evaluation picture it resembles, the nearest first."""
        nearest, sets = self._column("nearest_evaluation"), self._column("nearest_evaluation_set")
        cosines, bits = self._column("nearest_evaluation_cosine"), self._column("nearest_evaluation_bits")
        rows = [row for row, rules in enumerate(self.rules) if "leaked" in rules]
        self.leaked = len(rows)
        rows.sort(key=lambda row: -(cosines[row] or 0.0))
        known: dict[str, Mapping[str, Path]] = {}
        found = []
        for row in rows[:_LEAKS]:
            where = sets[row]
            if where is not None and where not in known:
                known[where] = _paths(where, self.image_set.root)
            measures = [f"cosine {cosines[row]:.3f}"] if cosines[row] is not None else []
            measures += [f"{bits[row]} bits"] if bits[row] is not None else []
            path = known.get(where or "", {}).get(nearest[row] or "")
            found.append({"row": row, "id": nearest[row], "set": where, "path": path, "told": ", ".join(measures)})
        return found

    def entry(self, row: int, uri: str) -> dict[str, Any]:
        """A row for the page's script."""
        texts = self._column("prompt")
        return {
            "row": row,
            "id": self.image_set.ids[row],
            "class": int(self.labels[row]),
            "kept": bool(self.kept[row]),
            "reason": self.reasons[row],
            "rules": self.rules[row],
            "scores": [
                None if np.isnan(values[row]) else round(float(values[row]), 5) for values in self.scores.values()
            ],
            "text": texts[row] or "; ".join(self.image_set.captions[row]),
            "uri": uri,
        }

    def told(self, row: int) -> str:
        """A row's first score, and whether it was dropped."""
        said = [
            f"{name} {values[row]:.3f}" for name, values in list(self.scores.items())[:1] if np.isfinite(values[row])
        ]
        return " · ".join([*said, *([] if self.kept[row] else ["dropped"])])

    def _column(self, name: str) -> Sequence[Any]:
        return self._columns.get(name, [None] * len(self.image_set))

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        names = ("reason", "rules", "prompt", "duplicate_group", "nearest_evaluation", "nearest_evaluation_set")
        more = ("nearest_evaluation_cosine", "nearest_evaluation_bits")
        table = self.image_set.table
        return {name: table[name].to_pylist() for name in (*names, *more) if name in table.column_names}


def _paths(manifest: str, root: Path) -> Mapping[str, Path]:
    """An evaluation set's pictures by id; empty where it has gone. A relative path may start here or at the set."""
    for path in (Path(manifest), root / manifest):
        try:
            found = ImageSet.read(path)
        except (Gen2RealError, OSError):
            continue
        return dict(zip(found.ids, found.paths, strict=True))
    return {}
