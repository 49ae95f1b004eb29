"""What a generator in training drew before and after: the same prompts and seeds, side by side.

`result.json` keeps it as `drawn`: [{"prompt", "seed", "before": PATH, "after": PATH}], paths inside the run's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.report.frame import Shown
from gen2real.report.thumbnails import Thumbnails

_MOST = 24
"""Prompts and seeds of a page."""


@dataclass(frozen=True)
class Drawing:
    """One prompt and seed. before: by the original. after: by each arm of `Drawings`, in its order."""

    prompt: str
    seed: str
    before: Shown
    after: Sequence[Shown | None]


@dataclass(frozen=True)
class Drawings:
    """arms: whose pictures `Drawing.after` holds. left_out: further prompts and seeds that runs have drawn."""

    arms: Sequence[str]
    rows: Sequence[Drawing]
    left_out: int = 0


def drawn_of(runs: Sequence[tuple[str, Path, Mapping[str, Any]]], thumbs: Thumbnails) -> Drawings | None:
    """The validation pictures of runs (arm, folder, summary); None where none has any.

    The picture before the training is the first run's that has it: runs that start from the same models draw the same.
    """
    found = [(name, folder, summary["drawn"]) for name, folder, summary in runs if summary.get("drawn")]
    before: dict[tuple[str, str], Shown] = {}
    after: dict[tuple[str, str], dict[str, Shown]] = {}
    for name, folder, drawn in found:
        for one in drawn:
            key = (str(one["prompt"]), str(one.get("seed", "")))
            if key not in after and len(after) == _MOST:
                continue
            if key not in before and one.get("before"):
                before[key] = _shown(folder, one["before"], f"“{key[0]}”, drawn before training", thumbs)
            if one.get("after"):
                told = f"“{key[0]}”, drawn after training" + (f", {name}" if len(found) > 1 else "")
                after.setdefault(key, {})[name] = _shown(folder, one["after"], told, thumbs)
    if not after:
        return None
    arms = [name for name, *_ in found]
    rows = [
        Drawing(
            prompt,
            seed,
            before.get((prompt, seed), Shown(None, "picture")),
            [own.get(name) for name in arms],
        )
        for (prompt, seed), own in after.items()
    ]
    asked = {(str(one["prompt"]), str(one.get("seed", ""))) for _, _, drawn in found for one in drawn}
    return Drawings(arms, rows, len(asked) - len(rows))


def _shown(folder: Path, name: str, alt: str, thumbs: Thumbnails) -> Shown:
    path = (folder / name).resolve()
    # A run that somebody else sent may name any file; only its own pictures are put into a page.
    inside = path.is_relative_to(folder.resolve()) and path.is_file()
    thumb = thumbs.of(path) if inside else None
    return Shown(thumb, alt if thumb else "picture")
