"""One batch of an alignment: f_g and h behind one `forward`, and the terms of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gen2real.imagesets.transforms import Preprocess
from gen2real.losses import (
    distribution_alignment,
    from_principal_components,
    image_text_contrastive,
    modality_alignment,
)
from gen2real.methods.gmail.data import AlignmentBatch
from gen2real.methods.gmail.settings import GMAILConfig
from gen2real.models.dual_encoder import DualEncoder
from gen2real.training.distributed import gather


class Branches(nn.Module):
    """Whatever is trained, so that a distributed wrapper sees every parameter's use.

    Args:
        generated: f_g. encoder: with the text tower h where it is tuned, else None. projection: of real pictures.
    """

    def __init__(self, generated: nn.Module, encoder: DualEncoder | None, projection: nn.Linear | None) -> None:
        super().__init__()
        self.generated, self.encoder, self.projection = generated, encoder, projection

    def forward(self, pixels: Tensor, texts: Sequence[Sequence[str]], real: Tensor | None) -> dict[str, Tensor]:
        """Embeddings of pictures by f_g, of each list of texts by h, and of real pictures by the projection."""
        found = {"image": self.generated(pixels)}
        if self.encoder is not None:
            for place, listed in enumerate(texts):
                found[f"text{place}"] = self._read(self.encoder, listed)
        if self.projection is not None and real is not None:
            found["projected"] = self.projection(real)
        return found

    @staticmethod
    def _read(encoder: DualEncoder, texts: Sequence[str]) -> Tensor:
        # A process without rows runs the tower all the same, or the others would wait for its gradients.
        distinct = list(dict.fromkeys(texts)) or [""]
        place = {text: number for number, text in enumerate(distinct)}
        features = encoder.encode_text(distinct)
        return features[torch.tensor([place[text] for text in texts], dtype=torch.long, device=features.device)]


class AlignmentLoss:
    """Named terms of one batch.

    Args:
        targets: [R D], f_r's features of the real pictures, encoded once; None without real pictures.
        texts: [(text by number)], then the same for first sentences where there is a coarse term.
        text_features: for each of these lists [T D], encoded once; None where the text tower is tuned.
        scale: exp(logit_scale) of the encoder.
    """

    def __init__(
        self,
        config: GMAILConfig,
        preprocess: Preprocess,
        *,
        targets: Tensor | None,
        texts: Sequence[Sequence[str]],
        text_features: Sequence[Tensor] | None,
        scale: float,
    ) -> None:
        self._config, self._preprocess = config, preprocess
        self._targets, self._texts, self._text_features, self._scale = targets, texts, text_features, scale

    def __call__(self, models: Mapping[str, nn.Module], batch: AlignmentBatch) -> dict[str, Tensor]:
        config, model = self._config, models["branches"]
        device = next(model.parameters()).device
        pixels = self._preprocess.normalize(batch.pixels.to(device, non_blocking=True))
        tuned = self._text_features is None
        own_texts = [[listed[number] for number in batch.texts.tolist()] for listed in self._texts] if tuned else []
        own_real = None
        if config.real_projection:
            assert self._targets is not None
            held = batch.partners if len(batch.partners) else torch.zeros(1, dtype=torch.long)
            own_real = self._targets[held].to(device, non_blocking=True)
        own = {name: rows[: len(batch.partners)] for name, rows in model(pixels, own_texts, own_real).items()}

        image, partners = gather(own["image"]), gather(batch.partners.to(device))
        real = None if self._targets is None else self._targets[partners.to(self._targets.device)].to(device)
        texts = self._text_rows(own, batch, device)
        groups = partners if config.align.same_partner == "positives" else None
        terms: dict[str, Tensor] = {}
        loss = image.new_zeros((), dtype=torch.float32)
        if config.aligns != "nothing":
            assert real is not None
            terms["align"] = self._align(image, real, partners)
            loss = loss + config.align.weight * terms["align"]
            if config.aligns == "pairs" and config.align.moments > 0:
                # Softmax over real pictures is blind to their mean: a tower that leaves it gains room for what differs.
                terms["moments"] = distribution_alignment(image, real, form="moments")
                loss = loss + config.align.moments * terms["moments"]
        if config.has_text_term:
            # L_text: f_g's pictures and their texts
            terms["text"] = image_text_contrastive(image, texts[0], self._scale, groups=groups)
            loss = loss + config.text.weight * terms["text"]
            if (long := config.text.long) is not None and long.coarse_weight > 0:
                unit = nn.functional.normalize(image.float(), dim=-1)
                coarse = from_principal_components(unit, long.components)
                terms["coarse_text"] = image_text_contrastive(coarse, texts[1], self._scale, groups=groups)
                loss = loss + config.text.weight * long.coarse_weight * terms["coarse_text"]
        if config.real_projection:
            # The same term for real pictures, which costs a matrix product: f_r's features are known.
            projected = gather(own["projected"])
            terms["real_text"] = image_text_contrastive(projected, texts[0], self._scale, groups=groups)
            loss = loss + config.text.weight * terms["real_text"]
        return {"loss": loss, **terms}

    def _align(self, image: Tensor, real: Tensor, partners: Tensor) -> Tensor:
        settings = self._config.align
        if self._config.aligns == "distributions":
            return distribution_alignment(image, real, form=settings.form)
        if settings.same_partner == "literal":
            return modality_alignment(image, real, settings.temperature, symmetric=settings.symmetric)
        return modality_alignment(
            image,
            real,
            settings.temperature,
            symmetric=settings.symmetric,
            groups=partners,
            same_partner=settings.same_partner,
        )

    def _text_rows(self, own: Mapping[str, Tensor], batch: AlignmentBatch, device: torch.device) -> list[Tensor]:
        if self._text_features is None:
            return [gather(own[f"text{place}"]) for place in range(len(self._texts))]
        if not self._config.reads_texts:
            return []
        numbers = gather(batch.texts.to(device))
        return [features[numbers.to(features.device)].to(device) for features in self._text_features]
