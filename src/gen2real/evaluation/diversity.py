"""How varied a set of features is: its magnitude, its directions, its effective rank.

These three are **ours**. RegFT's paper speaks of a diversity of magnitude (D_Mag) and of direction (D_Dir), but its
formulas are unknown to us, so no number from here may be published under those names. They are what its
regulariser's two parts push on: `variance` raises the magnitude, `covariance` the directions.

All are computed in float64 and are defined, finite and zero for a set that does not vary at all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gen2real.errors import ImageSetError, ModelError


@dataclass(frozen=True)
class Diversity:
    """magnitude: in the features' unit. direction: in [0, 1]. effective_rank: in [0, dimension]; relative_rank: its
    share of the dimension. count, dimension: N and D."""

    magnitude: float
    direction: float
    effective_rank: float
    relative_rank: float
    count: int
    dimension: int

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


def measure_diversity(features: Float[Tensor, "n d"]) -> Diversity:
    """All three of [N D] features.

    Raises ImageSetError for no features and ModelError for non-finite ones.
    """
    count, dimension = features.shape
    rank = effective_rank(features)
    return Diversity(magnitude(features), direction(features), rank, rank / dimension, count, dimension)


def magnitude(features: Float[Tensor, "n d"]) -> float:
    """The mean over dimensions of the standard deviation (unbiased variance); 0 for one sample. Ours, not D_Mag."""
    centered = _centered(features)
    # (1/d) Σ_j √C_jj
    return float(_deviations(centered).mean())


def direction(features: Float[Tensor, "n d"]) -> float:
    """1 − the mean |correlation| between two different dimensions: 1 if uncorrelated, 0 if all move together.

    Dimensions that never change have no correlation and are left out; with fewer than two that do change the result is
    0. Chance alone leaves a mean |correlation| of about √(2/πN): compare only sets of equal size. Ours, not D_Dir.
    """
    centered = _centered(features)
    deviations = _deviations(centered)
    varying = deviations > 0
    width = int(varying.sum())
    if width < 2:
        return 0.0
    standard = centered[:, varying] / deviations[varying]
    correlation = standard.T @ standard / (len(centered) - 1)
    # 1 − Σ_{i≠j} |ρ_ij| / (d(d − 1))
    off_diagonal = correlation.abs().sum() - correlation.diagonal().abs().sum()
    return min(1.0, max(0.0, 1 - float(off_diagonal) / (width * (width - 1))))


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """exp(H(λ / Σλ)) of the covariance's eigenvalues λ (Roy and Vetterli 2007): how many directions share the variance.

    Between 1 (all variance along one line) and min(N − 1, D); 0 if there is no variance.
    """
    centered = _centered(features)
    count, dimension = centered.shape
    # Both sides have the same non-zero eigenvalues.
    gram = centered @ centered.T if count < dimension else centered.T @ centered
    eigenvalues = torch.linalg.eigvalsh(gram).clamp(min=0)
    total = eigenvalues.sum()
    if total == 0:
        return 0.0
    shares = eigenvalues / total
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


def _centered(features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Float64 deviations from the mean; exactly zero in dimensions that never change, which rounding would blur."""
    if features.ndim != 2 or 0 in features.shape:
        raise ImageSetError(f"diversity needs features [N D] of at least one picture; got {list(features.shape)}")
    if not torch.isfinite(features).all():
        rows = int((~torch.isfinite(features)).any(dim=1).sum())
        raise ModelError(f"features must be finite; {rows} of {len(features)} rows hold NaN or infinity")
    double = features.detach().double()
    constant = double.amax(dim=0) == double.amin(dim=0)
    return (double - double.mean(dim=0)).masked_fill(constant, 0.0)


def _deviations(centered: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    return (centered.square().sum(dim=0) / max(1, len(centered) - 1)).sqrt()
