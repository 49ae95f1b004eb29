"""The ways to use one training: zero-shot, tuned, blended in weights or outputs, and what each is worth.

The order matters. Everything up to the choice of alpha sees generated pictures only; then the sealed set is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gen2real.evaluation.classification import Classification, classification_metrics
from gen2real.evaluation.diversity import measure_diversity
from gen2real.evaluation.features import FeatureCache, cached_views, encode_pictures
from gen2real.evaluation.gap import measure_gap
from gen2real.evaluation.projection import common_plane, sample_rows
from gen2real.methods.classification_data import ClassificationData, LabelledPictures
from gen2real.methods.result import best_answers
from gen2real.methods.settings import EnsembleSettings
from gen2real.methods.transductive import centred_on, with_batch_norm_of
from gen2real.models.classifier import TextInitialisedClassifier

ClassifierAt = Callable[[float], TextInitialisedClassifier]


@dataclass
class Readings:
    """What `measure` found, ready to be written."""

    summary: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Tensor] = field(default_factory=dict)
    plane: dict[str, Tensor] = field(default_factory=dict)
    saved_alpha: float = 0.5


class _Set:
    """Pictures to measure on, with features kept where the image encoder does not depend on alpha."""

    def __init__(self, parts: Sequence[LabelledPictures], class_names: Sequence[str], *, frozen: bool) -> None:
        self.parts, self.class_names, self.frozen = parts, class_names, frozen
        self.labels = torch.cat([torch.from_numpy(part.labels) for part in parts])
        self._kept: Tensor | None = None

    def features(self, vision: nn.Module) -> Tensor:
        if not self.frozen:
            return torch.cat([encode_pictures(part.tower(vision), part.pictures) for part in self.parts])
        if self._kept is None:
            cache = FeatureCache()
            found = [
                cached_views(part.tower(vision), part.pictures, views=1, seed=0, cache=cache)[0] for part in self.parts
            ]
            self._kept = torch.cat(found)
        return self._kept

    def metrics(self, logits: Tensor) -> Classification:
        return classification_metrics(logits, self.labels, self.class_names)


@torch.no_grad()
def measure(
    classifier_at: ClassifierAt,
    data: ClassificationData,
    ensemble: EnsembleSettings,
    *,
    frozen_encoder: bool,
    transductive: bool = False,
    with_gap: bool = True,
) -> Readings:
    """Every reading on generated and, at the end, on real pictures.

    Args:
        classifier_at: the classifier θ(α); one call's result may be invalid after the next call.
        frozen_encoder: θ(α) has the same image encoder for every α, so pictures are encoded once.
        with_gap: measures generated against real features before and after.
        transductive: adds readings that use statistics of the unlabelled real pictures.
    """
    found = Readings()
    parts, which = data.measured_on
    generated = _Set(parts, data.class_names, frozen=frozen_encoder)
    alphas = sorted({0.0, 1.0, ensemble.alpha, *ensemble.sweep})

    # On generated pictures only: every alpha, and the choice between them.
    logits, features = _sweep(classifier_at, generated, alphas)
    accuracy = {alpha: float((logits[alpha].argmax(1) == generated.labels).float().mean()) for alpha in alphas}
    chosen = max(alphas, key=lambda alpha: (accuracy[alpha], -abs(alpha - ensemble.alpha)))
    found.saved_alpha = ensemble.alpha if ensemble.rule == "fixed" else chosen
    named = {"zero_shot": 0.0, "tuned": 1.0, "blend": ensemble.alpha}
    if which == "held out":
        named["blend_generated"] = chosen
    found.answers["generated"] = generated.labels.to(torch.int32)
    readings: dict[str, dict[str, Any]] = {}
    _read(readings, found.answers, "generated", generated, _outputs(named, logits, ensemble.alpha))
    found.answers |= {f"generated.alpha={alpha:g}": best_answers(logits[alpha]) for alpha in alphas}
    sweep = [{"alpha": alpha, "generated_top1": accuracy[alpha]} for alpha in alphas]
    diversity = {"generated": {name: measure_diversity(features[a]).to_json() for name, a in _ENDS.items()}}
    gap: dict[str, Any] = {}

    # Training and every choice are done: the seal is broken here and nowhere else.
    if data.evaluation is not None:
        real = _Set([data.evaluation.open(data.preprocess, data.settings)], data.class_names, frozen=frozen_encoder)
        real_logits, real_features = _sweep(classifier_at, real, alphas)
        for row in sweep:
            row["real_top1"] = float((real_logits[row["alpha"]].argmax(1) == real.labels).float().mean())
        best = max(alphas, key=lambda alpha: next(row["real_top1"] for row in sweep if row["alpha"] == alpha))
        found.answers["real"] = real.labels.to(torch.int32)
        outputs = _outputs({**named, "oracle": best}, real_logits, ensemble.alpha)
        if transductive:
            outputs |= _transductive(classifier_at, named, real, real_features)
        _read(readings, found.answers, "real", real, outputs)
        found.answers |= {f"real.alpha={alpha:g}": best_answers(real_logits[alpha]) for alpha in alphas}
        diversity["real"] = {name: measure_diversity(real_features[a]).to_json() for name, a in _ENDS.items()}
        found.plane = plane_of(features, real_features, frozen=frozen_encoder)
        if with_gap:
            gap = {name: measure_gap(features[a], real_features[a]).to_json() for name, a in _ENDS.items()}

    found.summary = {
        "generated_pictures_are": which,
        "readings": readings,
        "sweep": sweep,
        "saved": {"alpha": found.saved_alpha, "rule": ensemble.rule},
        "diversity": diversity,
        "gap": gap,
    }
    return found


_ENDS = {"zero_shot": 0.0, "tuned": 1.0}
MAP_POINTS = 600


def plane_of(generated: Mapping[float, Tensor], real: Mapping[float, Tensor], *, frozen: bool) -> dict[str, Tensor]:
    """`Result.plane` of features [N D] before (0.0) and, unless the encoder is frozen, after tuning (1.0)."""
    rows = {side: sample_rows(len(one[0.0]), MAP_POINTS) for side, one in (("generated", generated), ("real", real))}
    ends = {"zero_shot": 0.0} if frozen else _ENDS
    found = common_plane(
        {
            f"{side}.{end}": one[alpha][rows[side].long()]
            for end, alpha in ends.items()
            for side, one in (("generated", generated), ("real", real))
        }
    )
    shares = {"explained": torch.tensor(found.explained)}
    return {**found.points, **{f"{side}.rows": chosen for side, chosen in rows.items()}, **shares}


def _sweep(
    classifier_at: ClassifierAt, pictures: _Set, alphas: Sequence[float]
) -> tuple[dict[float, Tensor], dict[float, Tensor]]:
    logits, features = {}, {}
    for alpha in alphas:
        classifier = classifier_at(alpha)
        features[alpha] = pictures.features(classifier.vision)
        logits[alpha] = _classify(classifier, features[alpha])
    return logits, features


def _classify(classifier: TextInitialisedClassifier, features: Tensor) -> Tensor:
    device = classifier.head.weight.device
    return torch.cat([classifier.classify_features(part.to(device)).cpu() for part in features.split(4096)])


def _outputs(
    named: Mapping[str, float], logits: Mapping[float, Tensor], alpha: float
) -> dict[str, tuple[float, Tensor]]:
    outputs = {name: (value, logits[value]) for name, value in named.items()}
    # Output-space ensemble: (1−α)·f(x; θ_0) + α·f(x; θ_1)
    outputs["output_ensemble"] = (alpha, (1 - alpha) * logits[0.0] + alpha * logits[1.0])
    return outputs


def _transductive(
    classifier_at: ClassifierAt, named: Mapping[str, float], real: _Set, features: Mapping[float, Tensor]
) -> dict[str, tuple[float, Tensor]]:
    """Every named alpha with features centred on their own mean, and again with the pictures' batch-norm statistics."""
    outputs = {}
    own: Tensor | None = None
    for name, alpha in named.items():
        classifier = classifier_at(alpha)
        outputs[f"transductive_{name}"] = (alpha, _classify(centred_on(classifier, features[alpha]), features[alpha]))
        if own is None or not real.frozen:
            adapted = with_batch_norm_of(classifier.vision, [part.pictures for part in real.parts])
            if adapted is None:
                continue
            own = torch.cat([encode_pictures(adapted, part.pictures) for part in real.parts])
        outputs[f"transductive_batch_norm_{name}"] = (alpha, _classify(centred_on(classifier, own), own))
    return outputs


def _read(
    readings: dict[str, dict[str, Any]],
    answers: dict[str, Tensor],
    on: str,
    pictures: _Set,
    outputs: Mapping[str, tuple[float, Tensor]],
) -> None:
    for name, (alpha, logits) in outputs.items():
        entry = readings.setdefault(name, {"alpha": alpha})
        entry[on] = pictures.metrics(logits).to_json()
        answers[f"{on}.{name}"] = best_answers(logits)
