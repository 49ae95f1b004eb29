"""How a batch's embeddings resemble each other, made what the targets say."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from gen2real.losses._precision import outside_autocast, widen

SCALES = ("mean", "rows")


@outside_autocast
def structure(
    similarity: Float[Tensor, "n n"],
    target: Float[Tensor, "n n"],
    *,
    scale: Literal["mean", "rows"] = "mean",
) -> Float[Tensor, ""]:
    r"""Squared differences of two similarity matrices: relational distillation without positives or a temperature.

    With R the similarities of the embeddings in training and T those that their contents should have::

        "mean":  L = 1/N² · Σ_ij (R_ij − T_ij)²
        "rows":  L = 1/N · Σ_ij (R_ij − T_ij)²

    Args:
        similarity: [N N], cosines of N embeddings.
        target: [N N], a constant to the gradient.
        scale: "rows" is the paper's, and grows with N; with "mean" (ours) a weight that suits one batch suits another.

    Returns: a scalar of 0 or more, float32 (float64 for float64 input); 0 for no rows, and still on the graph.

    Raises: ValueError for another scale, or matrices of differing shapes.

    Source: Sugar (arXiv 2411.00304), equation 3.

    Example:
        >>> import torch
        >>> rows = torch.nn.functional.normalize(torch.randn(8, 16, requires_grad=True), dim=1)
        >>> loss = structure(rows @ rows.T, torch.eye(8))
    """
    if scale not in SCALES:
        raise ValueError(f'scale is {scale!r}; expected "mean" (1/N²) or "rows" (1/N, as in the paper)')
    # Shapes that broadcast would give a number, and a wrong one.
    if similarity.shape != target.shape:
        raise ValueError(
            f"similarity has shape {list(similarity.shape)} and target {list(target.shape)}; expected one shape, [N, N]"
        )
    rows = widen(similarity)
    # Σ_ij (R_ij − T_ij)²
    total = (rows - target.detach().to(rows)).square().sum()
    return total / max(len(rows) ** (2 if scale == "mean" else 1), 1)
