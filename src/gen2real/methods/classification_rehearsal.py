"""A classification run's part in `gen2real train --dry-run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gen2real.evaluation.features import encode_pictures
from gen2real.imagesets import ImageSet
from gen2real.methods.classification_data import ClassificationData
from gen2real.methods.classification_run import Tuning
from gen2real.methods.rehearsal import Counts, Rehearsal, part_of, short_training
from gen2real.methods.settings import ClassificationConfig, RegFTConfig

C = TypeVar("C", bound=ClassificationConfig)


def rehearse(config: C, folder: Path, updates: int, prepare: Callable[[C], Tuning]) -> Rehearsal:
    """The recipe for a few updates on a part of each generated set.

    Of the evaluation set, class names and picture hashes are looked at and rows are counted; it is not measured on.
    """
    short = _shortened(config, folder, updates)
    tuning = prepare(short)

    def encode() -> int:
        part = tuning.data.sources[0].pictures
        encode_pictures(tuning.encoder.vision, part)
        return len(part)

    def counts() -> Counts:
        data = ClassificationData(config.data, tuning.encoder.preprocess, seed=config.seed)
        per_epoch = data.sampler(config.training.batch_size, config.seed).steps_per_epoch
        model = sum(value.nbytes for value in tuning.encoder.state_dict().values()) if config.save_model else 0
        return Counts(
            pictures=sum(len(one.pictures) for one in data.sources),
            held_out=sum(len(one.pictures) for one in data.held_out),
            updates=config.training.total_steps(per_epoch),
            encoded=_encoded(config, data, frozen=tuning.frozen_encoder),
            model_bytes=model,
        )

    return Rehearsal(short, encode, lambda run_folder: tuning.fine_tune(run_folder, quiet=True), counts)


def _shortened(config: C, folder: Path, updates: int) -> C:
    sources = tuple(
        source.model_copy(update={"path": part_of(source.path, folder / f"part-{place}")})
        for place, source in enumerate(config.data.generated)
    )
    changes: dict[str, Any] = {
        "output": folder / "run",
        "data": config.data.model_copy(update={"generated": sources}),
        "training": short_training(config.training, updates),
    }
    if isinstance(config, RegFTConfig) and config.head_first is not None:
        changes["head_first"] = config.head_first.model_copy(update={"epochs": 1})
    return config.model_copy(update=changes)


def _encoded(config: ClassificationConfig, data: ClassificationData, *, frozen: bool) -> int:
    """How many times a picture is encoded outside of updates; features that are cached already are counted too."""
    pictures = sum(len(one.pictures) for one in data.sources)
    cached = frozen or config.centering == "generated"
    if isinstance(config, RegFTConfig):
        cached |= config.head_first is not None or config.loss.target_std == "zero_shot"
    measured = sum(len(one.pictures) for one in data.measured_on[0])
    if config.data.evaluation is not None:
        measured += len(ImageSet.read(config.data.evaluation).kept())
    alphas = 1 if frozen else len({0.0, 1.0, config.ensemble.alpha, *config.ensemble.sweep})
    return cached * pictures * config.data.views + alphas * measured
