"""RegFT: name-only transfer by regularised fine-tuning on generated pictures.

Park, Park, Yun, Choo: "Regularized Training with Generated Datasets for Name-Only Transfer of Vision-Language Models",
arXiv 2406.05432. The paper's algorithm, as its authors' code has it:

    1  W_c ← exp(s) · normalise(mean over prompts of normalise(text(prompt))),  b ← 0        zero-shot head
    2  θ_0 ← (image encoder, W, b)
    3  for each batch (x, y) of generated pictures:
           Z ← f_θ(x),  logits ← W · Z/‖Z‖ + b
           L ← CE(logits, y) + a·V(Z) + b·K(Z)                                                variance–covariance
           θ ← AdamW(θ, ∇L)
    4  θ(α) ← (1 − α)·θ_0 + α·θ                                                              weight-space ensemble

`faithful.yaml` is the authors' code to the letter; `regft.yaml` is our default. Linear probing, LP-FT, plain
fine-tuning, soft targets (He et al.) and VICReg's normaliser are settings of this same loop.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen2real.evaluation.features import FeatureCache
from gen2real.files import digest
from gen2real.losses import soft_target_cross_entropy, variance_covariance
from gen2real.methods import classification_rehearsal, classification_run
from gen2real.methods.classification_data import Batch, ClassificationData
from gen2real.methods.classification_run import Tuning, copied_state
from gen2real.methods.rehearsal import Rehearsal
from gen2real.methods.result import Result
from gen2real.methods.settings import LossSettings, PromptSettings, RegFTConfig
from gen2real.methods.start import start_of
from gen2real.methods.tuning import feature_mean, fit_encoder, fit_head, training_features, two_branches
from gen2real.models.adapters import add_lora, merge_lora
from gen2real.models.aligned import TwoBranches
from gen2real.models.classifier import TextInitialisedClassifier, text_head
from gen2real.models.dual_encoder import DualEncoder
from gen2real.prompts import prompts_for
from gen2real.training.distributed import gather
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport


def run(config: RegFTConfig, *, quiet: bool = False) -> Result | None:
    """Tunes, blends, measures and saves; a finished run is read, an interrupted one goes on where it was.

    Returns: the result; None on the processes other than the first.

    Raises: what loading, training and the image sets raise; see `gen2real.errors`.
    """
    return classification_run.run(config, prepare, quiet=quiet)


def prepare(config: RegFTConfig) -> RegFT:
    """Everything up to the first update: encoder, pictures, zero-shot head."""
    encoder, shift = start_of(config.encoder)
    if config.training.gradient_checkpointing:
        encoder.gradient_checkpointing()
    return RegFT(config, encoder, ClassificationData(config.data, encoder.preprocess, seed=config.seed, shift=shift))


def rehearse(config: RegFTConfig, folder: Path, updates: int) -> Rehearsal:
    """A few updates in a temporary folder, for an estimate of the whole run."""
    return classification_rehearsal.rehearse(config, folder, updates, prepare)


class RegFT(Tuning):
    """Steps 1 to 4 of the algorithm; the rest of a run is `classification_run`."""

    def __init__(self, config: RegFTConfig, encoder: DualEncoder, data: ClassificationData) -> None:
        self._config, self.encoder, self.data = config, encoder, data
        self.frozen_encoder = config.tune == "head"
        self._classifier = zero_shot_classifier(encoder, data, config.prompts, centering=config.centering)

    def state(self) -> dict[str, Tensor]:
        """θ: image encoder, W, b and the mean that is subtracted."""
        return copied_state(self._classifier.state_dict())

    def classifier(self, theta: Mapping[str, Tensor]) -> TextInitialisedClassifier:
        """The classifier with weights θ."""
        self._classifier.load_state_dict(theta)
        return self._classifier.eval()

    def fine_tune(self, folder: RunFolder, *, quiet: bool = False) -> list[FitReport]:
        """Step 3: the head on cached features, or encoder and head on pictures, or first one and then the other."""
        config, classifier, data = self._config, self._classifier, self.data
        loss = RegFTLoss(config.loss, classifier, data, frozen_encoder=self.frozen_encoder)
        if config.tune == "head":
            return [fit_head(classifier, data, loss, folder, config, quiet=quiet)]
        reports = []
        if config.head_first is not None:
            plain = RegFTLoss(LossSettings(variance=0, covariance=0), classifier, data, frozen_encoder=True)
            first = config.model_copy(
                update={
                    "optimizer": config.optimizer.model_copy(update={"head_lr": config.head_first.lr}),
                    "training": config.training.model_copy(update={"epochs": config.head_first.epochs, "steps": None}),
                }
            )
            reports.append(fit_head(classifier, data, plain, folder, first, quiet=quiet))
        if config.tune == "lora":
            lora = config.lora
            classifier.vision = add_lora(
                classifier.vision, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets
            )
        rates = {
            "head": (classifier.head, config.optimizer.head_lr or config.optimizer.lr),
            "vision": (classifier.vision, config.optimizer.lr),
        }
        with two_branches(classifier, data.shift):
            reports.append(fit_encoder({"classifier": classifier}, rates, data, loss, folder, config, quiet=quiet))
        if config.tune == "lora":
            classifier.vision = merge_lora(classifier.vision)
        return reports


def zero_shot_classifier(
    encoder: DualEncoder, data: ClassificationData, prompts: PromptSettings, *, centering: Literal["none", "generated"]
) -> TextInitialisedClassifier:
    """Step 1, the classifier θ_0: a copy of the image encoder with W_c = exp(s)·t_c and b = 0."""
    texts = prompts_for(data.class_names, templates=prompts.templates, file=prompts.file)
    # Every arm and seed starts from the same head, so it is derived once for each encoder and list of prompts.
    weight = FeatureCache().get(digest(encoder.fingerprint(), texts), lambda: text_head(encoder, texts))
    mean = feature_mean(encoder, data, centering)
    return TextInitialisedClassifier(copy.deepcopy(encoder.vision), weight, feature_mean=mean)


class RegFTLoss:
    """One batch's terms. Features come out of `forward`, so V and K see the whole batch on any number of processes."""

    def __init__(
        self,
        settings: LossSettings,
        classifier: TextInitialisedClassifier,
        data: ClassificationData,
        *,
        frozen_encoder: bool,
    ) -> None:
        self._settings, self._preprocess = settings, data.preprocess
        self._teacher: TextInitialisedClassifier | None = None
        if settings.soft_targets > 0:
            vision = nn.Identity() if frozen_encoder else copy.deepcopy(classifier.vision)
            if data.shift and not frozen_encoder:
                vision = TwoBranches(vision, data.shift)
            self._teacher = TextInitialisedClassifier(
                vision, classifier.head.weight, classifier.head.bias, feature_mean=classifier.feature_mean
            ).requires_grad_(False)
        self._target_std = settings.target_std
        if settings.target_std == "zero_shot" and settings.variance > 0:
            features = torch.cat([views[0] for views in training_features(classifier.vision, data, seed=0)])
            self._target_std = float(self._regularised(features).std(dim=0).mean())

    def __call__(self, models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        settings, model = self._settings, models["classifier"]
        inputs, labels, generated = batch.on(next(model.parameters()).device, self._preprocess)
        own_logits, own_features = (output[: len(labels)] for output in model(inputs, generated))
        logits, features, labels = gather(own_logits), gather(own_features), gather(labels)

        # L = (1 − λ)·CE + λ·soft + a·V + b·K
        cross_entropy = F.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
        terms = {"cross_entropy": cross_entropy}
        loss = (1 - settings.soft_targets) * cross_entropy
        if self._teacher is not None:
            with torch.no_grad():
                own_answers, _ = self._teacher.to(inputs.device).eval()(inputs, generated)
            answers = gather(own_answers[: len(own_logits)])
            terms["soft_targets"] = soft_target_cross_entropy(logits, answers, temperature=settings.temperature)
            loss = loss + settings.soft_targets * terms["soft_targets"]
        if settings.variance + settings.covariance > 0:
            assert not isinstance(self._target_std, str)
            spread = variance_covariance(
                self._regularised(features), target_std=self._target_std, normalizer=settings.normalizer
            )
            loss = loss + settings.variance * spread.variance + settings.covariance * spread.covariance
            terms |= {"variance": spread.variance, "covariance": spread.covariance}
        return {"loss": loss, **terms}

    def _regularised(self, features: Tensor) -> Tensor:
        return F.normalize(features.float(), dim=-1) if self._settings.regularised == "normalized" else features
