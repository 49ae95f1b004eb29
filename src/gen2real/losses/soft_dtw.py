"""How well two sequences can be aligned: dynamic time warping with a soft minimum, so that it has a gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from gen2real.losses._alignments import (
    Table,
    anti_diagonals,
    check_lengths,
    countable,
    last_places,
    portions,
    within,
)
from gen2real.losses._precision import outside_autocast, widen

CELLS = 1 << 15


@outside_autocast
def soft_dtw(
    cost: Float[Tensor, "p n m"], lengths: Int[Tensor, "p 2"], gamma: float | int = 1.0
) -> Float[Tensor, " p"]:
    r"""The soft minimum, over all alignments of a pair, of the sum of the costs along the alignment.

    An alignment π goes from (1, 1) to (n, m) in steps (1, 0), (0, 1), (1, 1)::

        soft-DTW = −γ · log Σ_π exp(−Σ_{(i,j) ∈ π} C_ij / γ)

    Its gradient in C_ij is the share of the alignments, each weighted by its exponential, that pass (i, j). With γ = 1
    and C = φ_σ it is −log of `global_alignment_kernel(…, normalize="none")`.

    Args:
        cost: [P N M] of P pairs, finite; what lies beyond a pair's lengths may be anything, NaN too, and gets no
            gradient.
        lengths: [P 2], (n, m) of each pair, 1 to N and 1 to M.
        gamma: γ, above 0, in the unit of the costs. The smaller, the nearer to the least cost of an alignment.

    Returns: [P], float32 (float64 for float64 costs). Below 0 where the costs are small: many alignments are cheaper
        than one. It has a first derivative, and no second.

    Raises: ValueError for a γ that is not above 0, or lengths that are not 1 to N and 1 to M.

    Source: Cuturi and Blondel, "Soft-DTW: a differentiable loss function for time-series" (arXiv 1703.01541),
    equation 1 and algorithms 1 and 2.

    Example:
        >>> import torch
        >>> left, right = torch.randn(2, 5, 8), torch.randn(2, 7, 8, requires_grad=True)
        >>> loss = soft_dtw(torch.cdist(left, right).square(), torch.tensor([[5, 7], [3, 6]])).mean()
    """
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma is {gamma}; expected a finite number above 0, such as 1.0")
    check_lengths("cost", cost, lengths)
    if len(cost) == 0:
        return widen(cost).sum(dim=(1, 2))
    return _SoftDTW.apply(widen(cost), lengths, float(gamma))


class _SoftDTW(torch.autograd.Function):
    """Computes the gradient along with the value: what is kept is one table, as large as the costs."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, lengths: Tensor, gamma: float) -> Tensor:
        values, shares = [], []
        for some, ends in portions(cost, lengths, CELLS):
            inside = within(ends, *some.shape[1:])
            scaled = torch.where(inside, some.permute(1, 2, 0) / gamma, 0).contiguous()
            value, share = soft_minimum(scaled, ends, with_gradient=ctx.needs_input_grad[0])
            values.append(gamma * value)
            if share is not None:
                shares.append(share.permute(2, 0, 1))
        if shares:
            ctx.save_for_backward(torch.cat(shares))
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (share,) = ctx.saved_tensors
        return grad[:, None, None] * share, None, None


def soft_minimum(
    cost: Float[Tensor, "n m p"], lengths: Int[Tensor, "p 2"], *, with_gradient: bool = False
) -> tuple[Float[Tensor, " p"], Float[Tensor, "n m p"] | None]:
    r"""soft-DTW with γ = 1, of costs that are finite beyond the lengths too, and its gradient where it is asked for.

    exp(−C) is 0 for every alignment of a costly pair. So all is told in proportion to exp(−H), H the least cost of an
    alignment up to a cell: then no factor W is above 1, and those of the best alignment are 1::

        H_ij = C_ij + min(H_left, H_up, H_corner)
        W(from → ij) = exp(H_ij − C_ij − H_from)
        F_ij = Σ_from F_from · W(from → ij)          from 1 before the first place; at most the number of alignments
        B_ij = Σ_to W(ij → to) · B_to                1 at the last place
        soft-DTW = H_nm − log F_nm,   gradient F_ij · B_ij / F_nm

    Where floats cannot count the alignments H is soft-DTW itself up to a cell, by soft minima, and F is 1.
    """
    n, m, _ = cost.shape
    hard = countable(n, m, cost.dtype)
    last = last_places(lengths)
    least = Table(cost, border=math.inf, start=0)
    for own, left, up, corner, price in anti_diagonals(least.own, least.left, least.up, least.corner, cost):
        torch.minimum(left, up, out=own)
        torch.minimum(own, corner, out=own)
        if not hard:
            own.sub_(torch.exp(own - left).add_(torch.exp(own - up)).add_(torch.exp(own - corner)).log_())
        own.add_(price)
    value = least.own[last]
    if not hard and not with_gradient:
        return value, None
    reached = least.own - cost
    steps = [torch.exp(reached - before) for before in (least.left, least.up, least.corner)]
    forth = Table(cost, border=0, start=1)
    if hard:
        for own, left, up, corner, *weights in anti_diagonals(forth.own, forth.left, forth.up, forth.corner, *steps):
            torch.mul(left, weights[0], out=own)
            own.addcmul_(up, weights[1])
            own.addcmul_(corner, weights[2])
        total = forth.own[last]
        value = value - total.log()
    if not with_gradient:
        return value, None
    back = Table(cost, border=0, start=0)
    back.own.zero_()
    back.own[last] = 1
    for own, left, up, corner, *weights in reversed(anti_diagonals(back.own, back.left, back.up, back.corner, *steps)):
        left.addcmul_(own, weights[0])
        up.addcmul_(own, weights[1])
        corner.addcmul_(own, weights[2])
    return value, (back.own * forth.own).div_(total) if hard else back.own
