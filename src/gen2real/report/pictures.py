"""The pictures behind a run's answers, where its image sets are still there and still the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gen2real.errors import Gen2RealError, ImageSetError
from gen2real.imagesets import ClassName, ImageSet, unique_slugs
from gen2real.imagesets.provenance import describe
from gen2real.methods.classification_data import Labels, class_indices
from gen2real.methods.result import Result


@dataclass
class RunPictures:
    """generated, real: class index → paths. measured: the real pictures in the order of the run's answers, or None.

    missing: what could not be found, and why. sets: as `result.json` tells of them, or as the disk does now.
    """

    generated: dict[int, list[Path]] = field(default_factory=dict)
    real: dict[int, list[Path]] = field(default_factory=dict)
    measured: list[Path] | None = None
    missing: list[str] = field(default_factory=list)
    sets: list[dict[str, Any]] = field(default_factory=list)


def find_pictures(result: Result, recipe: Mapping[str, Any]) -> RunPictures:
    """Looks for the sets that a run's recipe names. Nothing is raised: what is not found is told in `missing`."""
    found = RunPictures()
    names = result.summary["classes"]
    classes = [ClassName(label, name) for label, name in zip(unique_slugs(names), names, strict=True)]
    told = {one["manifest"]: one for one in result.summary.get("sets", [])}
    data = recipe.get("data", {})
    generated = [("trained on", one["path"]) for one in data.get("generated", [])]
    if data.get("held_out"):
        generated.append(("held out", data["held_out"]))
    for role, path in generated:
        one = _read(path, found)
        if one is not None and (labels := _labels(one, classes, found)) is not None:
            _add(found.generated, one, labels)
        _tell(found, role, one, told)
    if data.get("real"):
        _tell(found, "trained on, real", _read(data["real"]["path"], found), told)
    if data.get("evaluation"):
        one = _read(data["evaluation"], found)
        if one is not None and (labels := _labels(one, classes, found)) is not None:
            _add(found.real, one, labels)
            found.measured = _in_order(result, one, labels, found)
        _tell(found, "measured on", one, told)
    if result.summary.get("sets"):
        found.sets = list(result.summary["sets"])
    return found


def _read(path: str, found: RunPictures) -> ImageSet | None:
    try:
        return ImageSet.read(path).kept()
    except (Gen2RealError, OSError) as error:
        found.missing.append(f"Pictures of {path} are not shown: {str(error).splitlines()[0]}")
        return None


def _labels(one: ImageSet, classes: list[ClassName], found: RunPictures) -> Labels | None:
    try:
        return class_indices(one, classes)[one.labels]
    except ImageSetError as error:
        found.missing.append(f"Pictures of {one.manifest} are not shown: {str(error).splitlines()[0]}")
        return None


def _add(into: dict[int, list[Path]], one: ImageSet, labels: Labels) -> None:
    for path, label in zip(one.paths, labels.tolist(), strict=True):
        if label >= 0:
            into.setdefault(label, []).append(path)


def _in_order(result: Result, one: ImageSet, labels: Labels, found: RunPictures) -> list[Path] | None:
    """The set's pictures, if it is the one that was measured: equal content, or at least equal classes in order."""
    answered = result.answers.get("real")
    if answered is None:
        return None
    stored = next(
        (known["fingerprint"] for known in result.summary.get("sets", []) if known["role"] == "measured on"), None
    )
    same = np.array_equal(answered.numpy(), labels) if stored is None else stored == one.fingerprint
    if not same or len(answered) != len(labels):
        found.missing.append(
            f"{one.manifest} is not what it was when the run was measured (pictures were added, removed or changed), "
            "so answers are not shown beside its pictures."
        )
        return None
    return one.paths


def _tell(found: RunPictures, role: str, one: ImageSet | None, told: Mapping[str, Any]) -> None:
    """For results of an older gen2real, which did not say what their sets were."""
    if one is not None and str(one.manifest) not in told:
        whole = ImageSet.read(one.manifest)
        found.sets.append({"role": role, **describe(whole), "fingerprint": one.fingerprint})
