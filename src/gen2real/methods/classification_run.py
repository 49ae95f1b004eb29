"""From recipe to result, for every method that tunes a classifier: load, tune, blend, measure, save."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from accelerate.utils import set_seed
from torch import Tensor

from gen2real.methods.classification_data import ClassificationData
from gen2real.methods.conclusion import conclude
from gen2real.methods.readings import measure
from gen2real.methods.result import Result
from gen2real.methods.settings import ClassificationConfig
from gen2real.models.classifier import TextInitialisedClassifier
from gen2real.models.dual_encoder import DualEncoder
from gen2real.models.weights import interpolate
from gen2real.training.distributed import rank
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport

C = TypeVar("C", bound=ClassificationConfig)


class Tuning(ABC):
    """One method's models and data, ready to be tuned. `encoder` is what a model folder is written from."""

    encoder: DualEncoder
    data: ClassificationData
    frozen_encoder: bool = False

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """θ: a copy of every weight and buffer that the weight-space ensemble covers."""

    @abstractmethod
    def fine_tune(self, folder: RunFolder, *, quiet: bool = False) -> list[FitReport]:
        """Tunes the models in place, resuming where an earlier call was interrupted."""

    @abstractmethod
    def classifier(self, theta: Mapping[str, Tensor]) -> TextInitialisedClassifier:
        """The classifier with weights θ, in evaluation mode; valid until the next call."""


def run(config: C, prepare: Callable[[C], Tuning], *, quiet: bool = False) -> Result | None:
    """Tunes, blends, measures and saves; a finished run is read, an interrupted one goes on where it was.

    Returns: the result; None on the processes other than the first.
    """
    folder = RunFolder(config.output, config, writer=rank() == 0)
    if folder.finished:
        return Result.read(config.output)
    set_seed(config.seed)
    tuning = prepare(config)
    original = tuning.state()
    reports = tuning.fine_tune(folder, quiet=quiet)
    tuned = tuning.state()
    if rank() > 0:
        return None

    def classifier_at(alpha: float) -> TextInitialisedClassifier:
        # θ(α) = (1 − α)·θ_0 + α·θ
        return tuning.classifier(interpolate(original, tuned, alpha))

    readings = measure(
        classifier_at,
        tuning.data,
        config.ensemble,
        frozen_encoder=tuning.frozen_encoder,
        transductive=config.transductive,
        with_gap=config.gap,
    )
    return conclude(
        folder,
        config,
        encoder=tuning.encoder,
        data=tuning.data,
        readings=readings,
        reports=reports,
        saved=classifier_at(readings.saved_alpha) if config.save_model else None,
        changed={name: value for name, value in tuned.items() if not torch.equal(value, original[name])},
    )


def copied_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of its own on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in state.items()}
