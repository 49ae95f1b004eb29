"""Cross-entropy against a teacher's softened answer."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gen2real.losses._precision import outside_autocast, widen


@outside_autocast
def soft_target_cross_entropy(
    logits: Float[Tensor, "n c"], teacher_logits: Float[Tensor, "n c"], *, temperature: float = 2.0
) -> Float[Tensor, ""]:
    r"""Keeps a classifier near its teacher's answers.

    With temperature τ and teacher logits t::

        L = −1/N · Σ_i Σ_c softmax(t_i/τ)_c · log softmax(x_i/τ)_c

    Args:
        logits: [N C] of the classifier in training.
        teacher_logits: [N C]; no gradient goes to them. He et al. take the zero-shot head on the same pictures.
        temperature: above 1 softens both sides; 2 in He et al. No factor τ² is applied.

    Returns: a scalar, float32 (float64 for float64 input).

    Source: He et al., "Is synthetic data from generative models ready for image recognition?" (arXiv 2210.07574),
    which mixes it half and half with the plain cross-entropy.

    Example:
        >>> import torch
        >>> loss = soft_target_cross_entropy(torch.randn(8, 10), torch.randn(8, 10))
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; expected a number above 0 (He et al. have 2.0)")
    target = F.softmax(widen(teacher_logits).detach() / temperature, dim=-1)
    return F.cross_entropy(widen(logits) / temperature, target)
