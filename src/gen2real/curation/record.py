"""What a curation leaves behind: the manifest, curation.json with counts and histograms, and their drawings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gen2real.config import differing_keys, to_json
from gen2real.curation.rules import RULES, Evidence, Floats, Mask, Verdicts
from gen2real.curation.settings import CurateConfig
from gen2real.errors import ImageSetError
from gen2real.files import atomic_folder, read_json
from gen2real.imagesets.manifest import COLUMNS, ImageSet

BINS = 40
_KEPT, _LEFT_OUT, _LINES = "#3f83c8", "#e08a3c", "#808080"


@dataclass(frozen=True)
class Places:
    """Where a curation's files go: `manifest`, `report` (JSON) and `drawings` (a folder)."""

    manifest: Path
    report: Path
    drawings: Path

    @classmethod
    def of(cls, root: Path, name: str) -> Places:
        """curated.parquet has curation.json and curation/; strict.parquet has curation-strict.json and so on."""
        stem = Path(name).stem
        title = "curation" if stem == "curated" else f"curation-{stem}"
        return cls(root / name, root / f"{title}.json", root / title)


def finished_report(places: Places, config: CurateConfig, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """The report of a curation that is done; None where there is none, or one that was killed before its manifest.

    Raises: ImageSetError where the manifest is another's, or was made with other settings or of other pictures; the
    keys that differ are named.
    """
    if not places.manifest.exists():
        return None
    other = f"Choose another name for this one: --name {_another(places.manifest)}"
    if not places.report.exists():
        raise ImageSetError(
            f"{places.manifest} exists, and there is no {places.report.name} that says how it was made. {other}"
        )
    report: dict[str, Any] = read_json(places.report)
    changes = differing_keys(
        {**_compared(report["config"]), "inputs": report["inputs"]},
        {**_compared(to_json(config)), "inputs": dict(inputs)},
    )
    if changes:
        listed = "\n".join(f"  {change}" for change in changes)
        raise ImageSetError(f"{places.manifest} was made otherwise. What differs:\n{listed}\n{other}")
    return report


def curated_table(source: ImageSet, evidence: Evidence, verdicts: Verdicts) -> pa.Table:
    """Every row of the source with verdicts, reasons and scores. Of rows that were left out before, scores, hashes
    and neighbours that an earlier curation found are kept."""
    count = len(source)
    groups = evidence.groups
    columns: dict[str, tuple[list[Any], pa.DataType]] = {
        "kept": (verdicts.kept.tolist(), pa.bool_()),
        "phash": (list(evidence.phash), pa.string()),
        "reason": (["; ".join(reasons) or None for reasons in verdicts.reasons], pa.string()),
        "rules": (list(verdicts.rules), pa.list_(pa.string())),
        **{f"score_{name}": (_nulls(scores), pa.float64()) for name, scores in evidence.scores.items()},
        "duplicate_group": ([int(group) if group >= 0 else None for group in groups], pa.int64()),
        "duplicate_of": (list(verdicts.duplicate_of), pa.string()),
        "nearest_evaluation": ([None] * count, pa.string()),
        "nearest_evaluation_set": ([None] * count, pa.string()),
        "nearest_evaluation_cosine": ([None] * count, pa.float64()),
        "nearest_evaluation_bits": ([None] * count, pa.int64()),
    }
    if (leaks := evidence.leaks) is not None:
        columns["nearest_evaluation"] = (list(leaks.ids), pa.string())
        columns["nearest_evaluation_set"] = (list(leaks.sets), pa.string())
        columns["nearest_evaluation_cosine"] = (_nulls(leaks.cosine), pa.float64())
        columns["nearest_evaluation_bits"] = ([int(n) if n >= 0 else None for n in leaks.bits], pa.int64())
    table = source.table
    judged = ("kept", "reason", "rules", "duplicate_group", "duplicate_of")
    for name, (values, kind) in columns.items():
        if name in table.column_names and name not in judged and not evidence.active.all():
            before = table[name].to_pylist()
            values = [new if here else old for new, old, here in zip(values, before, evidence.active, strict=True)]
        column = pa.array(values, COLUMNS.get(name, kind))
        place = table.column_names.index(name) if name in table.column_names else None
        table = table.append_column(name, column) if place is None else table.set_column(place, name, column)
    return table


def counts(source: ImageSet, verdicts: Verdicts) -> dict[str, Any]:
    """Pictures, kept ones and broken rules: in all and of each class. A picture counts once a rule it broke."""
    kept, labels = verdicts.kept, source.labels
    classes = []
    for index, known in enumerate(source.classes):
        rows = np.flatnonzero(labels == index)
        words = {"label": known.label, "name": known.name}
        classes.append({**words, **_counted(rows, kept, verdicts)})
    everything = _counted(np.arange(len(source)), kept, verdicts)
    return {**everything, "classes": classes, "without_class": _counted(np.flatnonzero(labels < 0), kept, verdicts)}


def score_summaries(evidence: Evidence, kept: Mask) -> dict[str, Any]:
    """Of every score that was given: count, mean, quartiles, and a histogram of kept pictures and of those left out."""
    found = {}
    for name, scores in evidence.scores.items():
        known = np.isfinite(scores) & evidence.active
        if not known.any():
            continue
        values = scores[known]
        low, high = float(values.min()), float(values.max())
        if high - low < 1e-9:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, BINS + 1)
        found[name] = {
            "count": int(known.sum()),
            "mean": float(values.mean()),
            "quantiles": dict(
                zip(("0", "25", "50", "75", "100"), np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist(), strict=True)
            ),
            "histogram": {
                "edges": edges.tolist(),
                "kept": np.histogram(scores[known & kept], edges)[0].tolist(),
                "left_out": np.histogram(scores[known & ~kept], edges)[0].tolist(),
            },
        }
    return found


def draw_histograms(folder: Path, summaries: Mapping[str, Any], limits: Mapping[str, float | None]) -> list[str]:
    """Writes score_NAME.svg for each score, whole or not at all, and gives their names. Colours hold on light and on
    dark ground; the ground itself is left out."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    names = []
    with atomic_folder(folder) as partial, mpl.rc_context({"svg.hashsalt": "gen2real", "svg.fonttype": "none"}):
        for name, summary in summaries.items():
            bins = summary["histogram"]
            figure = Figure(figsize=(5.2, 2.4))
            FigureCanvasSVG(figure)
            figure.patch.set_alpha(0)
            figure.subplots_adjust(left=0.13, right=0.98, bottom=0.22, top=0.96)
            axes = figure.add_subplot(facecolor="none")
            kept, both = np.array(bins["kept"]), np.array(bins["kept"]) + bins["left_out"]
            axes.stairs(kept, bins["edges"], fill=True, color=_KEPT, label="kept")
            axes.stairs(both, bins["edges"], baseline=kept, fill=True, color=_LEFT_OUT, label="left out")
            if (limit := limits.get(name)) is not None:
                axes.axvline(limit, color=_LINES, linestyle="--", label=f"limit {limit:g}")
            axes.set_xlabel(name.replace("_", "-"), color=_LINES)
            axes.set_ylabel("pictures", color=_LINES)
            axes.tick_params(colors=_LINES)
            for side, spine in axes.spines.items():
                spine.set_visible(side in ("left", "bottom"))
                spine.set_color(_LINES)
            axes.legend(frameon=False, labelcolor=_LINES)
            names.append(f"score_{name}.svg")
            title = f"{name.replace('_', ' ')} of {summary['count']} pictures, kept and left out"
            figure.savefig(partial / names[-1], metadata={"Date": None, "Title": title})
    return names


def empty_classes(report: Mapping[str, Any]) -> list[str]:
    """A line for each class that had pictures to choose from and has none now: name, count and rules."""
    lines = []
    for one in report["classes"]:
        judged = one["pictures"] - one["rules"].get("left_out_before", 0)
        if judged and not one["kept"]:
            rules = ", ".join(f"{rule} {count}" for rule, count in one["rules"].items() if rule != "left_out_before")
            lines.append(f"{one['name']} (all {judged}: {rules})")
    return lines


def _counted(rows: np.ndarray[Any, Any], kept: Mask, verdicts: Verdicts) -> dict[str, Any]:
    broken = Counter(rule for row in rows.tolist() for rule in dict.fromkeys(verdicts.rules[row]))
    rules = {rule: broken[rule] for rule in RULES if broken[rule]}
    return {"pictures": len(rows), "kept": int(kept[rows].sum()), "rules": rules}


def _nulls(values: Floats) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    # Where the set lies does not say what it is; `inputs` does.
    return {key: value for key, value in config.items() if key not in ("images", "name")}


def _another(manifest: Path) -> str:
    number = 2
    while manifest.with_name(f"{manifest.stem}-{number}.parquet").exists():
        number += 1
    return f"{manifest.stem}-{number}.parquet"
