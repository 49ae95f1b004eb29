"""Distribution alignment: by hand, against independent oracles, and what it must not care about."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from gen2real.losses import distribution_alignment

FORMS = ("moments", "mmd")


def rows(seed: int, count: int, dim: int = 5, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64) + shift


def test_moments_as_numpy_has_them() -> None:
    generated, real = rows(0, 9), rows(1, 13, shift=0.5)
    g, r = ((side / side.norm(dim=1, keepdim=True)).numpy() * np.sqrt(5) for side in (generated, real))
    means = ((g.mean(0) - r.mean(0)) ** 2).sum() / 5
    coral = np.linalg.norm(np.cov(g.T) - np.cov(r.T), "fro") ** 2 / (4 * 5**2)
    assert distribution_alignment(generated, real).item() == pytest.approx(means + coral, rel=1e-12)


def test_the_kernel_distance_pair_by_pair() -> None:
    generated, real = rows(0, 4), rows(1, 6, shift=0.5)
    g, r = ((side / side.norm(dim=1, keepdim=True)).numpy() * np.sqrt(5) for side in (generated, real))
    every = np.concatenate([g, r])
    squared = sorted(((x - y) ** 2).sum() for i, x in enumerate(every) for j, y in enumerate(every) if i != j)
    median = squared[(len(squared) - 1) // 2]

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([np.exp(-((x - y) ** 2).sum() / (2 * w * median)) for w in (0.25, 0.5, 1, 2, 4)]))

    def mean(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.mean([[kernel(x, y) for y in other] for x in one]))

    expected = mean(g, g) + mean(r, r) - 2 * mean(g, r)
    assert distribution_alignment(generated, real, form="mmd").item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_no_row_has_a_partner(form: str) -> None:
    generated, real = rows(0, 8), rows(1, 12, shift=1.0)
    found = distribution_alignment(generated, real, form=form)  # type: ignore[arg-type]
    again = distribution_alignment(generated.flip(0), 4 * real.roll(3, 0), form=form)  # type: ignore[arg-type]
    torch.testing.assert_close(found, again)
    same = distribution_alignment(generated, generated.flip(0), form=form)  # type: ignore[arg-type]
    assert same.item() == pytest.approx(0, abs=1e-12)
    near = distribution_alignment(rows(2, 200), rows(3, 200), form=form)  # type: ignore[arg-type]
    assert 0 <= near < 0.2 * distribution_alignment(rows(2, 200), rows(3, 200, shift=1.0), form=form)  # type: ignore[arg-type]


def test_moments_see_a_spread_that_the_means_do_not() -> None:
    """Two sets about the same centre, one along one axis and one along the other."""
    one = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    # √2 · the rows: C = diag(4, 0) against diag(0, 4), 1/(4·4) · (16 + 16)
    assert distribution_alignment(one, one.flip(1)).item() == pytest.approx(2.0)


@pytest.mark.parametrize("form", FORMS)
def test_following_the_gradient_brings_the_sets_together(form: str) -> None:
    real, moved = rows(1, 40, shift=0.8), rows(0, 30).requires_grad_()
    before = distribution_alignment(moved, real, form=form)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam([moved], lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        distribution_alignment(moved, real, form=form).backward()  # type: ignore[arg-type]
        optimizer.step()
    assert distribution_alignment(moved, real, form=form) < 0.2 * before.detach()  # type: ignore[arg-type]
    gap = normalize(moved.detach(), dim=1).mean(0) - normalize(real, dim=1).mean(0)
    assert gap.norm() < 0.1


@pytest.mark.parametrize("form", FORMS)
def test_one_row_and_twins_are_finite_with_their_gradients(form: str) -> None:
    for count in (1, 3):
        generated = torch.ones(count, 4, requires_grad=True)
        loss = distribution_alignment(generated, torch.ones(1, 4), form=form)  # type: ignore[arg-type]
        loss.backward()
        assert generated.grad is not None
        assert torch.isfinite(loss)
        assert torch.isfinite(generated.grad).all()


def test_what_cannot_be_computed_is_said() -> None:
    # With shapes checked, as in tests, the types are told of first.
    with pytest.raises(Exception, match="moments"):
        distribution_alignment(rows(0, 2), rows(1, 2), form="coral")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="both sides need rows; got 2 generated and 0 real ones"):
        distribution_alignment(rows(0, 2), rows(1, 0))
