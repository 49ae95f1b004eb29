"""FLYP: fine-tune like you pretrain. Both encoders learn by CLIP's own contrastive loss on pictures and class prompts.

Goyal et al., "Finetune like you pretrain: Improved finetuning of zero-shot vision models", arXiv 2212.00638:

    for each batch (x, y): t ← prompt(y),  L = image_text_contrastive(f(x), g(t), exp(s))
    W ← text head of the tuned text encoder, b = 0

Two pictures of one class count as each other's negatives in the paper; `same_class_positives` makes them positives.
The weight-space ensemble runs over both encoders, and the head is derived anew from each blend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from gen2real.losses import image_text_contrastive
from gen2real.methods import classification_rehearsal, classification_run
from gen2real.methods.classification_data import Batch, ClassificationData
from gen2real.methods.classification_run import Tuning, copied_state
from gen2real.methods.rehearsal import Rehearsal
from gen2real.methods.result import Result
from gen2real.methods.settings import FLYPConfig
from gen2real.methods.start import start_of
from gen2real.methods.tuning import feature_mean, fit_encoder, two_branches
from gen2real.models.classifier import TextInitialisedClassifier, text_head
from gen2real.models.dual_encoder import DualEncoder
from gen2real.prompts import prompts_for
from gen2real.training.distributed import gather
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport


class _Pairs(nn.Module):
    """Both towers behind one `forward`, so that a distributed wrapper sees every parameter's use."""

    def __init__(self, encoder: DualEncoder, mean: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", mean, persistent=False)
        self.mean: Tensor

    def forward(
        self, pixels: Tensor, texts: Sequence[str], generated: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        # A process without rows runs both towers all the same, or the others would wait for its gradients.
        encoder = self.encoder
        features = encoder.encode_image(pixels) if generated is None else encoder.vision(pixels, generated)
        image = features[: len(texts)] - self.mean
        text = self.encoder.encode_text(list(texts) or [""])[: len(texts)]
        return image, text, self.encoder.logit_scale.exp()


def run(config: FLYPConfig, *, quiet: bool = False) -> Result | None:
    """Tunes, blends, measures and saves, as `regft.run` does.

    Returns: the result; None on the processes other than the first.
    """
    return classification_run.run(config, prepare, quiet=quiet)


def prepare(config: FLYPConfig) -> FLYP:
    """Everything up to the first update: encoder, pictures, prompts."""
    encoder, shift = start_of(config.encoder)
    if config.training.gradient_checkpointing:
        encoder.gradient_checkpointing()
    return FLYP(config, encoder, ClassificationData(config.data, encoder.preprocess, seed=config.seed, shift=shift))


def rehearse(config: FLYPConfig, folder: Path, updates: int) -> Rehearsal:
    """A few updates in a temporary folder, for an estimate of the whole run."""
    return classification_rehearsal.rehearse(config, folder, updates, prepare)


class FLYP(Tuning):
    """Both encoders; the head is no weight here but follows from the text encoder."""

    def __init__(self, config: FLYPConfig, encoder: DualEncoder, data: ClassificationData) -> None:
        self._config, self.encoder, self.data = config, encoder, data
        self._prompts = prompts_for(data.class_names, templates=config.prompts.templates, file=config.prompts.file)
        self._pairs = _Pairs(encoder, feature_mean(encoder, data, config.centering))
        encoder.logit_scale.requires_grad_(config.tune_logit_scale)
        if (logit_bias := getattr(encoder, "logit_bias", None)) is not None:
            logit_bias.requires_grad_(False)  # SigLIP's, which a softmax over the batch does not see

    def state(self) -> dict[str, Tensor]:
        """θ: both encoders and the logit scale."""
        return copied_state(self.encoder.state_dict())

    def classifier(self, theta: Mapping[str, Tensor]) -> TextInitialisedClassifier:
        """The tuned image encoder under the tuned text encoder's zero-shot head."""
        self.encoder.load_state_dict(theta)
        self.encoder.eval()
        head = text_head(self.encoder, self._prompts)
        return TextInitialisedClassifier(self.encoder.vision, head, feature_mean=self._pairs.mean).eval()

    def fine_tune(self, folder: RunFolder, *, quiet: bool = False) -> list[FitReport]:
        """Contrastive training of both encoders."""
        config = self._config
        loss = ContrastiveLoss(config, self.data, self._prompts)
        rates = {"pairs": (self._pairs, config.optimizer.lr)}
        models = {"pairs": self._pairs}
        with two_branches(self.encoder, self.data.shift):
            return [fit_encoder(models, rates, self.data, loss, folder, config, stage="both-encoders", quiet=quiet)]


class ContrastiveLoss:
    """One batch's contrastive loss; each picture's prompt is drawn anew from its class's."""

    def __init__(self, config: FLYPConfig, data: ClassificationData, prompts: Sequence[Sequence[str]]) -> None:
        self._preprocess, self._prompts = data.preprocess, prompts
        self._positives = config.same_class_positives

    def __call__(self, models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        model = models["pairs"]
        pixels, labels, generated = batch.on(next(model.parameters()).device, self._preprocess)
        of_class = [self._prompts[label] for label in labels.tolist()]
        texts = [prompts[draw % len(prompts)] for prompts, draw in zip(of_class, batch.draws.tolist(), strict=True)]
        image, text, scale = model(pixels, texts, generated)
        groups = gather(labels) if self._positives else None
        return {"loss": image_text_contrastive(gather(image), gather(text), scale, groups=groups)}
