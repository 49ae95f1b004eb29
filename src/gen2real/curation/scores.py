"""Scores of pictures: does it show its text, rather that than another class, like a photograph, and is it safe?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.two_sample import linear_log_odds
from gen2real.imagesets.decoding import decode
from gen2real.imagesets.loading import prefetch
from gen2real.imagesets.manifest import ImageSet
from gen2real.models.dual_encoder import DualEncoder
from gen2real.models.hub_loading import without_progress_bars

Scores = npt.NDArray[np.float64]
OTHER_TEXTS = 1_000
MAX_PER_SIDE = 5_000


@dataclass(frozen=True)
class TextScores:
    """Float64 [N] each, NaN where there is nothing to compare: no text, or no other class."""

    similarity: Scores
    margin: Scores


def text_scores(
    features: Tensor, image_set: ImageSet, encoder: DualEncoder, class_prompts: Sequence[Sequence[str]]
) -> TextScores:
    """How well pictures show what they were made for. features: [N D] of the set's pictures, in order.

    similarity: cosine of picture and its text. That is its `prompt`; where it has none, its class; where it has no
        label either, its captions. A class, or several captions, are the mean of the normalised embeddings.
    margin: cosine to the own class less the highest cosine to another class. All classes of the set count, those
        without pictures too, but not one with the same prompts as the own. A picture without a label is compared by
        its own text with the texts of the set's other pictures without a label, 1,000 of them at most, chosen by hash;
        its own text is not among them. These are cosines: a soft-max over a picture's only label is always 1.

    class_prompts: those of each class, as `gen2real.prompts.prompts_for` makes them.
    """
    unit = normalize(features.float(), dim=-1)
    own = _own_texts(image_set, class_prompts)
    embedding = _Texts(encoder, [*class_prompts, *own])
    similarity = np.full(len(image_set), np.nan)
    told = np.array([row for row, texts in enumerate(own) if texts], dtype=np.int64)
    for rows in np.array_split(told, -(-len(told) // 4096) or 1):
        similarity[rows] = (unit[rows] * embedding([own[row] for row in rows])).sum(dim=-1).numpy()
    margin = np.full(len(image_set), np.nan)
    labels = image_set.labels
    labelled = np.flatnonzero(labels >= 0)
    if len(labelled) and len(class_prompts) > 1:
        names = [tuple(prompts) for prompts in class_prompts]
        margin[labelled] = _margins(unit, labelled, [names[label] for label in labels[labelled]], names, embedding)
    others = np.array([row for row in told if labels[row] < 0], dtype=np.int64)
    if len(others):
        texts = sorted({own[row] for row in others}, key=lambda one: hashlib.sha256(repr(one).encode()).digest())
        margin[others] = _margins(unit, others, [own[row] for row in others], texts[:OTHER_TEXTS], embedding)
    return TextScores(similarity, margin)


def real_likeness(
    features: Tensor, real: Tensor, ids: Sequence[str], *, folds: int = 5, l2: float = 1.0, seed: int = 0
) -> Scores:
    """Float64 [N]: log-odds that a picture is one of the real ones, by a linear classifier that has not seen it.

    features: [N D] of generated pictures. real: [M D] of unlabelled real ones. The pictures are dealt into `folds` by
    a hash of their ids; each fold is scored by a logistic regression between the other folds and as many real
    pictures (5,000 at most). 0 means as likely one as the other. Only the order within a class should be read: where
    the classes of the real pictures come in other shares, so do the odds.

    A classifier and not the distance to the nearest real picture: that one is small for copies of a few photographs
    and grows with how varied a class is, where this one asks for what all real pictures share.

    Raises: ImageSetError for fewer than two real pictures or two generated ones, ModelError for unequal widths.
    """
    if len(real) < 2 or len(features) < 2:
        raise ImageSetError(
            f"real-likeness needs two pictures of each kind at least; got {len(features)} generated, {len(real)} real"
        )
    if features.shape[1] != real.shape[1]:
        raise ModelError(f"features are {features.shape[1]} and {real.shape[1]} wide; encode both with one encoder")
    generator = torch.Generator().manual_seed(seed)
    turn = np.argsort(np.array([hashlib.sha256(one.encode()).digest() for one in ids], dtype=object), kind="stable")
    fold_of = np.empty(len(features), dtype=np.int64)
    fold_of[turn] = np.arange(len(features)) % min(folds, len(features))
    scores = np.full(len(features), np.nan)
    for fold in range(min(folds, len(features))):
        rest = torch.from_numpy(turn[fold_of[turn] != fold])
        size = min(len(rest), len(real), MAX_PER_SIDE)
        generated = features[rest[torch.randperm(len(rest), generator=generator)[:size]]]
        photographs = real[torch.randperm(len(real), generator=generator)[:size]]
        scored = np.flatnonzero(fold_of == fold)
        scores[scored] = linear_log_odds(photographs, generated, features[torch.from_numpy(scored)], l2=l2).numpy()
    return scores


class SafetyModel:
    """An image-classification model in Hugging Face layout, and which of its labels are unsafe.

    unsafe_labels: of the model's own, compared without regard to case; none: those that hold one of `words`.

    Raises: ModelError, listing the model's labels, for one it does not have and where none holds a word; ModelError
    where the model does not load.
    """

    def __init__(self, name: str, unsafe_labels: Sequence[str], words: Sequence[str]) -> None:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        try:
            with without_progress_bars():
                self._model = AutoModelForImageClassification.from_pretrained(name, use_safetensors=True).eval()
            # The one that needs no torchvision, on every machine: the same picture, the same score.
            self._processor = AutoImageProcessor.from_pretrained(name, backend="pil")
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(
                f"the safety model {name} could not be loaded: {str(error).strip()}\nGive a folder or a hub name that "
                "AutoModelForImageClassification reads: config.json, model.safetensors, preprocessor_config.json."
            ) from error
        self.labels = [self._model.config.id2label[place] for place in range(self._model.config.num_labels)]
        if unsafe_labels:
            place_of = {label.casefold(): place for place, label in enumerate(self.labels)}
            unknown = [label for label in unsafe_labels if label.casefold() not in place_of]
            self._places = [place_of[label.casefold()] for label in unsafe_labels if label.casefold() in place_of]
        else:
            unknown = []
            self._places = [
                place for place, label in enumerate(self.labels) if any(word in label.casefold() for word in words)
            ]
        if unknown or not self._places:
            said = f"has no label {unknown}" if unknown else f"has no label with one of the words {', '.join(words)}"
            raise ModelError(
                f"the safety model {name} {said}. Its labels are: {', '.join(map(repr, self.labels))}. "
                "Name the unsafe ones of them: --unsafe-labels LABEL"
            )
        self._independent = self._model.config.problem_type == "multi_label_classification"
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)

    @property
    def unsafe_labels(self) -> list[str]:
        """The model's labels that count as unsafe."""
        return [self.labels[place] for place in self._places]

    @torch.no_grad()
    def probabilities(self, paths: Sequence[Path], *, batch_size: int = 64) -> Scores:
        """Float64 [N]: the probability of the unsafe labels together; of a multi-label model, of the likeliest."""
        parts = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]

        def make(number: int) -> Any:
            return self._processor(images=[decode(path) for path in parts[number]], return_tensors="pt")

        found = [np.zeros(0)]
        for inputs in prefetch(make, range(len(parts))):
            logits = self._model(pixel_values=inputs["pixel_values"].to(self._device)).logits.double()
            if self._independent:
                scores = logits.sigmoid()[:, self._places].amax(dim=1)
            else:
                scores = logits.softmax(dim=1)[:, self._places].sum(dim=1)
            found.append(scores.cpu().numpy())
        return np.concatenate(found)


class _Texts:
    """Embeddings of texts, each distinct one encoded once; a tuple of several is their normalised mean."""

    def __init__(self, encoder: DualEncoder, tuples: Sequence[Sequence[str]]) -> None:
        distinct = list(dict.fromkeys(text for texts in tuples for text in texts))
        self._row = {text: row for row, text in enumerate(distinct)}
        with torch.no_grad():
            self._unit = normalize(encoder.encode_text(distinct).float(), dim=-1).cpu()

    def __call__(self, tuples: Sequence[tuple[str, ...]]) -> Tensor:
        place = {texts: number for number, texts in enumerate(dict.fromkeys(tuples))}
        if not place:
            return self._unit[:0]
        means = torch.stack([self._unit[[self._row[text] for text in texts]].mean(dim=0) for texts in place])
        return normalize(means, dim=-1)[[place[texts] for texts in tuples]]


def _own_texts(image_set: ImageSet, class_prompts: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    rows = zip(image_set.table["prompt"].to_pylist(), image_set.labels.tolist(), image_set.captions, strict=True)
    for prompt, label, captions in rows:
        if prompt and prompt.strip():
            found.append((prompt,))
        elif label >= 0:
            found.append(tuple(class_prompts[label]))
        else:
            found.append(tuple(caption for caption in captions if caption and caption.strip()))
    return found


def _margins(
    unit: Tensor, rows: npt.NDArray[np.int64], own: list[tuple[str, ...]], all_: list[tuple[str, ...]], texts: _Texts
) -> Scores:
    """Cosine to the own text less the highest to another of `all_`; NaN where all of them are the own."""
    others = texts(all_)
    number = {one: place for place, one in enumerate(dict.fromkeys(all_))}
    kind = torch.tensor([number[one] for one in all_])
    found = np.full(len(rows), np.nan)
    for start in range(0, len(rows), 1024):
        part = slice(start, start + 1024)
        pictures = unit[torch.from_numpy(rows[part])]
        mine = torch.tensor([number.get(one, -1) for one in own[part]])
        cosine = pictures @ others.T
        best_other = cosine.masked_fill(kind[None, :] == mine[:, None], -torch.inf).amax(dim=1)
        own_cosine = (pictures * texts(own[part])).sum(dim=-1)
        margin = (own_cosine - best_other).double()
        found[part] = margin.masked_fill(best_other.isneginf(), torch.nan).numpy()
    return found
