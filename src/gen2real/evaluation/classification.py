"""How well a classifier does: accuracy with its interval, per class, its calibration, and what it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.statistics import Interval, proportion_interval

CALIBRATION_BINS = 15
LISTED_CONFUSIONS = 20


@dataclass(frozen=True)
class ClassAccuracy:
    """One class, known by its index: two classes may share a name. accuracy: a share of 1, or None without pictures."""

    index: int
    name: str
    count: int
    accuracy: float | None


@dataclass(frozen=True)
class Confusion:
    """`count` pictures of the class `true` were taken for `predicted` (indices, with the names beside them)."""

    true: int
    predicted: int
    true_name: str
    predicted_name: str
    count: int


@dataclass(frozen=True, eq=False)
class Classification:
    """What `classification_metrics` finds. All accuracies are shares of 1.

    top1, top5: with 95 % score intervals over pictures (`proportion_interval`).
    mean_per_class: the mean accuracy of the classes that have pictures. per_class: every class, in class order.
    calibration_error: expected calibration error, see `classification_metrics`. negative_log_likelihood: in nats.
    confusions: the most frequent first, at most `LISTED_CONFUSIONS`.
    predicted, correct, top5_correct: [N], picture by picture, for paired tests; `to_json` leaves them out.
    """

    count: int
    top1: Interval
    top5: Interval
    mean_per_class: float
    calibration_error: float
    negative_log_likelihood: float
    per_class: tuple[ClassAccuracy, ...]
    confusions: tuple[Confusion, ...]
    predicted: Int[Tensor, " n"]
    correct: Bool[Tensor, " n"]
    top5_correct: Bool[Tensor, " n"]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, always with the same keys."""
        return {
            "count": self.count,
            "top1": self.top1.to_json(),
            "top5": self.top5.to_json(),
            "mean_per_class": self.mean_per_class,
            "calibration_error": self.calibration_error,
            "negative_log_likelihood": self.negative_log_likelihood,
            "per_class": [asdict(one) for one in self.per_class],
            "confusions": [asdict(one) for one in self.confusions],
        }


def classification_metrics(
    logits: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"] | Int[np.ndarray, " n"],
    class_names: Sequence[str],
) -> Classification:
    """Judge [N C] logits against [N] labels, indices into `class_names`.

    The logits are those whose softmax is the model's probability (CLIP: cosine times exp(logit_scale)); accuracy does
    not depend on their scale, calibration and likelihood do. Equal logits rank by class index, the lower first. With
    fewer than five classes top-5 is top-C, which is 100 %.

    The calibration error has 15 bins of equal width over the confidence max_c p_c, each open below and closed above
    (Guo et al. 2017): Σ_b (n_b / N) · |accuracy_b − mean confidence_b|.

    Raises ModelError if the logits' width is not the number of classes or some logit is not finite; ImageSetError if
    there are no pictures, the labels do not match them in number, or a label lies outside 0…C−1.
    """
    logits, labels = _checked(logits, torch.as_tensor(labels), class_names)
    count, classes = logits.shape
    own = logits.gather(1, labels[:, None])
    column = torch.arange(classes)
    rank = ((logits > own) | ((logits == own) & (column < labels[:, None]))).sum(dim=1)
    highest = logits.amax(dim=1, keepdim=True)
    predicted = torch.where(logits == highest, column, classes).amin(dim=1)
    correct, top5_correct = rank == 0, rank < min(5, classes)

    log_probabilities = torch.log_softmax(logits, dim=1)
    likelihood = log_probabilities.gather(1, labels[:, None]).double().mean()
    confidence = log_probabilities.amax(dim=1).double().exp().clamp(max=1)

    sizes = torch.bincount(labels, minlength=classes).tolist()
    hits = torch.bincount(labels[correct], minlength=classes).tolist()
    per_class = tuple(
        ClassAccuracy(index, name, size, hit / size if size else None)
        for index, (name, size, hit) in enumerate(zip(class_names, sizes, hits, strict=True))
    )
    accuracies = [one.accuracy for one in per_class if one.accuracy is not None]
    return Classification(
        count=count,
        top1=proportion_interval(int(correct.sum()), count),
        top5=proportion_interval(int(top5_correct.sum()), count),
        mean_per_class=sum(accuracies) / len(accuracies),
        calibration_error=_calibration_error(confidence, correct),
        negative_log_likelihood=-float(likelihood),
        per_class=per_class,
        confusions=_confusions(labels, predicted, class_names),
        predicted=predicted,
        correct=correct,
        top5_correct=top5_correct,
    )


def _calibration_error(confidence: Float[Tensor, " n"], correct: Bool[Tensor, " n"]) -> float:
    bins = (torch.ceil(confidence * CALIBRATION_BINS).long() - 1).clamp(0, CALIBRATION_BINS - 1)
    # Σ_b (n_b / N) |acc_b − conf_b| = Σ_b |Σ_{i in b} (correct_i − confidence_i)| / N
    surplus = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, bins, correct.double() - confidence)
    return float(surplus.abs().sum() / len(confidence))


def _confusions(
    labels: Int[Tensor, " n"], predicted: Int[Tensor, " n"], class_names: Sequence[str]
) -> tuple[Confusion, ...]:
    wrong = labels != predicted
    pairs, counts = torch.unique(torch.stack([labels[wrong], predicted[wrong]], dim=1), dim=0, return_counts=True)
    # unique sorts by (true, predicted), and a stable sort keeps that order among equal counts.
    order = torch.sort(counts, descending=True, stable=True).indices[:LISTED_CONFUSIONS]
    return tuple(
        Confusion(true, taken, class_names[true], class_names[taken], number)
        for (true, taken), number in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    )


def _checked(logits: Tensor, labels: Tensor, class_names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """On the CPU, in float32 at least and int64, and fit to be judged."""
    if logits.ndim != 2 or logits.shape[1] != len(class_names):
        raise ModelError(
            f"logits have shape {list(logits.shape)}, but there are {len(class_names)} class names; expected "
            f"[pictures, {len(class_names)}]. Evaluate with the classes the model was made for."
        )
    if labels.shape != logits.shape[:1]:
        raise ImageSetError(f"{list(labels.shape)} labels for {len(logits)} rows of logits; expected one label a row")
    if len(logits) == 0:
        raise ImageSetError("there are no pictures to evaluate; expected at least one with a label")
    logits, labels = logits.detach().cpu(), labels.detach().cpu().long()
    outside = (labels < 0) | (labels >= len(class_names))
    if outside.any():
        first = int(outside.nonzero()[0])
        raise ImageSetError(
            f"{int(outside.sum())} of {len(labels)} labels lie outside 0…{len(class_names) - 1}; the first is "
            f"{int(labels[first])} at row {first}. Leave out pictures without a label (-1) before evaluating."
        )
    broken = ~torch.isfinite(logits).all(dim=1)
    if broken.any():
        raise ModelError(
            f"{int(broken.sum())} of {len(logits)} rows of logits hold NaN or infinity, the first at row "
            f"{int(broken.nonzero()[0])}; the model's weights or its precision are broken. Try float32."
        )
    return (logits if logits.dtype == torch.float64 else logits.float()), labels
