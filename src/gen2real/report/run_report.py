"""report.html: of a finished run, of several side by side, or of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.errors import RecipeError
from gen2real.evaluation.statistics import Interval
from gen2real.files import read_json
from gen2real.methods.findings import limitations, sentence, verdict
from gen2real.methods.measured import KIND
from gen2real.methods.result import Result
from gen2real.report.arms import Arm, ClassChange, Confused, maps
from gen2real.report.frame import PICTURE_BUDGET, Shown, frame, names_of, set_name, tested_against, without_runs
from gen2real.report.map_again import plane_again
from gen2real.report.measured_report import measured_comparison, measured_runs
from gen2real.report.page import percent, points, write_page
from gen2real.report.pictures import RunPictures, find_pictures
from gen2real.report.rows import Rows, of_a_run, of_comparison, of_readings, of_runs
from gen2real.report.thumbnails import Thumbnails

REPORT = "report.html"
_A_CLASS, _CONFUSIONS, _CONFUSIONS_AN_ARM = 4, 12, 6


def write_report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """One self-contained HTML file about finished runs. It reads their folders and, for pictures, their image sets.

    Args:
        runs: the folder of a run or of a comparison, or several folders of runs, the first being what the others
            are tested against.
        out: the file; None: `report.html` in the folder, or for several runs in the working directory.

    Returns: the file.

    Raises: RecipeError for a folder that holds no finished run, or for a comparison among several.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not folders:
        raise RecipeError("a report needs the folder of at least one run. Type: gen2real report runs/NAME")
    target = Path(out) if out is not None else (folders[0] if len(folders) == 1 else Path()) / REPORT
    comparisons = [folder for folder in folders if (folder / "table.json").exists()]
    if comparisons and len(folders) > 1:
        raise RecipeError(
            f"{comparisons[0]} is a comparison, which has a report of its own. Give it alone, or give runs only."
        )
    table = read_json(folders[0] / "table.json") if comparisons else None
    if _measured(folders, table):
        page = measured_comparison(folders[0], table) if table is not None else measured_runs(folders)
        write_page(target, "measured.html.j2", **page)
    else:
        page = _of_comparison(folders[0], table) if table is not None else _of_runs(folders)
        write_page(target, "report.html.j2", **page)
    return target


@dataclass(frozen=True)
class ClassPictures:
    """One class: how it went, and samples."""

    change: ClassChange | None
    name: str
    generated: list[Shown]
    real: list[Shown]


@dataclass(frozen=True)
class ConfusionPictures:
    """A pair of classes, the photograph that was mistaken, and an example of what it was taken for."""

    pair: Confused
    photo: Shown
    example: Shown


def _measured(folders: Sequence[Path], table: Mapping[str, Any] | None) -> bool:
    """Whether the folders are of measured runs. Raises: RecipeError where some are and some are not."""
    if table is not None:
        return table.get("kind") == KIND
    measured = [folder for folder in folders if Result.read(folder).summary.get("kind") == KIND]
    if measured and len(measured) < len(folders):
        other = next(folder for folder in folders if folder not in measured)
        raise RecipeError(
            f"{measured[0]} is judged by measures and {other} is a classifier: they have no common column. "
            "Give runs of one sort."
        )
    return bool(measured)


def _of_runs(folders: Sequence[Path]) -> dict[str, Any]:
    results = [Result.read(folder) for folder in folders]
    names = names_of(folders)
    arms = [of_a_run(result, name) for result, name in zip(results, names, strict=True)]
    if len(results) == 1:
        rows = of_readings(results[0])
        title = f"{_method(results[0])}: {names[0]}"
    else:
        rows = of_runs(arms)
        title = f"{len(results)} runs"
    first = results[0].summary
    lead = (
        [sentence(first), verdict(first, results[0].answers)]
        if len(results) == 1
        else [f"{one.name}: {sentence(one.first.summary)}" for one in arms]
    )
    return _page(title, lead, rows, arms, folders)


def _of_comparison(folder: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    arms = []
    for row in table["rows"]:
        runs = [folder / name for name in row.get("runs", {}).values()]
        if runs and all((run / "result.json").exists() for run in runs):
            arms.append(Arm(row["arm"], row["reading"], tuple(Result.read(run) for run in runs)))
    rows = of_comparison(table, arms)
    missing = without_runs(len(arms), len(table["rows"]))
    best = [row.real for row in rows.having("result") if row.real is not None]
    seeds = max(row["seeds"] for row in table["rows"])
    lead = [
        f"{len(table['rows'])} arms were compared over up to {seeds} seeds"
        + (
            f", each measured on the same {best[0].count:,} real photographs."
            if best
            else "; none was measured on real photographs."
        )
    ]
    if table["against"]:
        lead.append(tested_against(table["against"]))
    lead += table.get("notes", [])
    return _page(folder.name, lead, rows, arms, [folder], missing)


def _page(
    title: str, lead: list[str], rows: Rows, arms: Sequence[Arm], folders: Sequence[Path], missing: Sequence[str] = ()
) -> dict[str, Any]:
    thumbs = Thumbnails(budget=PICTURE_BUDGET)
    panels: list[dict[str, Any]] = []
    pictures = find_pictures(arms[0].first, _recipe(arms[0])) if arms else RunPictures()
    found = pictures
    shown = next((arm for arm in reversed(arms) if arm.reading not in ("zero_shot", "oracle")), None)
    most = _CONFUSIONS if len(arms) == 1 else _CONFUSIONS_AN_ARM
    for arm in arms:
        if len(panels) and arm.first.summary["classes"] != panels[-1]["summary"]["classes"]:
            found = find_pictures(arm.first, _recipe(arm))
        # An arm without tuning has nothing gained or lost.
        classes = arm.classes() if arm.reading != "zero_shot" else []
        # Of a comparison one arm's map is shown; the others' are not drawn again where they are missing.
        plane, no_map = plane_again(arm.first, _recipe(arm)) if arm is shown else ({}, "")
        panels.append(
            {
                "arm": arm,
                "curve": arm.alpha_curve(),
                "loss": arm.loss_curve(),
                "classes": classes,
                "confusions": [_confusion(pair, arm, found, thumbs) for pair in arm.confusions(most)],
                "maps": maps(plane),
                "explained": float(plane["explained"].sum()) if plane else 0.0,
                "no_map": no_map,
                "summary": arm.first.summary,
            }
        )
    samples = [] if shown is None else _samples(shown, pictures, thumbs)
    return {
        **frame(
            title=title,
            lead=lead,
            folders=folders,
            thumbs=thumbs,
            summaries=[result.summary for arm in arms for result in arm.results],
            missing=[*missing, *pictures.missing],
            limitations=[] if shown is None else limitations(shown.first.summary),
        ),
        "rows": rows,
        "panels": panels,
        "samples": samples,
        "samples_arm": shown,
        "sets": [set_name(one) for one in pictures.sets],
        "figures": _figures(rows),
    }


def _figures(rows: Rows) -> list[dict[str, Any]]:
    """The two or three numbers that a reader of a single run looks for first."""
    by_name = {row.name: row for row in rows.rows}
    original, saved = by_name.get("zero-shot"), next((row for row in rows.rows if row.is_saved), None)
    if original is None or saved is None or original.real is None or saved.real is None:
        return []
    found: list[dict[str, Any]] = [
        {"name": name, "value": percent(row.real.mean), "interval": _ends(row.real), "main": row is saved}
        for name, row in (("zero-shot", original), (f"saved model, {saved.name}", saved))
        if row.real is not None
    ]
    for test, _ in saved.tests.values():
        interval = f"[{points(test.low)}, {points(test.high)}]"
        found.append(
            {"name": "difference, points", "value": points(test.difference), "interval": interval, "main": False}
        )
    return found


def _ends(interval: Interval) -> str:
    return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _samples(arm: Arm, pictures: RunPictures, thumbs: Thumbnails) -> list[ClassPictures]:
    """Every class with pictures: the greatest gain first, classes that were not measured last."""
    names = arm.first.summary["classes"]
    changes = {one.index: one for one in arm.classes()}
    answers = None
    if pictures.measured is not None and arm.measured:
        taken = arm.first.answers[f"real.{arm.reading}"][:, 0].tolist()
        answers = dict(zip(pictures.measured, taken, strict=True))
    order = [*changes, *(index for index in range(len(names)) if index not in changes)]
    found = []
    for index in order:
        real = []
        for path in pictures.real.get(index, [])[:_A_CLASS]:
            answer = None if answers is None else answers.get(path)
            note = "" if answer in (None, index) else f"taken for {names[answer]}"
            alt = f"real photograph of {names[index]}" + (f", {note}" if note else "")
            real.append(Shown(thumbs.of(path), alt, note))
        drawn = [
            Shown(thumbs.of(path), f"generated picture of {names[index]}")
            for path in _spread(pictures.generated.get(index, []), _A_CLASS)
        ]
        if real or drawn:
            found.append(ClassPictures(changes.get(index), names[index], drawn, real))
    return found


def _confusion(pair: Confused, arm: Arm, pictures: RunPictures, thumbs: Thumbnails) -> ConfusionPictures:
    photo = None if pictures.measured is None else thumbs.of(pictures.measured[pair.rows[0]])
    photographs = pictures.real.get(pair.predicted, [])
    drawings = pictures.generated.get(pair.predicted, [])
    of = "real photograph" if photographs else "generated picture"
    example = next((thumbs.of(path) for path in [*photographs, *drawings]), None)
    return ConfusionPictures(
        pair,
        Shown(photo, f"real photograph of {pair.true_name}, taken for {pair.predicted_name}"),
        Shown(example, f"{of} of {pair.predicted_name}", of),
    )


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """`count` of a list, evenly: several generators stand one after the other in it."""
    if len(paths) <= count:
        return list(paths)
    return [paths[place * len(paths) // count] for place in range(count)]


def _recipe(arm: Arm) -> dict[str, Any]:
    path = arm.first.folder / "recipe.json"
    recipe: dict[str, Any] = read_json(path) if path.exists() else {}
    if "runs" in recipe:  # a soup, whose pictures are those of its ingredients
        ingredient = Path(recipe["runs"][0]) / "recipe.json"
        return read_json(ingredient) if ingredient.exists() else {}
    return recipe


def _method(result: Result) -> str:
    return {"regft": "RegFT", "flyp": "FLYP"}.get(result.summary["method"], str(result.summary["method"]))
