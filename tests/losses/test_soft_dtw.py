"""Soft-DTW: every alignment written out, its gradient by numbers and by hand, ragged pairs, costs far beyond exp."""

from __future__ import annotations

import math

import pytest
import torch
from test_global_alignment_kernel import SIZES, alignments, ragged
from torch import Tensor

from gen2real.losses import soft_dtw


def by_hand(cost: list[list[float]], n: int, m: int, gamma: float) -> tuple[float, list[list[float]]]:
    """The soft minimum, and each cell's share of the alignments by their weights."""
    totals = [(way, sum(cost[i][j] for i, j in way)) for way in alignments(n, m)]
    least = min(total for _, total in totals)
    weights = [math.exp((least - total) / gamma) for _, total in totals]
    share = [[0.0] * len(cost[0]) for _ in cost]
    for (way, _), weight in zip(totals, weights, strict=True):
        for i, j in way:
            share[i][j] += weight / sum(weights)
    return least - gamma * math.log(sum(weights)), share


@pytest.mark.parametrize("gamma", [0.01, 1, 10.0])
def test_value_and_gradient_are_those_of_every_alignment(generator: torch.Generator, gamma: float) -> None:
    cost, lengths = ragged(generator)
    cost.requires_grad_()
    found = soft_dtw(cost, lengths, gamma)
    weights = torch.arange(1.0, len(SIZES) + 1, dtype=torch.float64)
    (found * weights).sum().backward()
    assert cost.grad is not None
    for row, (n, m) in enumerate(SIZES):
        value, share = by_hand(cost[row].tolist(), n, m, gamma)
        assert found[row].item() == pytest.approx(value, rel=1e-12, abs=1e-12)
        expected = (row + 1) * torch.tensor(share, dtype=torch.float64)
        assert torch.allclose(cost.grad[row], expected, rtol=1e-10, atol=1e-12), "and nothing beyond the lengths"


def test_gradcheck(generator: torch.Generator) -> None:
    cost = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([[4, 5], [2, 5], [3, 1]])
    assert torch.autograd.gradcheck(lambda own: soft_dtw(own, lengths, 0.7), cost)


def recursive(cost: Tensor, gamma: float) -> Tensor:
    """Algorithm 1 of the paper, cell by cell under autograd."""
    n, m = cost.shape
    table = {(0, 0): cost.new_zeros(())}
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            before = [table[own] for own in ((i - 1, j), (i, j - 1), (i - 1, j - 1)) if own in table]
            table[i, j] = cost[i - 1, j - 1] - gamma * torch.logsumexp(-torch.stack(before) / gamma, dim=0)
    return table[n, m]


def test_costs_far_beyond_the_range_of_exp(generator: torch.Generator) -> None:
    cost = (3000 * torch.rand(2, 9, 7, generator=generator, dtype=torch.float64)).requires_grad_()
    expected = torch.stack([recursive(own, 0.5) for own in cost])
    (slope,) = torch.autograd.grad(expected.sum(), cost)
    found = soft_dtw(cost, torch.tensor([[9, 7]] * 2), 0.5)
    (found_slope,) = torch.autograd.grad(found.sum(), cost)
    assert torch.allclose(found, expected, rtol=1e-13, atol=0)
    assert torch.allclose(found_slope, slope, rtol=0, atol=1e-10)


@pytest.mark.parametrize("largest", [1.0, 100.0])
def test_more_alignments_than_floats_can_count(largest: float, generator: torch.Generator) -> None:
    """60 × 60 have more than float32 counts and fewer than float64 does: another way to the same numbers."""
    cost = largest * torch.rand(3, 60, 60, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([[60, 60], [33, 60], [1, 7]])
    sides = []
    for dtype in (torch.float64, torch.float32):
        own = cost.to(dtype).requires_grad_()
        value = soft_dtw(own, lengths)
        (slope,) = torch.autograd.grad(value.sum(), own)
        assert value.dtype == slope.dtype == dtype
        assert torch.allclose(soft_dtw(own.detach(), lengths), value.detach()), "with or without a gradient"
        sides.append((value.detach().double(), slope.double()))
    assert torch.allclose(sides[0][0], sides[1][0], rtol=1e-5)
    assert torch.allclose(sides[0][1], sides[1][1], atol=1e-3)
    assert not sides[1][1][1, 33:].any()
    assert not sides[1][1][2, 1:].any()


def test_a_small_gamma_is_the_least_cost(generator: torch.Generator) -> None:
    cost = torch.rand(2, 4, 4, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([[4, 4], [4, 4]])
    least = [min(sum(own[i][j] for i, j in way) for way in alignments(4, 4)) for own in cost.tolist()]
    assert soft_dtw(cost, lengths, 1e-5).tolist() == pytest.approx(least, abs=1e-4)


def test_many_pairs_and_none(generator: torch.Generator) -> None:
    cost, lengths = ragged(generator)
    many = soft_dtw(cost.repeat(300, 1, 1), lengths.repeat(300, 1))
    assert torch.equal(many, soft_dtw(cost, lengths).repeat(300))
    none = cost[:0].requires_grad_()
    soft_dtw(none, lengths[:0]).sum().backward()
    assert none.grad is not None
    assert none.grad.shape == (0, 5, 4)


def test_it_computes_in_float32_under_autocast(generator: torch.Generator) -> None:
    cost, lengths = ragged(generator, dtype=torch.bfloat16)
    cost.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = soft_dtw(cost, lengths)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert cost.grad is not None
    assert cost.grad.dtype == torch.bfloat16
    assert cost.grad.isfinite().all()


def test_what_it_refuses() -> None:
    cost, lengths = torch.zeros(1, 2, 3), torch.tensor([[2, 3]])
    with pytest.raises(ValueError, match="gamma is 0"):
        soft_dtw(cost, lengths, 0)
    with pytest.raises(ValueError, match=r"lengths go from \[3, 3\]"):
        soft_dtw(cost, torch.tensor([[3, 3]]))
