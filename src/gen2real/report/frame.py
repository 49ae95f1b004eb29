"""What every page about runs has around its findings: names, recipes, pictures with a budget, what is not shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real import __version__
from gen2real.report.thumbnails import Thumbnail, Thumbnails

PICTURE_BUDGET = 8 * 2**20
"""Bytes of pictures in a report; beyond, pictures are left out, and the page says so."""


@dataclass(frozen=True)
class Shown:
    """A picture and what is said of it. thumb: None where it could not be shown."""

    thumb: Thumbnail | None
    alt: str
    note: str = ""


def frame(
    *,
    title: str,
    lead: Sequence[str],
    folders: Sequence[Path],
    thumbs: Thumbnails,
    summaries: Sequence[Mapping[str, Any]],
    missing: Sequence[str],
    limitations: Sequence[str],
) -> dict[str, Any]:
    """The facts that each page of runs gives its template: header, recipes, limits, and what made it.

    missing: what could not be shown, and why; what the thumbnails left out is added.
    """
    return {
        "title": title,
        "lead": lead,
        "missing": list(dict.fromkeys([*missing, *_not_shown(thumbs)])),
        "recipes": [
            (folder.name, path.read_text(encoding="utf-8"))
            for folder in folders
            if (path := folder / "recipe.yaml").exists()
        ],
        "seeds": sorted({summary["seed"] for summary in summaries}),
        "limitations": limitations,
        "environment": summaries[0]["environment"] if summaries else {},
        "version": __version__,
    }


def names_of(folders: Sequence[Path]) -> list[str]:
    """The folders' names, or as much of their paths as tells them apart."""
    absolute = [folder.absolute() for folder in folders]
    for parts in range(1, 20):
        names = ["/".join(folder.parts[-parts:]) for folder in absolute]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in absolute]


def without_runs(there: int, arms: int) -> list[str]:
    """What is told where arms of a comparison have no runs beside the table."""
    if there == arms:
        return []
    return [
        f"{arms - there} of {arms} arms have no runs beside the table, so only their numbers are shown. "
        "Run the comparison again: what is finished is only read."
    ]


def tested_against(references: Sequence[str]) -> str:
    """How the arms of a comparison were tested, in a sentence."""
    return (
        f"Every arm is tested against {' and '.join(references)} picture by picture; p-values are corrected for the "
        "number of arms (Holm)."
    )


def set_name(one: Mapping[str, Any]) -> dict[str, Any]:
    """A set of `result.json` with the name of its folder; a JSON Lines file with its own."""
    return {**one, "name": one.get("file") or Path(one["manifest"]).parent.name}


def _not_shown(thumbs: Thumbnails) -> list[str]:
    told = []
    if thumbs.unreadable:
        told.append(f"{len(thumbs.unreadable)} pictures could not be read and are not shown.")
    if thumbs.left_out:
        told.append(f"{thumbs.left_out:,} more pictures are left out: a report holds {thumbs.budget // 2**20} MiB.")
    return told
