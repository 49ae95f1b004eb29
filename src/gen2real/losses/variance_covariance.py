"""Variance–covariance regularisation: keeps a batch's features spread out and uncorrelated."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gen2real.losses._precision import outside_autocast, widen


class VarianceCovariance(NamedTuple):
    """The two terms, unweighted."""

    variance: Tensor
    covariance: Tensor


@outside_autocast
def variance_covariance(
    features: Float[Tensor, "n d"],
    *,
    target_std: float = 1.0,
    eps: float = 1e-7,
    normalizer: Literal["pairs", "dim"] = "pairs",
) -> VarianceCovariance:
    r"""Penalises dimensions that hardly vary over the batch, and pairs of dimensions that vary together.

    With C the unbiased covariance of the batch Z [N D]::

        V = 1/D · Σ_j max(0, target_std − √(C_jj + eps))
        K = 1/norm · Σ_{i≠j} C_ij²,     norm = D(D−1) for "pairs", D for "dim"

    Args:
        features: [N D], one row a picture. RegFT takes the image encoder's output before it is normalised.
        target_std: below this standard deviation a dimension is pushed outwards, in the features' own unit.
        eps: keeps the root's gradient finite at zero variance. RegFT's code has 1e-7, VICReg 1e-4.
        normalizer: "pairs" is RegFT's code; "dim" is VICReg's and D−1 times larger.

    Returns:
        Two scalars, float32 (float64 for float64 features). One sample, or one dimension, gives finite values.

    RegFT weighs them 0.16·V + 0.02·K. At D = 512 that makes K about 160 times weaker than in VICReg.

    Source: RegFT (arXiv 2406.05432), authors' code; VICReg (arXiv 2105.04906), equations 1, 3 and 4.

    Example:
        >>> import torch
        >>> terms = variance_covariance(torch.randn(128, 512))
        >>> loss = 0.16 * terms.variance + 0.02 * terms.covariance
    """
    if normalizer not in ("pairs", "dim"):
        raise ValueError(f'normalizer is {normalizer!r}; expected "pairs" (RegFT) or "dim" (VICReg)')
    z = widen(features)
    n, d = z.shape
    centred = z - z.mean(dim=0)
    # C = (Z − mean)ᵀ(Z − mean) / (N − 1); a single sample has no spread, and its C is zero
    c = centred.T @ centred / max(n - 1, 1)
    std = torch.sqrt(c.diagonal() + eps)
    # V = 1/D · Σ_j max(0, target_std − s_j)
    variance = torch.relu(target_std - std).mean()
    # K = 1/norm · Σ_{i≠j} C_ij²
    off_diagonal = c - torch.diag(c.diagonal())
    norm = d * (d - 1) if normalizer == "pairs" else d
    covariance = off_diagonal.square().sum() / max(norm, 1)
    return VarianceCovariance(variance, covariance)
