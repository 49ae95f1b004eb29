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
from typing import Literal

import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from pydantic import Field, model_validator
from torch import Tensor, nn

from gen2real.config import Config
from gen2real.losses import soft_target_cross_entropy, variance_covariance
from gen2real.methods.classification_data import Batch, ClassificationData
from gen2real.methods.conclusion import conclude
from gen2real.methods.readings import measure
from gen2real.methods.result import Result
from gen2real.methods.settings import ClassificationConfig, PromptSettings
from gen2real.methods.tuning import feature_mean, fit_encoder, fit_head, training_features
from gen2real.models.adapters import add_lora, merge_lora
from gen2real.models.classifier import TextInitialisedClassifier, text_head
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder
from gen2real.models.weights import interpolate
from gen2real.prompts import prompts_for
from gen2real.training.distributed import gather, rank
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport


class LossSettings(Config):
    """L = (1−λ)·CE + λ·soft + a·V + b·K. The defaults of a and b are the authors' for ImageNet and ViT-B/16."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    variance: float = Field(0.16, ge=0, description="a")
    covariance: float = Field(0.02, ge=0, description="b")
    normalizer: Literal["pairs", "dim"] = Field("pairs", description="pairs: the authors' code; dim: VICReg")
    target_std: float | Literal["zero_shot"] = Field(
        1.0, description="zero_shot (ours): the mean standard deviation of the original encoder's features"
    )
    regularised: Literal["raw", "normalized"] = Field("raw", description="which features V and K see")
    soft_targets: float = Field(0.0, ge=0, le=1, description="λ; He et al. have 0.5, with the head alone trained")
    temperature: float = Field(2.0, gt=0)


class LoraSettings(Config):
    """Low-rank adapters on the image encoder's linear layers; they are merged before anything is measured or saved."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] | None = None


class HeadFirst(Config):
    """LP-FT (Kumar et al. 2022): the head alone on frozen features, before the encoder is touched."""

    lr: float = Field(1e-3, gt=0)
    epochs: float = Field(10, gt=0)


class RegFTConfig(ClassificationConfig):
    """A RegFT run. See the module for what each part does."""

    method: Literal["regft"] = "regft"
    tune: Literal["encoder", "lora", "head"] = "encoder"
    lora: LoraSettings = LoraSettings()
    head_first: HeadFirst | None = None
    loss: LossSettings = LossSettings()

    @model_validator(mode="after")
    def _settings_that_agree(self) -> RegFTConfig:
        if self.tune == "head" and self.head_first is not None:
            raise ValueError(
                "head_first trains the head before the encoder; with tune: head there is no encoder to follow"
            )
        if self.tune == "head" and self.loss.variance + self.loss.covariance > 0:
            raise ValueError(
                "with tune: head the features never change, so variance and covariance have no gradient; "
                "set loss.variance=0 and loss.covariance=0, or tune: encoder"
            )
        if self.tune != "head" and self.data.views > 1:
            raise ValueError("data.views belongs to tune: head; an encoder in training sees a new view every time")
        return self


def run(config: RegFTConfig, *, quiet: bool = False) -> Result | None:
    """Trains, blends, measures and saves; a finished run is read, an interrupted one goes on where it was.

    Returns: the result; None on the processes other than the first.

    Raises: what loading, training and the image sets raise; see `gen2real.errors`.
    """
    folder = RunFolder(config.output, config, writer=rank() == 0)
    if folder.finished:
        return Result.read(config.output)
    set_seed(config.seed)
    encoder = load_dual_encoder(config.encoder.name, revision=config.encoder.revision)
    data = ClassificationData(config.data, encoder.preprocess, seed=config.seed)

    classifier = zero_shot_classifier(encoder, data, config.prompts, centering=config.centering)
    original = _state(classifier)
    reports = fine_tune(classifier, data, config, folder, quiet=quiet)
    tuned = _state(classifier)
    if rank() > 0:
        return None

    def classifier_at(alpha: float) -> TextInitialisedClassifier:
        # θ(α) = (1 − α)·θ_0 + α·θ
        classifier.load_state_dict(interpolate(original, tuned, alpha))
        return classifier.eval()

    readings = measure(
        classifier_at,
        data,
        config.ensemble,
        frozen_encoder=config.tune == "head",
        transductive=config.transductive,
        with_gap=config.gap,
    )
    return conclude(
        folder,
        config,
        encoder=encoder,
        data=data,
        readings=readings,
        reports=reports,
        saved=classifier_at(readings.saved_alpha) if config.save_model else None,
        changed={name: value for name, value in tuned.items() if not torch.equal(value, original[name])},
    )


def zero_shot_classifier(
    encoder: DualEncoder, data: ClassificationData, prompts: PromptSettings, *, centering: Literal["none", "generated"]
) -> TextInitialisedClassifier:
    """The classifier θ_0: the image encoder with W_c = exp(s)·t_c and b = 0."""
    weight = text_head(encoder, prompts_for(data.class_names, templates=prompts.templates, file=prompts.file))
    mean = feature_mean(encoder, data, centering)
    return TextInitialisedClassifier(copy.deepcopy(encoder.vision), weight, feature_mean=mean)


def fine_tune(
    classifier: TextInitialisedClassifier,
    data: ClassificationData,
    config: RegFTConfig,
    folder: RunFolder,
    *,
    quiet: bool,
) -> list[FitReport]:
    """Step 3 of the algorithm, on the classifier in place."""
    loss = RegFTLoss(config.loss, classifier, data, frozen_encoder=config.tune == "head")
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
    reports.append(fit_encoder({"classifier": classifier}, rates, data, loss, folder, config, quiet=quiet))
    if config.tune == "lora":
        classifier.vision = merge_lora(classifier.vision)
    return reports


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
            self._teacher = TextInitialisedClassifier(
                vision, classifier.head.weight, classifier.head.bias, feature_mean=classifier.feature_mean
            ).requires_grad_(False)
        self._target_std = settings.target_std
        if settings.target_std == "zero_shot" and settings.variance > 0:
            features = torch.cat([views[0] for views in training_features(classifier.vision, data, seed=0)])
            self._target_std = float(self._regularised(features).std(dim=0).mean())

    def __call__(self, models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        settings, model = self._settings, models["classifier"]
        inputs, labels = batch.on(next(model.parameters()).device, self._preprocess)
        own_logits, own_features = model(inputs)
        logits, features, labels = gather(own_logits), gather(own_features), gather(labels)

        # L = (1 − λ)·CE + λ·soft + a·V + b·K
        cross_entropy = F.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
        terms = {"cross_entropy": cross_entropy}
        loss = (1 - settings.soft_targets) * cross_entropy
        if self._teacher is not None:
            with torch.no_grad():
                answers, _ = self._teacher.to(inputs.device).eval()(inputs)
            terms["soft_targets"] = soft_target_cross_entropy(logits, gather(answers), temperature=settings.temperature)
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


def _state(classifier: TextInitialisedClassifier) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in classifier.state_dict().items()}
