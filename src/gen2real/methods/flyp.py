"""FLYP: fine-tune like you pretrain. Both encoders learn by CLIP's own contrastive loss on pictures and class prompts.

Goyal et al., "Finetune like you pretrain: Improved finetuning of zero-shot vision models", arXiv 2212.00638:

    for each batch (x, y): t ← prompt(y),  L = image_text_contrastive(f(x), g(t), exp(s))
    W ← text head of the tuned text encoder, b = 0

Two pictures of one class count as each other's negatives in the paper; `same_class_positives` makes them positives.
The weight-space ensemble runs over both encoders, and the head is derived anew from each blend.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from gen2real.losses import image_text_contrastive
from gen2real.methods.classification_data import Batch, ClassificationData
from gen2real.methods.conclusion import conclude
from gen2real.methods.readings import measure
from gen2real.methods.result import Result
from gen2real.methods.settings import ClassificationConfig
from gen2real.methods.tuning import feature_mean, fit_encoder
from gen2real.models.classifier import TextInitialisedClassifier, text_head
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder
from gen2real.models.weights import interpolate
from gen2real.prompts import prompts_for
from gen2real.training.distributed import gather, rank
from gen2real.training.run_folder import RunFolder
from gen2real.training.settings import OptimizerSettings


class FLYPConfig(ClassificationConfig):
    """A FLYP run. The optimiser's defaults are the paper's for ImageNet: learning rate 1e-5, weight decay 0.1."""

    method: Literal["flyp"] = "flyp"
    same_class_positives: bool = False
    tune_logit_scale: bool = True
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-5)


class _Pairs(nn.Module):
    """Both towers behind one `forward`, so that a distributed wrapper sees every parameter's use."""

    def __init__(self, encoder: DualEncoder, mean: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", mean, persistent=False)
        self.mean: Tensor

    def forward(self, pixels: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        image = self.encoder.encode_image(pixels) - self.mean
        return image, self.encoder.encode_text(list(texts)), self.encoder.logit_scale.exp()


def run(config: FLYPConfig, *, quiet: bool = False) -> Result | None:
    """Trains, blends, measures and saves, as `regft.run` does.

    Returns: the result; None on the processes other than the first.
    """
    folder = RunFolder(config.output, config, writer=rank() == 0)
    if folder.finished:
        return Result.read(config.output)
    set_seed(config.seed)
    encoder = load_dual_encoder(config.encoder.name, revision=config.encoder.revision)
    data = ClassificationData(config.data, encoder.preprocess, seed=config.seed)
    prompts = prompts_for(data.class_names, templates=config.prompts.templates, file=config.prompts.file)
    mean = feature_mean(encoder, data, config.centering)

    pairs = _Pairs(copy.deepcopy(encoder), mean)
    pairs.encoder.logit_scale.requires_grad_(config.tune_logit_scale)
    original = _state(pairs.encoder)
    report = fit_encoder(
        {"pairs": pairs},
        {"pairs": (pairs, config.optimizer.lr)},
        data,
        ContrastiveLoss(config, data, prompts),
        folder,
        config,
        stage="both-encoders",
        quiet=quiet,
    )
    tuned = _state(pairs.encoder)
    if rank() > 0:
        return None

    def classifier_at(alpha: float) -> TextInitialisedClassifier:
        pairs.encoder.load_state_dict(interpolate(original, tuned, alpha))
        pairs.encoder.eval()
        return TextInitialisedClassifier(
            pairs.encoder.vision, text_head(pairs.encoder, prompts), feature_mean=mean
        ).eval()

    readings = measure(
        classifier_at,
        data,
        config.ensemble,
        frozen_encoder=False,
        transductive=config.transductive,
        with_gap=config.gap,
    )
    saved = classifier_at(readings.saved_alpha) if config.save_model else None
    return conclude(
        folder,
        config,
        encoder=pairs.encoder,
        data=data,
        readings=readings,
        reports=[report],
        saved=saved,
        changed={name: value for name, value in tuned.items() if not torch.equal(value, original[name])},
    )


class ContrastiveLoss:
    """One batch's contrastive loss; each picture's prompt is drawn anew from its class's."""

    def __init__(self, config: FLYPConfig, data: ClassificationData, prompts: Sequence[Sequence[str]]) -> None:
        self._preprocess, self._prompts = data.preprocess, prompts
        self._positives = config.same_class_positives

    def __call__(self, models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        model = models["pairs"]
        pixels, labels = batch.on(next(model.parameters()).device, self._preprocess)
        of_class = [self._prompts[label] for label in labels.tolist()]
        texts = [prompts[draw % len(prompts)] for prompts, draw in zip(of_class, batch.draws.tolist(), strict=True)]
        image, text, scale = model(pixels, texts)
        groups = gather(labels) if self._positives else None
        return {"loss": image_text_contrastive(gather(image), gather(text), scale, groups=groups)}


def _state(encoder: DualEncoder) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in encoder.state_dict().items()}
