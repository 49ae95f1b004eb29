"""Can a linear classifier tell two sets of features apart? (Lopez-Paz and Oquab 2017, with logistic regression.)"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.statistics import binomial_tail


@dataclass(frozen=True)
class TwoSampleTest:
    """How well held-out pictures are told apart.

    accuracy: share told apart rightly, 0.5 indistinguishable, 1 fully separable. auc: area under the ROC curve,
    likewise. p_value: the chance of so high an accuracy were both sets from one source. per_side: pictures of each set
    that took part. folds: of the cross-validation.
    """

    accuracy: float
    auc: float
    p_value: float
    per_side: int
    folds: int

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


def two_sample_test(
    generated: Float[Tensor, "n d"],
    real: Float[Tensor, "m d"],
    *,
    seed: int = 0,
    folds: int = 5,
    l2: float = 1.0,
    max_per_side: int = 5_000,
) -> TwoSampleTest:
    """Cross-validated accuracy of an L2-regularised logistic regression, generated against real.

    generated [N D], real [M D]. Both sets are cut to min(N, M, max_per_side) rows, drawn with `seed`, so that chance is
    exactly ½. Each fold is standardised by its training rows. The loss is the summed log-loss + (l2 / 2)‖w‖².

    Row i of both sides falls into the same fold if N = M, so pairs (a picture and its variation) are never split
    between training and test. An accuracy well below ½ says that rows occur in both sets at different places.

    The p-value is of one more fit, trained on half of the rows and tested on the other: P(X ≥ correct), X ~ Binomial(
    held out, ½), which is exact. Folds share training rows; a binomial over all of them would find a gap between two
    halves of one set in 9 of 100 cases at p < 0.05.

    Raises ImageSetError for fewer than two pictures on a side, ModelError for unequal widths and non-finite features.
    """
    check_pair(generated, real)
    generator = torch.Generator().manual_seed(seed)
    size = min(len(generated), len(real), max_per_side)
    if len(generated) == len(real):
        first = second = torch.randperm(len(real), generator=generator)[:size]
    else:
        first = torch.randperm(len(generated), generator=generator)[:size]
        second = torch.randperm(len(real), generator=generator)[:size]
    # [2, size, D]: generated above real, so that a fold is a slice of the middle axis on both sides at once.
    sides = torch.stack([generated.detach().cpu().double()[first], real.detach().cpu().double()[second]])
    if folds < 2 or max_per_side < 2:
        raise ValueError(f"need folds >= 2 and max_per_side >= 2; got {folds} and {max_per_side}")
    folds = min(folds, size)
    fold_of = torch.arange(size) % folds

    half = size // 2
    right_of_half = _right(_held_out_scores(sides[:, :half], sides[:, half:], l2))
    correct, aucs = 0, []
    for fold in range(folds):
        train, test = sides[:, fold_of != fold], sides[:, fold_of == fold]
        scores = _held_out_scores(train, test, l2)
        correct += _right(scores)
        aucs.append(_area_under_roc(scores[0], scores[1]))
    return TwoSampleTest(
        accuracy=correct / (2 * size),
        auc=sum(aucs) / folds,
        p_value=binomial_tail(right_of_half, 2 * (size - half)),
        per_side=size,
        folds=folds,
    )


def check_pair(generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> None:
    """Raise unless both are finite [≥2 D] of equal D (ImageSetError: too few; ModelError: widths or values)."""
    for name, features in (("generated", generated), ("real", real)):
        if features.ndim != 2 or len(features) < 2:
            raise ImageSetError(
                f"a gap needs features [N D] of at least 2 {name} pictures; got shape {list(features.shape)}"
            )
        broken = int((~torch.isfinite(features)).any(dim=1).sum())
        if broken:
            raise ModelError(f"{broken} of {len(features)} rows of {name} features hold NaN or infinity")
    if generated.shape[1] != real.shape[1]:
        raise ModelError(
            f"generated features are {generated.shape[1]} wide, real ones {real.shape[1]}; encode both with one encoder"
        )


def _held_out_scores(train: Float[Tensor, "2 n d"], test: Float[Tensor, "2 k d"], l2: float) -> Float[Tensor, "2 k"]:
    """Log-odds for "generated" of the test rows."""
    return linear_log_odds(train[0], train[1], test.flatten(0, 1), l2=l2).unflatten(0, test.shape[:2])


def linear_log_odds(
    first: Float[Tensor, "n d"], second: Float[Tensor, "m d"], test: Float[Tensor, "k d"], *, l2: float = 1.0
) -> Float[Tensor, " k"]:
    """Log-odds that each row of `test` is of the kind of `first` and not of `second`, by `fit_logistic` on those two.

    All are standardised by the mean and deviation of the two kinds' rows. float64. Balanced only if N = M.
    """
    rows, held_out = torch.cat([first, second]).double(), test.double()
    constant = rows.amax(dim=0) == rows.amin(dim=0)
    mean, deviation = rows.mean(dim=0), rows.std(dim=0).masked_fill(constant, 1.0)
    rows, held_out = (rows - mean) / deviation, (held_out - mean) / deviation
    if rows.shape[1] > rows.shape[0]:
        # The optimum lies in the span of the training rows: solve there, in fewer dimensions.
        basis = torch.linalg.qr(rows.T).Q
        rows, held_out = rows @ basis, held_out @ basis
    target = torch.cat([torch.ones(len(first)), torch.zeros(len(second))]).double()
    weight, bias = fit_logistic(rows, target, l2)
    return held_out @ weight + bias


def fit_logistic(
    rows: Float[Tensor, "n d"], target: Float[Tensor, " n"], l2: float
) -> tuple[Float[Tensor, " d"], Float[Tensor, ""]]:
    """Weight and bias that minimise Σ_i [softplus(z_i) − y_i z_i] + (l2 / 2)‖w‖², z = Xw + b, by damped Newton steps.

    rows: float64 [N D]. target: float64 [N] of 0 and 1. Gradients are written out, so inference mode does not matter.
    """
    design = torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], dim=1)
    penalty = torch.full((design.shape[1],), l2, dtype=rows.dtype)
    penalty[-1] = 1e-9  # the bias is free; this only keeps the Hessian invertible

    def loss(weight: Tensor) -> Tensor:
        z = design @ weight
        return (softplus(z) - target * z).sum() + 0.5 * (penalty * weight.square()).sum()

    weight = torch.zeros(design.shape[1], dtype=rows.dtype)
    for _ in range(50):
        probability = torch.sigmoid(design @ weight)
        gradient = design.T @ (probability - target) + penalty * weight
        curvature = probability * (1 - probability)
        hessian = (design * curvature[:, None]).T @ design + torch.diag(penalty)
        step = torch.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step)
        if decrement < 1e-10 * len(rows):
            break
        length, here = 1.0, float(loss(weight))
        while float(loss(weight - length * step)) > here - 1e-4 * length * decrement and length > 1e-10:
            length /= 2
        weight = weight - length * step
    return weight[:-1], weight[-1]


def _right(scores: Float[Tensor, "2 k"]) -> int:
    return int((scores[0] > 0).sum()) + int((scores[1] <= 0).sum())


def _area_under_roc(positive: Float[Tensor, " p"], negative: Float[Tensor, " n"]) -> float:
    """P(positive > negative) + ½ P(equal), over all pairs."""
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive, right=False)
    not_above = torch.searchsorted(ordered, positive, right=True)
    return float((below + not_above).double().mean() / (2 * len(negative)))
