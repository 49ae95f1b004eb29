"""The end of every run that is judged by measures: what it cost, what it was made of, and its result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from gen2real.config import Config, to_json
from gen2real.files import read_json, sha256_of
from gen2real.imagesets import ImageSet
from gen2real.imagesets.provenance import describe, describe_file
from gen2real.methods.measured import Measured, Reading, complete, values_of
from gen2real.methods.measured_findings import markdown
from gen2real.training.memory import peak_memory
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport


class MeasuredConfig(Protocol):
    """What the config of such a method has at least."""

    @property
    def method(self) -> str: ...
    @property
    def seed(self) -> int: ...


def conclude_measured(
    folder: RunFolder,
    config: MeasuredConfig,
    *,
    encoder_name: str,
    pictures: Mapping[str, int],
    readings: Mapping[str, Reading],
    headline: str,
    reports: Sequence[FitReport],
    sets: Sequence[tuple[str, Path]],
    plane: Mapping[str, Tensor] | None = None,
    save: Callable[[str], None] | None = None,
    **more: Any,
) -> Measured:
    """Writes the result of a run that has ended; its checkpoints are removed.

    Args:
        pictures: what → how many: "generated", "real", "held_out", "evaluation".
        headline: the reading that the run is judged by.
        reports: of the run's trainings.
        sets: role and path of each image set or JSON Lines file of the recipe.
        plane: features on a plane, as `Result.plane`.
        save: writes the model folder, from the findings for its card in Markdown; called before the result is written,
            which ends the run.
        more: further keys of `result.json`, JSON-like ("alignment", "samples").
    """
    described = described_sets(sets)
    peak, of = peak_memory()
    summary = {
        "method": config.method,
        "seed": config.seed,
        "encoder": encoder_name,
        "pictures": dict(pictures),
        "cost": {
            "training_seconds": sum(report.seconds for report in reports),
            "pictures_per_second": [report.pictures_per_second for report in reports],
            "updates": sum(report.steps for report in reports),
            "peak_memory": {"bytes": peak, "of": of},
        },
        "data": _fingerprints(described),
        "sets": described,
        "environment": read_json(folder.path / "environment.json"),
        **more,
    }
    if save is not None:
        save(markdown(complete(summary, readings, headline), values_of(readings)))
    result = Measured.write(folder.path, summary, readings, headline=headline, plane=plane)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    return result


def described_sets(sets: Sequence[tuple[str, Path]]) -> list[dict[str, Any]]:
    """Each image set or JSON Lines file of a recipe: its role, where its pictures come from, and what its content was.

    The content of a file is its own, without the pictures that it names.
    """
    found = []
    for role, path in sets:
        if path.suffix == ".jsonl":
            found.append({"role": role, "weight": 1.0, **describe_file(path), "fingerprint": sha256_of(path)})
            continue
        whole = ImageSet.read(path)
        found.append({"role": role, "weight": 1.0, **describe(whole), "fingerprint": whole.kept().fingerprint})
    return found


def provenance(folder: RunFolder, config: Config, sets: Sequence[tuple[str, Path]]) -> dict[str, Any]:
    """What `gen2real.json` of a run's model folder says of its making: recipe, versions, and the data's content."""
    return {
        "recipe": to_json(config),
        "environment": read_json(folder.path / "environment.json"),
        "data": _fingerprints(described_sets(sets)),
    }


def _fingerprints(described: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in described:
        found.setdefault(one["role"], []).append(one["fingerprint"])
    return found
