"""The global alignment kernel: against every alignment written out, known numbers of alignments, and soft-DTW."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gen2real.losses import global_alignment_kernel, soft_dtw

DELANNOY = [1, 3, 13, 63, 321, 1683, 8989, 48639, 265729, 1462563]
SIZES = [(n, m) for n in range(1, 5) for m in range(1, 5)]


def alignments(n: int, m: int) -> Iterator[list[tuple[int, int]]]:
    """All ways from (0, 0) to (n − 1, m − 1), by their definition."""
    if n < 1 or m < 1:
        return
    if (n, m) == (1, 1):
        yield [(0, 0)]
    for before in ((n - 1, m), (n, m - 1), (n - 1, m - 1)):
        for way in alignments(*before):
            yield [*way, (n - 1, m - 1)]


def by_hand(phi: list[list[float]], n: int, m: int, bandwidth: float) -> tuple[float, int]:
    """The sum over alignments in plain Python, and their number."""
    sigma = bandwidth * math.sqrt((n + m) / 2)
    total, count = 0.0, 0
    for way in alignments(n, m):
        product = 1.0
        for i, j in way:
            s = math.exp(-phi[i][j] / (2 * sigma**2))
            product *= s / (2 - s)
        total, count = total + product, count + 1
    return total, count


def ragged(generator: torch.Generator, *, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """All lengths from 1 × 1 to 4 × 4 in one table, NaN beyond them."""
    lengths = torch.tensor(SIZES)
    distance = 4 * torch.rand(len(SIZES), 5, 4, generator=generator, dtype=torch.float64)
    for row, (n, m) in enumerate(SIZES):
        distance[row, n:] = math.nan
        distance[row, :, m:] = math.nan
    return distance.to(dtype), lengths


@pytest.mark.parametrize("domain", ["linear", "log", "auto"])
@pytest.mark.parametrize("bandwidth", [0.5, 1, 2.0])
def test_it_is_the_sum_over_every_alignment(generator: torch.Generator, domain: Any, bandwidth: float) -> None:
    distance, lengths = ragged(generator)
    found = global_alignment_kernel(distance, lengths, bandwidth=bandwidth, normalize="none", domain=domain)
    mean = global_alignment_kernel(distance, lengths, bandwidth=bandwidth, domain=domain)
    for row, (n, m) in enumerate(SIZES):
        total, count = by_hand(distance[row].tolist(), n, m, bandwidth)
        assert found[row].item() == pytest.approx(total, rel=1e-13)
        assert mean[row].item() == pytest.approx(total / count, rel=1e-13)
    assert found.dtype == mean.dtype == torch.float64


@pytest.mark.parametrize("domain", ["linear", "log"])
def test_equal_sequences_count_their_alignments(domain: Any) -> None:
    side = len(DELANNOY)
    lengths = torch.arange(1, side + 1)[:, None].repeat(1, 2)
    none_apart = torch.zeros(side, side, side, dtype=torch.float64)
    found = global_alignment_kernel(none_apart, lengths, normalize="none", domain=domain)
    assert found.tolist() == pytest.approx(DELANNOY, rel=1e-13)
    if domain == "linear":
        assert found.tolist() == DELANNOY, "whole numbers, and exactly"
    mean = global_alignment_kernel(none_apart, lengths, domain=domain)
    assert mean.tolist() == pytest.approx([1] * side, rel=1e-13)


def test_one_slice_each_is_the_local_kernel() -> None:
    # s = exp(−φ / 2δ²) with φ = 2(1 − cos): K = s / (2 − s)
    cosine = torch.tensor([1.0, 0.5, 0.0, -1.0], dtype=torch.float64)
    found = global_alignment_kernel((2 - 2 * cosine)[:, None, None], torch.ones(4, 2, dtype=torch.int64), bandwidth=0.8)
    s = torch.exp(-(1 - cosine) / 0.8**2)
    assert torch.allclose(found, s / (2 - s), rtol=1e-14, atol=0)


# tslearn 0.10.0: unnormalized_gak(a, b, sigma) of SEQUENCES, in the order of pairs (0, 0), (0, 1), …, (3, 3).
SEQUENCES = [
    [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]],
    [[0.0, 1.0], [2.0, 1.0]],
    [[0.5, 0.0], [1.0, 0.5], [1.0, 1.0], [2.0, 0.0]],
    [[1.0, 1.0]],
]
TSLEARN = {
    0.5: [
        *(1.3220190728706063, 0.00010135760705133594, 0.004925081362559238, 0.0006708074439817908),
        *(1.0003355189049292, 3.0068254000491373e-05, 0.005267694329490211),
        *(2.98648258410396, 0.00017217788586237315, 1.0),
    ],
    1.5: [
        *(6.766363938153702, 0.7018948837364904, 4.833344609875838, 0.3150607119579965),
        *(1.5174843861539067, 0.7944247164978614, 0.445811895273978),
        *(24.532247259855104, 0.25815925522358135, 1.0),
    ],
}


@pytest.mark.parametrize("sigma", TSLEARN)
def test_in_one_space_with_one_sigma_it_is_tslearns(sigma: float) -> None:
    """Ours grows with the lengths, σ = δ√((n+m)/2); here δ is chosen so that it does not."""
    rows = [torch.tensor(one, dtype=torch.float64) for one in SEQUENCES]
    found = []
    for place, one in enumerate(rows):
        for other in rows[place:]:
            lengths = torch.tensor([[len(one), len(other)]])
            phi = (one[:, None] - other).square().sum(dim=2)[None]
            bandwidth = sigma / math.sqrt((len(one) + len(other)) / 2)
            found.append(global_alignment_kernel(phi, lengths, bandwidth=bandwidth, normalize="none").item())
    assert found == pytest.approx(TSLEARN[sigma], rel=1e-12)


def test_it_is_symmetric_and_knows_the_order(generator: torch.Generator) -> None:
    distance, lengths = ragged(generator)
    there = global_alignment_kernel(distance, lengths)
    back = global_alignment_kernel(distance.transpose(1, 2), lengths.flip(1))
    assert torch.allclose(there, back, rtol=1e-14, atol=0)
    rows = torch.nn.functional.normalize(torch.randn(5, 16, generator=generator, dtype=torch.float64), dim=1)
    own = torch.cdist(rows, rows).square()
    same, reversed_ = global_alignment_kernel(torch.stack([own, own.flip(1)]), torch.tensor([[5, 5], [5, 5]])).tolist()
    assert same > 1.5 * reversed_


def test_its_logarithm_is_soft_dtw_of_the_scaled_distance(generator: torch.Generator) -> None:
    distance, lengths = ragged(generator)
    halves = distance / (0.7**2 * lengths.double().sum(dim=1)[:, None, None])
    scaled = halves + torch.log(2 - torch.exp(-halves))
    kernel = global_alignment_kernel(distance, lengths, bandwidth=0.7, normalize="none")
    assert torch.allclose(-torch.log(kernel), soft_dtw(scaled, lengths, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_many_slices_leave_the_range_of_floats_only_as_a_sum(dtype: torch.dtype, generator: torch.Generator) -> None:
    """60 × 60 alignments are more than float32 counts, and "auto" means the logarithms then."""
    distance = torch.rand(3, 60, 60, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([[60, 60], [60, 41], [7, 58]])
    expected = global_alignment_kernel(distance, lengths, domain="linear")
    found = global_alignment_kernel(distance.to(dtype), lengths)
    assert found.dtype == dtype
    assert torch.allclose(found.double(), expected, rtol=1e-3 if dtype == torch.float32 else 1e-12, atol=0)
    if dtype == torch.float32:
        overflown = global_alignment_kernel(0 * distance.float(), lengths, normalize="none", domain="linear")
        assert overflown[0].isinf()
        assert global_alignment_kernel(0 * distance.float(), lengths).tolist() == pytest.approx([1, 1, 1], rel=1e-3)


def test_very_long_sequences_have_a_mean() -> None:
    far = torch.zeros(1, 420, 420, dtype=torch.float64)
    assert global_alignment_kernel(far, torch.tensor([[420, 420]])).item() == pytest.approx(1, rel=1e-9)


def test_the_way_the_table_lies_in_memory_does_not_matter(generator: torch.Generator) -> None:
    distance, lengths = ragged(generator)
    beside = distance.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(global_alignment_kernel(distance, lengths), global_alignment_kernel(beside, lengths))


def test_pairs_are_computed_in_portions_and_do_not_mix(generator: torch.Generator) -> None:
    distance, lengths = ragged(generator)
    many, long = distance.repeat(700, 1, 1), lengths.repeat(700, 1)
    assert torch.equal(global_alignment_kernel(many, long), global_alignment_kernel(distance, lengths).repeat(700))
    assert global_alignment_kernel(distance[:0], lengths[:0]).shape == (0,)


def test_it_computes_in_float32_and_has_no_gradient(generator: torch.Generator) -> None:
    distance, lengths = ragged(generator, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = global_alignment_kernel(distance.requires_grad_(), lengths)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert torch.equal(found, global_alignment_kernel(distance.float(), lengths))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bandwidth": 0.0}, "bandwidth is 0.0"),
        ({"normalize": "self"}, "normalize is 'self'; expected one of paths, none"),
        ({"domain": "fast"}, "domain is 'fast'"),
        ({"lengths": torch.tensor([[2, 4]])}, r"lengths go from \[2, 4\].* \[2, 3\] at most"),
        ({"lengths": torch.tensor([[0, 3]])}, "expected 1 at least"),
        ({"lengths": torch.tensor([2, 3])}, r"lengths has shape \[2\] and distance \[1, 2, 3\]; expected .* \[1, 2\]"),
    ],
)
def test_what_it_refuses(changes: dict[str, Any], message: str) -> None:
    # As it runs outside the tests, where words are not checked at the door.
    bare = inspect.unwrap(global_alignment_kernel)
    with pytest.raises(ValueError, match=message):
        bare(torch.zeros(1, 2, 3), **{"lengths": torch.tensor([[2, 3]]), **changes})
