"""How well two sequences can be aligned: dynamic time warping with a soft minimum, so that it has a gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from gen2real.losses._alignments import Sums, check_lengths, countable, last_places, portions, side_by_side
from gen2real.losses._precision import outside_autocast, widen


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
        value = cost.new_empty(len(cost))
        share = cost.new_empty(cost.shape) if ctx.needs_input_grad[0] else None
        begin = 0
        for some, ends in portions(cost, lengths):
            here = slice(begin, begin + len(some))
            value[here] = -gamma * _log_sum(side_by_side(some) / gamma, ends, None if share is None else share[here])
            begin = here.stop
        if share is not None:
            ctx.save_for_backward(share)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (share,) = ctx.saved_tensors
        return grad[:, None, None] * share, None, None


def _log_sum(cost: Tensor, lengths: Tensor, share: Tensor | None) -> Tensor:
    """log Σ_π exp(−Σ C) of each pair [P], for costs [N M P], and into `share` [P N M] each cell's part of that sum.

    With F_ij the sum over the alignments that end in a cell, its own cost included, and B_ij over those that begin
    there, which is F of both sequences backwards::

        share_ij = F_ij · exp(C_ij) · B_ij / F_nm
    """
    n, m, pairs = cost.shape
    beyond = _beyond(lengths, n, m)
    if beyond is not None:
        cost.masked_fill_(beyond, 0)
    # Logarithms are always right, and take twice the time of sums.
    least, largest = (float(end) for end in cost.aminmax())
    in_logs = not countable(n, m, cost.dtype, least=least, largest=largest)
    sums = Sums(n, m, pairs if share is None else 2 * pairs, cost, in_logs=in_logs)
    forth, back = sums.cells[..., :pairs], sums.cells[..., pairs:]
    torch.neg(cost, out=forth)
    if share is not None:
        back.copy_(_backwards(forth, lengths, beyond))
    if not in_logs:
        sums.cells.exp_()
    sums.accumulate()
    total = forth[last_places(lengths)]
    if share is not None:
        back = _backwards(back, lengths, beyond)
        if in_logs:
            # Results below the normal range cost exp five times as much; they end at its edge.
            log_parts = cost.add_(forth).add_(back).sub_(total)
            parts = log_parts.clamp_(min=math.log(torch.finfo(cost.dtype).tiny)).exp_()
        else:
            parts = cost.exp_().mul_(forth).div_(total).mul_(back)
        if beyond is not None:
            parts.masked_fill_(beyond, 0)
        share.flatten(1).copy_(parts.flatten(0, 1).t())
    return total if in_logs else total.log()


def _beyond(lengths: Tensor, n: int, m: int) -> Tensor | None:
    """Which cells of a table [N M P] are beyond the lengths; None where none is."""
    if bool((lengths == lengths.new_tensor([n, m])).all()):
        return None
    rows = torch.arange(n, device=lengths.device)[:, None] >= lengths[:, 0]
    columns = torch.arange(m, device=lengths.device)[:, None] >= lengths[:, 1]
    return rows[:, None] | columns[None]


def _backwards(table: Tensor, lengths: Tensor, beyond: Tensor | None) -> Tensor:
    """Each pair's cells [N M P] from its last to its first; those beyond its lengths change places too."""
    if beyond is None:
        return table.flip(0, 1)
    n, m, pairs = table.shape
    rows = (lengths[:, 0] - 1 - torch.arange(n, device=table.device)[:, None]) % n
    columns = (lengths[:, 1] - 1 - torch.arange(m, device=table.device)[:, None]) % m
    return table[rows[:, None], columns[None], torch.arange(pairs, device=table.device)]
