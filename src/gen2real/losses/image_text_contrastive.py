"""The contrastive loss of CLIP between pictures and texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gen2real.losses._precision import outside_autocast, widen


@outside_autocast
def image_text_contrastive(
    image: Float[Tensor, "n d"],
    text: Float[Tensor, "n d"],
    scale: float | Float[Tensor, ""],
    *,
    groups: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    r"""Pulls each picture to its text and pushes it from the batch's other texts, and the other way round.

    With I, T the L2-normalised rows and S = scale · I Tᵀ::

        L = ½ · [ H(P, softmax(S)) + H(Pᵀ, softmax(Sᵀ)) ],     H(P, Q) = −1/N · Σ_i Σ_j P_ij · log Q_ij

    Args:
        image, text: [N D]; row i of one belongs to row i of the other. Normalised inside.
        scale: the factor exp(logit_scale), a number or a scalar tensor (which then receives a gradient).
        groups: [N] integers; rows with equal ids are all each other's positives and share the target equally
            (each row of P sums to one). None: only the diagonal is positive, so two pictures of one class count as
            negatives, as in CLIP and FLYP.

    Returns: a scalar, float32 (float64 for float64 input).

    Source: CLIP (arXiv 2103.00020), figure 3; several positives as in UniCL (arXiv 2204.03610), equation 3.

    Example:
        >>> import torch
        >>> loss = image_text_contrastive(torch.randn(8, 32), torch.randn(8, 32), 100.0)
    """
    image_unit = F.normalize(widen(image), dim=-1)
    text_unit = F.normalize(widen(text), dim=-1)
    # S = scale · I Tᵀ
    similarity = scale * image_unit @ text_unit.T
    if groups is None:
        target = torch.eye(len(similarity), dtype=similarity.dtype, device=similarity.device)
    else:
        same = (groups[:, None] == groups[None, :]).to(similarity.dtype)
        target = same / same.sum(dim=1, keepdim=True)
    # P is symmetric up to its row sums, and rows of one group have equal sums: Pᵀ = P
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2
