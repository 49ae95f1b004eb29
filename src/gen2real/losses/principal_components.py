"""What a batch's features share: their reconstruction from the batch's first principal components."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gen2real.losses._precision import outside_autocast, widen


@outside_autocast
def from_principal_components(features: Float[Tensor, "n d"], components: int) -> Float[Tensor, "n d"]:
    r"""Each row with only what the batch's first principal components say of it.

    With μ the mean of the rows X [N D] and V [D k] the first k eigenvectors of their covariance::

        X' = μ + (X − μ) V Vᵀ

    Args:
        features: [N D]. Long-CLIP gives them at unit length.
        components: k, at least 1. With N − 1 or more of them the rows come back as they were.

    Returns: [N D], float32 (float64 for float64 input). The gradient flows through X and μ; V is a constant to it
    (ours): the eigenvectors' own gradient is infinite where two eigenvalues are equal, as those of a batch smaller
    than D are.

    Raises: ValueError for fewer than one component.

    Source: Long-CLIP (arXiv 2403.15378), section 3.3: primary component matching, k = 32.

    Example:
        >>> import torch
        >>> coarse = from_principal_components(torch.randn(64, 128), 32)
    """
    if components < 1:
        raise ValueError(f"components is {components}; expected at least 1, such as Long-CLIP's 32")
    rows = widen(features)
    mean = rows.mean(dim=0)
    centred = rows - mean
    with torch.no_grad():
        directions = torch.linalg.svd(centred, full_matrices=False).Vh[:components].T
    # X' = μ + (X − μ) V Vᵀ
    return mean + centred @ directions @ directions.T
