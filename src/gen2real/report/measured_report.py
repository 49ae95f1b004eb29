"""report.html of runs judged by measures: one, several side by side, or a comparison with its scaling curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.evaluation.statistics import Interval
from gen2real.methods.measured import Measured
from gen2real.methods.measured_findings import (
    BASELINES,
    items_of,
    limitations,
    method_name,
    reading_name,
    sentence,
    verdict,
)
from gen2real.methods.measures import Measure
from gen2real.report.alignment import alignment_of
from gen2real.report.arms import maps
from gen2real.report.collapse import collapse_of, ends_of_arms
from gen2real.report.curves import joint_curves, loss_curve
from gen2real.report.drawn import drawn_of
from gen2real.report.frame import PICTURE_BUDGET, Shown, frame, names_of, set_name, tested_against, without_runs
from gen2real.report.further import counts, further
from gen2real.report.labels import labels_of
from gen2real.report.measured_rows import (
    MeasuredArm,
    Tables,
    of_comparison,
    of_readings,
    of_runs,
    row_name,
    scaling_curves,
)
from gen2real.report.set_pictures import SetPictures
from gen2real.report.tasks import Column, lookups_of, tasks_of
from gen2real.report.thumbnails import Thumbnails

_SAMPLES = 24
_PICTURES = 6
"""Of a sample; a question may have dozens."""
_FIGURES = 4


@dataclass(frozen=True)
class Sample:
    """Pictures, what people wrote of them, and what each reading or arm did, named together where they agree.

    question: empty where none was asked. further: pictures that are not shown.
    """

    shown: Sequence[Shown]
    question: str
    references: Sequence[str]
    texts: Mapping[str, str]
    further: int = 0


def measured_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """The facts of a page on one run, or on several side by side; the others are tested against the first."""
    results = [Measured.read(folder) for folder in folders]
    names = names_of(folders)
    arms = [MeasuredArm(name, one.headline, (one,)) for name, one in zip(names, results, strict=True)]
    if len(arms) > 1:
        lead = [f"{arm.name}: {sentence(arm.first.summary)}" for arm in arms]
        return _page(f"{len(arms)} runs", lead, of_runs(arms), arms, folders)
    summary = results[0].summary
    lead = [sentence(summary), verdict(summary, results[0].all_values)]
    return _page(f"{method_name(summary)}: {names[0]}", lead, of_readings(results[0]), arms, folders)


def measured_comparison(folder: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a page on a comparison; arms whose runs are not beside the table have their numbers only."""
    arms = {}
    for row in table["rows"]:
        runs = [folder / name for name in row["runs"].values()]
        if runs and all((run / "result.json").exists() for run in runs):
            arms[row_name(row)] = MeasuredArm(row_name(row), row["reading"], tuple(Measured.read(run) for run in runs))
    tables = of_comparison(table, arms)
    seeds = max(row["seeds"] for row in table["rows"])
    counts = [row.interval.count for one in tables.leading for row in one.rows if row.interval]
    items = items_of(next(iter(arms.values())).first.summary) if arms else "real pictures"
    names, sizes = ({row[key] for row in table["rows"]} - {None} for key in ("arm", "size"))
    of = f" at {len(sizes)} sizes" if sizes else ""
    lead = [f"{len(names)} arms{of} were compared over up to {seeds} seeds, each measured on {max(counts):,} {items}."]
    if table["against"]:
        lead.append(tested_against(table["against"]))
    lead += table.get("notes", [])
    missing = without_runs(len(arms), len(table["rows"]))
    return _page(folder.name, lead, tables, list(arms.values()), [folder], missing, table.get("scaling", []))


def _page(
    title: str,
    lead: Sequence[str],
    tables: Tables,
    arms: Sequence[MeasuredArm],
    folders: Sequence[Path],
    missing: Sequence[str] = (),
    scaling: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    thumbs = Thumbnails(budget=PICTURE_BUDGET)
    sets = list({(one["role"], one["manifest"]): one for arm in arms for one in arm.first.summary["sets"]}.values())
    pictures = SetPictures(sets)
    # An arm that is the model as it was: how its run's training went is not told under its name.
    trained = [arm for arm in arms if arm.reading not in BASELINES] if len(arms) > 1 else list(arms)
    panels = []
    for arm in arms:
        plane, summary = arm.first.plane(), arm.first.summary
        panels.append(
            {
                "arm": arm,
                "summary": summary,
                "loss": loss_curve(arm.first.folder) if arm in trained else None,
                "joint": joint_curves(arm.first.folder) if arm in trained else None,
                "collapse": collapse_of(summary) if arm in trained else None,
                "alignment": alignment_of(summary, pictures, thumbs),
                "maps": maps(plane, "alignment"),
                "explained": float(plane["explained"].sum()) if plane else 0.0,
                "no_map": "the run kept none",
            }
        )
    measured = [arm for arm in arms if arm.measured]
    columns = _columns(measured)
    samples = _samples(arms, pictures, thumbs)
    drawn = drawn_of([(arm.name, arm.first.folder, arm.first.summary) for arm in trained], thumbs)
    facts = frame(
        title=title,
        lead=lead,
        folders=folders,
        thumbs=thumbs,
        summaries=[result.summary for arm in arms for result in arm.results],
        missing=[*missing, *pictures.missing],
        limitations=limitations(measured[-1].first.summary) if measured else [],
    )
    return {
        **facts,
        "tables": tables,
        "panels": panels,
        "samples": samples,
        "drawn": drawn,
        "ends": ends_of_arms([(arm.name, [one.summary for one in arm.results]) for arm in trained]),
        "curves": scaling_curves(scaling),
        "scaling": [(one["arm"], one["size"], Measure(one["measure"]), Interval(**one["interval"])) for one in scaling],
        "sets": [set_name(one) for one in sets],
        "figures": _figures(tables) if len(arms) == 1 and tables.of == "reading" else [],
        "galleries": _galleries(arms),
        "further": _further(arms),
        "items": items_of(measured[0].first.summary) if measured else "real pictures",
        "tasks": tasks_of(columns),
        "lookups": lookups_of(columns),
        "labels": labels_of(arms[0].first.folder, arms[0].first.summary) if len(arms) == 1 else None,
    }


def _figures(tables: Tables) -> list[dict[str, Any]]:
    """The numbers that a reader of a single run looks for first."""
    found: list[dict[str, Any]] = []
    # What is drawn is one half of such a run: its distance is always among them.
    distances = [table for table in tables.leading[_FIGURES:] if table.measure.lower_is_better][:1]
    for table in [*tables.leading[: _FIGURES - len(distances)], *distances]:
        headline = next((row for row in table.rows if row.is_headline), None)
        if headline is None or headline.interval is None:
            continue
        measure = table.measure
        changes = [
            f"{measure.change(test).partition(' [')[0]} against {reference}"
            for reference, (test, _) in headline.tests.items()
        ]
        name = "; ".join([f"{measure.heading}, {headline.name}", *changes])
        found.append(
            {
                "name": name,
                "value": measure.value(headline.interval.mean),
                "interval": measure.ends(headline.interval),
                "main": not found,
            }
        )
    return found


def _galleries(arms: Sequence[MeasuredArm]) -> list[str]:
    """How many pictures, texts and questions there were, where readings tell it; once, where all arms had as many."""
    told = []
    for arm in arms:
        if words := counts(arm.first.readings[arm.reading].get("details", {})):
            told.append((arm.name if len(arms) > 1 else reading_name(arm.reading), words))
    if len({words for _, words in told}) == 1:
        return [told[0][1]]
    return [f"{name}: {words}" for name, words in told]


def _columns(measured: Sequence[MeasuredArm]) -> list[Column]:
    """What tasks tell: of one run under each reading, of several under each one's headline, first seed."""
    if len(measured) == 1:
        readings = measured[0].first.readings
        return [Column(reading_name(name), one.get("details", {}), one["measures"]) for name, one in readings.items()]
    found = [(arm.name, arm.first.readings[arm.reading]) for arm in measured]
    return [Column(name, one.get("details", {}), one["measures"]) for name, one in found]


def _further(arms: Sequence[MeasuredArm]) -> dict[str, Any]:
    """What has no interval: of one run under each reading, of several under each one's headline, first seed."""
    measured = [arm for arm in arms if arm.measured]
    if len(arms) == 1 and measured:
        readings = arms[0].first.readings
        columns = {reading_name(name): one.get("details", {}) for name, one in readings.items()}
    else:
        columns = {arm.name: arm.first.readings[arm.reading].get("details", {}) for arm in measured}
    return {"columns": list(columns), "rows": further(list(columns.values()))}


def _samples(arms: Sequence[MeasuredArm], pictures: SetPictures, thumbs: Thumbnails) -> list[Sample]:
    """The pictures that runs kept texts of: of one run each reading's, of several each one's headline."""
    found: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    texts: dict[tuple[str, str, str], dict[str, str]] = {}
    for arm in arms:
        for one in arm.first.summary.get("samples") or []:
            key = (one["set"], one["id"], one.get("question", ""))
            found.setdefault(key, one)
            own = one["captions"]
            if len(arms) == 1:
                texts.setdefault(key, {}).update({reading_name(name): text for name, text in own.items()})
            elif arm.reading in own:
                texts.setdefault(key, {})[arm.name] = own[arm.reading]
    return [
        Sample(
            _pictures(one, pictures, thumbs),
            key[2],
            one["references"],
            _merged(texts.get(key, {})),
            max(0, len(one.get("pictures", ())) - _PICTURES),
        )
        for key, one in _of_each_set(found)
    ]


def _of_each_set(found: Mapping[tuple[str, str, str], Any]) -> list[tuple[tuple[str, str, str], Any]]:
    """The first samples of each set or task, as many of one as of another as far as they go, in their order."""
    places: dict[str, int] = {}
    rounds = []
    for order, key in enumerate(found):
        places[key[0]] = places.get(key[0], -1) + 1
        rounds.append((places[key[0]], order, key))
    kept = {key for _, _, key in sorted(rounds)[:_SAMPLES]}
    return [(key, one) for key, one in found.items() if key in kept]


def _pictures(one: Mapping[str, Any], pictures: SetPictures, thumbs: Thumbnails) -> list[Shown]:
    """A sample's pictures: of an image set by its id; of a question its files, as far as they are still there."""
    if "pictures" not in one:
        return [pictures.of_set(one["set"], one["id"], f"real picture {one['id']}", thumbs)]
    files = [Path(name) for name in one["pictures"][:_PICTURES]]
    numbers = [f" {number}" for number in range(1, len(files) + 1)] if len(files) > 1 else [""]
    return [
        Shown(thumbs.of(path) if path.is_file() else None, f"picture{number} of {one['id']}")
        for path, number in zip(files, numbers, strict=True)
    ]


def _merged(texts: Mapping[str, str]) -> dict[str, str]:
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text, []).append(name)
    return {", ".join(own): text for text, own in names.items()}
