"""GMAIL's alignment of generated pictures to real ones: a contrastive loss from one modality to the other."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gen2real.losses._precision import outside_autocast, widen


@outside_autocast
def modality_alignment(
    generated: Float[Tensor, "n d"],
    real: Float[Tensor, "n d"],
    temperature: float | int = 0.07,
    *,
    symmetric: bool = False,
    groups: Int[Tensor, " n"] | None = None,
    same_partner: Literal["positives", "masked"] = "positives",
) -> Float[Tensor, ""]:
    r"""Pulls each generated picture to its real partner and pushes it from the other real pictures of the batch.

    With G, R the L2-normalised rows and S = G Rᵀ / τ::

        L = −1/N · Σ_i log [ exp(S_ii) / Σ_j exp(S_ij) ]

    One direction only: the anchor is the generated picture, the candidates are the real ones.

    Args:
        generated, real: [N D]; row i of one belongs to row i of the other. Normalised inside. Whether a gradient flows
            to `real` is the caller's: GMAIL's are constants.
        temperature: τ, above 0.
        symmetric: the mean with the same loss from real to generated (ours; CLIP's form).
        groups: [N] integers, the same for rows of one real partner: several generated pictures of one real one are
            each other's false negatives. None: as the paper has it, they count as negatives.
        same_partner: with `groups`, "positives" shares the target equally among a row's group, "masked" leaves the
            others of the group out of the sum over j (ours, both).

    Returns: a scalar, float32 (float64 for float64 input).

    Raises: ValueError for a temperature that is not above 0, or another word for `same_partner`.

    Source: GMAIL (arXiv 2602.15368), equation 1; several positives as in StableRep (arXiv 2306.00984).

    Example:
        >>> import torch
        >>> loss = modality_alignment(torch.randn(8, 32, requires_grad=True), torch.randn(8, 32))
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a number above 0, such as GMAIL's 0.07")
    if same_partner not in ("positives", "masked"):
        raise ValueError(f'same_partner is {same_partner!r}; expected "positives" or "masked"')
    # S = G Rᵀ / τ
    similarity = F.normalize(widen(generated), dim=-1) @ F.normalize(widen(real), dim=-1).T / temperature
    own = torch.eye(len(similarity), dtype=similarity.dtype, device=similarity.device)
    target = own
    if groups is not None:
        same = groups[:, None] == groups[None, :]
        if same_partner == "masked":
            similarity = similarity.masked_fill(same & (own == 0), -math.inf)
        else:
            target = same.to(similarity.dtype) / same.sum(dim=1, keepdim=True)
    if same_partner == "masked" or groups is None:
        # −log softmax(S)_ii; a product with the target would make 0 · ∞ of what is masked.
        terms = [_own_term(similarity), _own_term(similarity.T)] if symmetric else [_own_term(similarity)]
    else:
        # Rows of one group have equal sums, so the target is its own transpose.
        sides = [similarity, similarity.T] if symmetric else [similarity]
        terms = [F.cross_entropy(side, target) for side in sides]
    return torch.stack(terms).mean()


def _own_term(similarity: Tensor) -> Tensor:
    return F.cross_entropy(similarity, torch.arange(len(similarity), device=similarity.device))
