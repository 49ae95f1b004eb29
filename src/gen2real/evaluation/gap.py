"""How far apart a generated set and a real one are, by the features of one encoder, and how to read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import ImageSetError
from gen2real.evaluation.distances import (
    Frechet,
    KernelDistance,
    ModalityGap,
    PrecisionRecall,
    centroid_cosine,
    cmmd,
    frechet,
    kernel_distance,
    modality_gap,
    precision_recall,
)
from gen2real.evaluation.diversity import Diversity, measure_diversity
from gen2real.evaluation.two_sample import TwoSampleTest, check_pair, two_sample_test

# Where the words for the classifier's accuracy change. They are words only; nothing is decided by them.
_CLEAR, _WIDE = 0.7, 0.9


@dataclass(frozen=True)
class ClassGap:
    """One class that both sets hold. cosine: between its two centroids of unit-length features."""

    label: int
    generated: int
    real: int
    cosine: float


@dataclass(frozen=True)
class GapReport:
    """What `measure_gap` finds.

    generated, real: pictures. dimension: of the features. class_cosine: the mean of `classes`, None without labels.
    notes: what to bear in mind with these numbers. reading: a few sentences on what they say.
    """

    generated: int
    real: int
    dimension: int
    frechet: Frechet
    kernel: KernelDistance
    cmmd: float
    modality: ModalityGap
    two_sample: TwoSampleTest
    precision_recall: PrecisionRecall
    generated_diversity: Diversity
    real_diversity: Diversity
    class_cosine: float | None
    classes: tuple[ClassGap, ...]
    notes: tuple[str, ...]
    reading: str

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, always with the same keys."""
        plain = asdict(self)
        return plain | {"classes": list(plain["classes"]), "notes": list(plain["notes"])}


def measure_gap(
    generated: Float[Tensor, "n d"],
    real: Float[Tensor, "m d"],
    *,
    generated_labels: Int[Tensor, " n"] | Int[np.ndarray, " n"] | None = None,
    real_labels: Int[Tensor, " m"] | Int[np.ndarray, " m"] | None = None,
    seed: int = 0,
    max_pictures: int = 10_000,
) -> GapReport:
    """Every distance of this room between generated [N D] and real [M D] features, float32 or float64.

    Labels, if given for both, are indices into the same classes (-1: none, left out) and add the gap class by class.
    `seed` draws subsets and folds. `cmmd` and `precision_recall`, whose time grows with the square, use at most
    `max_pictures` of each set.

    Raises ImageSetError for fewer than two pictures on a side, labels for one side only, or labels that do not match in
    number; ModelError for unequal widths and non-finite features.
    """
    check_pair(generated, real)
    classes, notes = _class_gaps(generated, real, generated_labels, real_labels)
    notes = (*_size_notes(generated, real, max_pictures), *notes)
    distance = frechet(generated, real, seed=seed)
    generated_diversity, real_diversity = measure_diversity(generated), measure_diversity(real)
    test = two_sample_test(generated, real, seed=seed)
    some_generated, some_real = _sample(generated, max_pictures, seed), _sample(real, max_pictures, seed)
    return GapReport(
        generated=len(generated),
        real=len(real),
        dimension=generated.shape[1],
        frechet=distance,
        kernel=kernel_distance(generated, real, seed=seed),
        cmmd=cmmd(some_generated, some_real),
        modality=modality_gap(generated, real),
        two_sample=test,
        precision_recall=precision_recall(some_generated, some_real),
        generated_diversity=generated_diversity,
        real_diversity=real_diversity,
        class_cosine=sum(one.cosine for one in classes) / len(classes) if classes else None,
        classes=classes,
        notes=notes,
        reading=_reading(test, distance, generated_diversity, real_diversity),
    )


def _reading(test: TwoSampleTest, distance: Frechet, generated: Diversity, real: Diversity) -> str:
    cases = f"{100 * test.accuracy:.0f} % of cases"
    if test.p_value >= 0.05:
        told = (
            f"A linear classifier does not tell the sets apart better than chance ({cases}, p = {test.p_value:.2g}, "
            f"{test.per_side} pictures a side); a small gap may need more pictures to show."
        )
    else:
        width = "a wide gap" if test.accuracy >= _WIDE else "a clear gap" if test.accuracy >= _CLEAR else "a small gap"
        told = (
            f"A linear classifier tells the sets apart in {cases} (chance is 50 %), {width}: how well a tuned model "
            "does on held-out generated pictures will not say how well it does on the real ones."
        )
        shift = max(0.0, distance.shift - distance.chance_shift)
        spread = max(0.0, distance.spread - distance.chance_spread)
        if shift + spread > 0:
            told += (
                f" A shift of the mean makes up about {100 * shift / (shift + spread):.0f} % of the Fréchet distance "
                "beyond chance and goes away by centring each set's features; the rest takes alignment."
            )
    if real.magnitude > 0:
        ratio = generated.magnitude / real.magnitude
        told += f" The generated features vary {ratio:.2f} times as much as the real ones."
    return told


def _size_notes(generated: Tensor, real: Tensor, max_pictures: int) -> tuple[str, ...]:
    smaller, dimension = min(len(generated), len(real)), generated.shape[1]
    notes = []
    if smaller <= dimension:
        notes.append(
            f"The Fréchet distance is unreliable and far too high: {smaller} pictures do not determine a covariance of "
            f"{dimension} dimensions. Go by the kernel distance, which is unbiased."
        )
    if len(generated) != len(real):
        notes.append(
            f"The sets differ in size ({len(generated)} and {len(real)}), on which Fréchet distance, precision, recall "
            "and diversity depend."
        )
    if max(len(generated), len(real)) > max_pictures:
        notes.append(f"CMMD, precision and recall are of at most {max_pictures} pictures of each set.")
    rows_of_real = {row.tobytes() for row in real.detach().cpu().double().numpy()}
    shared = sum(row.tobytes() in rows_of_real for row in generated.detach().cpu().double().numpy())
    if shared:
        notes.append(
            f"{shared} generated pictures have exactly the features of a real one: are real pictures in the set?"
        )
    return tuple(notes)


def _class_gaps(
    generated: Tensor,
    real: Tensor,
    generated_labels: Int[Tensor, " n"] | Int[np.ndarray, " n"] | None,
    real_labels: Int[Tensor, " m"] | Int[np.ndarray, " m"] | None,
) -> tuple[tuple[ClassGap, ...], tuple[str, ...]]:
    if generated_labels is None and real_labels is None:
        return (), ()
    if generated_labels is None or real_labels is None:
        missing = "generated_labels" if generated_labels is None else "real_labels"
        raise ImageSetError(f"the gap class by class needs labels of both sets; {missing} is missing")
    of_generated = _class_rows("generated", generated, generated_labels)
    of_real = _class_rows("real", real, real_labels)
    gaps = tuple(
        ClassGap(label, len(x), len(of_real[label]), centroid_cosine(x.mean(dim=0), of_real[label].mean(dim=0)))
        for label, x in of_generated.items()
        if label in of_real
    )
    notes = []
    alone = len(of_generated.keys() ^ of_real.keys())
    if alone:
        notes.append(f"{alone} classes have pictures in one of the sets only.")
    # ½ Σ_c |p(c) − q(c)|
    differing = 0.5 * sum(
        abs(len(of_generated.get(label, ())) / len(generated) - len(of_real.get(label, ())) / len(real))
        for label in of_generated.keys() | of_real.keys()
    )
    if differing > 0.1:
        notes.append(
            f"The sets mix their classes differently ({100 * differing:.0f} % of the pictures would have to change "
            "class), which is part of every distance but the class-wise cosines."
        )
    return gaps, tuple(notes)


def _class_rows(side: str, features: Tensor, labels: Tensor | np.ndarray) -> dict[int, Tensor]:
    """Class index -> its rows at unit length, in class order."""
    indices = torch.as_tensor(labels).to(features.device)
    if indices.shape != features.shape[:1]:
        raise ImageSetError(f"{list(indices.shape)} labels for {len(features)} {side} pictures; expected one each")
    unit = normalize(features.detach().double(), dim=1)
    return {int(label): unit[indices == label] for label in indices.unique() if label >= 0}


def _sample(features: Tensor, count: int, seed: int) -> Tensor:
    if len(features) <= count:
        return features
    chosen = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[:count]
    return features[chosen.to(features.device)]
