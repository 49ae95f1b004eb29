"""The end of every classification run: its model folder, its result, and what it cost."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gen2real.config import to_json
from gen2real.files import read_json
from gen2real.imagesets import ImageSet
from gen2real.imagesets.provenance import describe
from gen2real.methods.classification_data import ClassificationData
from gen2real.methods.findings import markdown
from gen2real.methods.readings import Readings
from gen2real.methods.result import Result
from gen2real.methods.settings import ClassificationConfig
from gen2real.models.classifier import TextInitialisedClassifier
from gen2real.models.dual_encoder import DualEncoder
from gen2real.models.folder import save_classifier
from gen2real.training.memory import peak_memory
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport


def conclude(
    folder: RunFolder,
    config: ClassificationConfig,
    *,
    encoder: DualEncoder,
    data: ClassificationData,
    readings: Readings,
    reports: Sequence[FitReport],
    saved: TextInitialisedClassifier | None,
    changed: Mapping[str, Tensor],
) -> Result:
    """Writes the model folder (where `saved` is given), then the result; checkpoints of the ended run are removed.

    Args:
        saved: the classifier at the alpha of the recipe's rule.
        changed: the tuned classifier's entries that differ from the zero-shot one's, for soups and later blends.
    """
    made_by = {
        "recipe": to_json(config),
        "environment": read_json(folder.path / "environment.json"),
        "alpha": readings.saved_alpha,
        "data": {
            "generated": [one.image_set.fingerprint for one in data.sources],
            "held_out": [one.image_set.fingerprint for one in data.held_out],
        },
    }
    peak, of = peak_memory()
    summary = {
        "version": 1,
        "method": config.method,
        "seed": config.seed,
        "encoder": config.encoder.source,
        "generated_through": config.encoder.generated_branch,
        "name_only": config.data.real is None,
        "classes": data.class_names,
        "pictures": {
            "generated": sum(len(one.pictures) for one in data.sources[: len(config.data.generated)]),
            "real": sum(len(one.pictures) for one in data.sources[len(config.data.generated) :]),
            "held_out": sum(len(one.pictures) for one in data.held_out),
        },
        **readings.summary,
        "cost": {
            "training_seconds": sum(report.seconds for report in reports),
            "pictures_per_second": [report.pictures_per_second for report in reports],
            "updates": sum(report.steps for report in reports),
            "peak_memory": {"bytes": peak, "of": of},
        },
        "data": made_by["data"],
        "sets": _sets(config, data),
        "environment": made_by["environment"],
    }
    if saved is not None:
        told = markdown(summary, readings.answers)
        save_classifier(folder.path / "model", encoder, saved, data.class_names, made_by=made_by, findings=told)
    result = Result.write(folder.path, summary, readings.answers, changed, readings.plane)
    shutil.rmtree(folder.checkpoints, ignore_errors=True)
    return result


def _sets(config: ClassificationConfig, data: ClassificationData) -> list[dict[str, Any]]:
    """Each image set of the recipe: its role, where its pictures come from, and what their content was."""
    settings = config.data
    places = [("trained on", one.path, one.weight) for one in settings.generated]
    if settings.real is not None:
        places.append((f"trained on, real, {settings.real.shots or 'all'} a class", settings.real.path, 1.0))
    if settings.held_out is not None:
        places.append(("held out", settings.held_out, 1.0))
    if settings.evaluation is not None:
        places.append(("measured on", settings.evaluation, 1.0))
    found = []
    for role, path, weight in places:
        whole = ImageSet.read(path)
        found.append({"role": role, "weight": weight, **describe(whole), "fingerprint": whole.kept().fingerprint})
    return found
