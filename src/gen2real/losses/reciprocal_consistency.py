"""Reciprocal semantic consistency: what CLIP sees in a picture and what a denoiser sees in it agree."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from gen2real.losses._precision import outside_autocast, widen

FORMS = ("infonce", "cosine", "relational")
DIRECTIONS = ("both", "clip_to_diffusion", "diffusion_to_clip")


@outside_autocast
def reciprocal_consistency(
    clip: Float[Tensor, "n d"],
    diffusion: Float[Tensor, "n e"],
    *,
    form: Literal["infonce", "cosine", "relational"] = "infonce",
    direction: Literal["both", "clip_to_diffusion", "diffusion_to_clip"] = "both",
    temperature: float | int = 0.07,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, ""]:
    r"""Makes two views of one picture agree; each direction has one teacher, a constant, and one pupil.

    With C, D the L2-normalised rows, sg a constant to the gradient, and w the weights::

        L = ½ · [ ℓ(sg C, D) + ℓ(sg D, C) ]         "both": clip_to_diffusion and diffusion_to_clip, the mean of them
        ℓ(A, B) = Σ_i w_i · ℓ_i / Σ_i w_i

        "cosine":      ℓ_i = 1 − A_i · B_i
        "infonce":     ℓ_i = −½ · [ log softmax_j(A_i · B_j / τ)_i + log softmax_j(B_i · A_j / τ)_i ]
        "relational":  ℓ_i = KL(P_i ‖ Q_i),   P_i = softmax_{j≠i}(A_i · A_j / τ),   Q_i = softmax_{j≠i}(B_i · B_j / τ)

    "cosine" alone is content with features that are the same for every picture; "infonce" has the batch's other
    pictures against that, "relational" compares how the pictures of a batch resemble each other and needs no projector.

    Args:
        clip: [N D] and diffusion: [N E], row i of both of picture i. Normalised inside. D = E but for "relational".
        temperature: τ, above 0; not used by "cosine".
        weights: [N], 0 or more; None: all alike. A row of weight 0 is left out altogether: it is not asked, and no
            answer to others. As of a picture with so much noise that the denoiser sees nothing in it.

    Returns: a scalar of 0 or more, float32 (float64 for float64 input). Where too few rows weigh anything to say
        something (none for "cosine", fewer than two for the others) it is 0, and still hangs on the pupils' graph.

    Raises: ValueError for another form or direction, D ≠ E, a temperature that is not above 0, a negative weight.

    Source: UniDiff (arXiv 2306.00813) by name only; its equation is not public, so the forms, τ and the stopped
    gradients are ours.

    Example:
        >>> import torch
        >>> clip, diffusion = torch.randn(8, 32, requires_grad=True), torch.randn(8, 32, requires_grad=True)
        >>> loss = reciprocal_consistency(clip, diffusion)
    """
    _check(clip, diffusion, form, direction, temperature)
    pairs = []
    if direction in ("both", "clip_to_diffusion"):
        pairs.append((clip.detach(), diffusion))
    if direction in ("both", "diffusion_to_clip"):
        pairs.append((diffusion.detach(), clip))
    rows = torch.ones(len(clip), device=clip.device) if weights is None else weights
    if bool((rows < 0).any()):
        raise ValueError(f"weights go down to {float(rows.min()):g}; expected 0 or more")
    keep = rows > 0
    if int(keep.sum()) < (1 if form == "cosine" else 2):
        # An empty sum: nothing of rows that may not even be finite.
        return torch.stack([widen(pupil)[:0].sum() for _, pupil in pairs]).mean()
    sides = [
        _terms(F.normalize(widen(a)[keep], dim=-1), F.normalize(widen(b)[keep], dim=-1), form, temperature)
        for a, b in pairs
    ]
    share = rows[keep].to(sides[0])
    return torch.stack([(terms * share).sum() / share.sum() for terms in sides]).mean()


def _terms(
    teacher: Float[Tensor, "n d"], pupil: Float[Tensor, "n e"], form: str, temperature: float | int
) -> Float[Tensor, " n"]:
    if form == "cosine":
        return 1 - (teacher * pupil).sum(dim=-1)
    if form == "infonce":
        similarity = teacher @ pupil.T / temperature
        own = torch.arange(len(similarity), device=similarity.device)
        there, back = (F.cross_entropy(side, own, reduction="none") for side in (similarity, similarity.T))
        return (there + back) / 2
    # KL(P ‖ Q) = Σ_j P_j · (log P_j − log Q_j)
    log_p, log_q = (F.log_softmax(_others(side @ side.T) / temperature, dim=-1) for side in (teacher, pupil))
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _others(square: Float[Tensor, "n n"]) -> Float[Tensor, "n m"]:
    """[N N] without its diagonal, [N N−1]."""
    count = len(square)
    return square.flatten()[1:].view(count - 1, count + 1)[:, :-1].reshape(count, count - 1)


def _check(clip: Tensor, diffusion: Tensor, form: str, direction: str, temperature: float | int) -> None:
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; expected one of {', '.join(FORMS)}")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction is {direction!r}; expected one of {', '.join(DIRECTIONS)}")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; expected a number above 0, such as 0.07")
    if form != "relational" and clip.shape != diffusion.shape:
        raise ValueError(
            f"clip has shape {list(clip.shape)} and diffusion {list(diffusion.shape)}; {form} compares them row by row "
            "and needs one shape. Project one of them, or take form='relational'."
        )
