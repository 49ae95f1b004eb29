from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation import direction, effective_rank, magnitude, measure_diversity


def test_four_points_by_hand() -> None:
    # Two uncorrelated dimensions with unbiased variances 4/3 and 16/3: λ shares 1/5 and 4/5.
    features = torch.tensor([[1.0, 2.0], [1.0, -2.0], [-1.0, 2.0], [-1.0, -2.0]])
    assert magnitude(features) == pytest.approx((math.sqrt(4 / 3) + math.sqrt(16 / 3)) / 2)
    assert direction(features) == pytest.approx(1.0)
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert effective_rank(features) == pytest.approx(math.exp(entropy))


@pytest.mark.parametrize("shape", [(50, 8), (6, 20)])
def test_against_numpy(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    array = rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1])) + 5
    features = torch.from_numpy(array)
    width = shape[1]
    assert magnitude(features) == pytest.approx(array.std(axis=0, ddof=1).mean())
    correlation = np.abs(np.corrcoef(array, rowvar=False))
    assert direction(features) == pytest.approx(1 - (correlation.sum() - width) / (width * (width - 1)))
    eigenvalues = np.linalg.eigvalsh(np.cov(array, rowvar=False)).clip(1e-300)
    shares = eigenvalues / eigenvalues.sum()
    assert effective_rank(features) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_rank_of_evenly_spread_directions_is_their_number() -> None:
    features = torch.cat([torch.eye(5), -torch.eye(5)])
    assert effective_rank(features) == pytest.approx(5)
    assert measure_diversity(features).relative_rank == pytest.approx(1)


def test_dimensions_that_move_together_have_one_direction() -> None:
    along = torch.arange(6.0)[:, None] * torch.tensor([1.0, -2.0, 3.0])
    assert direction(along) == pytest.approx(0, abs=1e-12)
    assert effective_rank(along) == pytest.approx(1, abs=1e-6)


def test_constant_dimensions_are_left_out_of_direction_only() -> None:
    # 0.1 is not exact in binary: its mean over three rows differs from it by rounding.
    features = torch.tensor([[1.0, 2.0, 0.1], [1.0, -2.0, 0.1], [-1.0, 2.0, 0.1], [-1.0, -2.0, 0.1]])
    assert direction(features) == pytest.approx(direction(features[:, :2]))
    assert magnitude(features) == pytest.approx(magnitude(features[:, :2]) * 2 / 3)


@pytest.mark.parametrize("features", [torch.full((1, 4), 0.3), torch.full((7, 4), 0.1), torch.full((1, 1), 2.0)])
def test_what_does_not_vary_has_no_diversity(features: torch.Tensor) -> None:
    found = measure_diversity(features)
    assert (found.magnitude, found.direction, found.effective_rank, found.relative_rank) == (0, 0, 0, 0)


def test_a_single_dimension_has_rank_one_and_no_pair_of_directions() -> None:
    features = torch.tensor([[1.0], [2.0], [4.0]])
    assert effective_rank(features) == pytest.approx(1)
    assert direction(features) == 0


def test_scale_moves_the_magnitude_only(generator: torch.Generator) -> None:
    features = torch.randn(30, 5, generator=generator)
    once, thrice = measure_diversity(features), measure_diversity(3 * features)
    assert thrice.magnitude == pytest.approx(3 * once.magnitude)
    assert (thrice.direction, thrice.effective_rank) == (
        pytest.approx(once.direction),
        pytest.approx(once.effective_rank),
    )


def test_broken_and_missing_features_are_refused() -> None:
    with pytest.raises(ModelError, match="1 of 2 rows hold NaN"):
        magnitude(torch.tensor([[0.0, math.nan], [0.0, 1.0]]))
    with pytest.raises(ImageSetError, match=r"got \[0, 3\]"):
        measure_diversity(torch.zeros(0, 3))
