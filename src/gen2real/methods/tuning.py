"""Fine-tuning a text-initialised classifier: its head on cached features, or its image encoder on pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gen2real.evaluation.features import FeatureCache, cached_views
from gen2real.methods.classification_data import Batch, ClassificationData, FeatureBatches, PictureBatches
from gen2real.methods.fitting import fit
from gen2real.methods.settings import ClassificationConfig
from gen2real.models.aligned import TwoBranches
from gen2real.models.classifier import TextInitialisedClassifier
from gen2real.models.dual_encoder import DualEncoder
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport, StepFunction


def training_features(
    vision: nn.Module, data: ClassificationData, *, seed: int, cache: FeatureCache | None = None
) -> list[Tensor]:
    """[V N D] for each source: its pictures' features under a frozen encoder, from the cache where they are known.

    The augmented views do not depend on the run's seed, so that every arm and seed shares them.
    """
    cache = cache or FeatureCache()
    return [
        cached_views(source.tower(vision), source.pictures, views=data.settings.views, seed=seed, cache=cache)
        for source in data.sources
    ]


def feature_mean(encoder: DualEncoder, data: ClassificationData, centering: Literal["none", "generated"]) -> Tensor:
    """[D]: the mean of the training pictures' features under `centering: generated`, else zeros."""
    if centering == "none":
        return torch.zeros(encoder.embedding_dim)
    return torch.cat([views[0] for views in training_features(encoder.vision, data, seed=0)]).mean(dim=0)


def fit_head(
    classifier: TextInitialisedClassifier,
    data: ClassificationData,
    step: StepFunction[Batch],
    folder: RunFolder,
    config: ClassificationConfig,
    *,
    stage: str = "head",
    quiet: bool = False,
) -> FitReport:
    """Trains head and bias on features of the frozen encoder, encoded once."""
    features = training_features(classifier.vision, data, seed=0)
    head = TextInitialisedClassifier(
        nn.Identity(),
        classifier.head.weight.detach(),
        classifier.head.bias.detach(),
        feature_mean=classifier.feature_mean,
    )
    labels = [one.labels for one in data.sources]
    sampler = data.sampler(config.training.batch_size, config.seed)
    batches = FeatureBatches(features, labels, sampler, seed=config.seed, parts=config.training.accumulation)
    rates = {"head": (head, config.optimizer.head_lr or config.optimizer.lr)}
    steps = config.training.total_steps(sampler.steps_per_epoch)
    report = fit({"classifier": head}, rates, batches, steps, step, folder, config, stage=stage, quiet=quiet)
    with torch.no_grad():
        classifier.head.weight.copy_(head.head.weight)
        classifier.head.bias.copy_(head.head.bias)
    return report


def fit_encoder(
    models: Mapping[str, nn.Module],
    rates: Mapping[str, tuple[nn.Module, float]],
    data: ClassificationData,
    step: StepFunction[Batch],
    folder: RunFolder,
    config: ClassificationConfig,
    *,
    stage: str = "encoder",
    quiet: bool = False,
) -> FitReport:
    """Trains on augmented pictures whatever requires a gradient in `models`; `rates` gives parts learning rates."""
    training = config.training
    for model in models.values():
        training_mode(model, freeze_batch_norm=config.freeze_batch_norm)
    sampler = data.sampler(training.batch_size, config.seed)
    batches = PictureBatches(
        data, sampler, seed=config.seed, parts=training.accumulation, workers=training.loader_workers
    )
    steps = training.total_steps(sampler.steps_per_epoch)
    report = fit(models, rates, batches, steps, step, folder, config, stage=stage, quiet=quiet)
    for model in models.values():
        model.eval()
    return report


@contextmanager
def two_branches(owner: nn.Module, shift: Mapping[str, Tensor]) -> Iterator[None]:
    """While it lasts, `owner.vision` sees generated pictures with weights W + ΔW and real ones with W (`TwoBranches`).

    Afterwards it is the tower alone again, whatever has become of W. Without a shift nothing is changed.
    """
    if not shift:
        yield
        return
    tower: Any = owner.vision
    owner.vision = TwoBranches(tower, shift)
    try:
        yield
    finally:
        owner.vision = tower


def training_mode(model: nn.Module, *, freeze_batch_norm: bool) -> None:
    """`model.train()`, with batch-norm statistics kept as they are where asked."""
    model.train()
    if freeze_batch_norm:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
