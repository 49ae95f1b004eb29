"""Real pictures that an encoder is measured on: their captions make retrieval, their labels zero-shot top-1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gen2real.evaluation.classification import classification_metrics
from gen2real.evaluation.features import FeatureCache, cached_views, encode_pictures
from gen2real.evaluation.retrieval import caption_positives, picture_values, retrieval_metrics
from gen2real.imagesets.loading import Pictures
from gen2real.methods.measured import Reading
from gen2real.methods.settings import PromptSettings
from gen2real.models.classifier import TextInitialisedClassifier, text_head
from gen2real.models.dual_encoder import DualEncoder
from gen2real.prompts import prompts_for


class RealPictures:
    """The pictures to measure on, encoded once for each tower.

    Captions make retrieval, labels zero-shot top-1. `longest`: each picture's longest caption is measured by itself, as
    `long_…`, and the others as they are. `retrieval`: False leaves the captions alone.
    """

    def __init__(
        self, pictures: Pictures, prompts: PromptSettings, *, longest: bool = False, retrieval: bool = True
    ) -> None:
        self.pictures, self._prompts, self._longest, self._retrieves = pictures, prompts, longest, retrieval
        self.labels = torch.from_numpy(pictures.image_set.labels)
        self.class_names = pictures.image_set.class_names

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, encoder: DualEncoder, vision: nn.Module, meaning: str, *, cached: bool) -> Reading:
        """One reading: every measure that the pictures' captions and labels allow.

        Args:
            vision: what the pictures go through. encoder: for texts. cached: the tower is nobody's own, so its features
                are worth keeping on disk.
        """
        if cached:
            image = cached_views(vision, self.pictures, views=1, seed=0, cache=FeatureCache())[0]
        else:
            image = encode_pictures(vision, self.pictures)
        values: dict[str, np.ndarray[Any, np.dtype[np.float64]]] = {}
        details: dict[str, Any] = {}
        for before, captions in self._captions().items():
            found, told = _retrieval(encoder, image, captions)
            values |= {f"{before}{name}": own for name, own in found.items()}
            details[f"{before}retrieval"] = told
        labelled = torch.nonzero(self.labels >= 0)[:, 0]
        if len(labelled) and self.class_names:
            correct = self._top1(encoder, image[labelled], self.labels[labelled])
            values["top1"] = correct
            details["classification"] = {"classes": len(self.class_names), "pictures": len(labelled)}
        return Reading(meaning, values, details)

    def _captions(self) -> dict[str, list[list[str]]]:
        """Prefix of the measures' names → captions of each picture."""
        every = [[text for text in own if text.strip()] for own in self.pictures.image_set.captions]
        if not self._retrieves or not any(every):
            return {}
        if not self._longest:
            return {"": every}
        longest = [max(own, key=len, default="") for own in every]
        rest = [[text for text in own if text != long] for own, long in zip(every, longest, strict=True)]
        found = {"long_": [[text] if text else [] for text in longest]}
        return {**found, "": rest} if any(rest) else found

    def _top1(self, encoder: DualEncoder, image: Tensor, labels: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
        prompts = prompts_for(self.class_names, templates=self._prompts.templates, file=self._prompts.file)
        head = TextInitialisedClassifier(nn.Identity(), text_head(encoder, prompts).cpu())
        with torch.no_grad():
            logits = head.classify_features(image)
        return classification_metrics(logits, labels, self.class_names).correct.double().numpy()


def _retrieval(
    encoder: DualEncoder, image: Tensor, captions: Sequence[Sequence[str]]
) -> tuple[dict[str, np.ndarray[Any, np.dtype[np.float64]]], dict[str, Any]]:
    """Values of the pictures that have a caption, and the facts about the galleries."""
    captioned = [place for place, own in enumerate(captions) if own]
    texts, positives = caption_positives([captions[place] for place in captioned])
    with torch.no_grad():
        text = encoder.encode_text(texts).float().cpu()
    found = retrieval_metrics(image[captioned], text, positives)
    told = {
        way: {name: own[name] for name in ("queries", "gallery", "chance", "median_rank")}
        for way, own in found.to_json().items()
    }
    return picture_values(found, positives, len(captioned)), told
