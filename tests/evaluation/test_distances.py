from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from torchmetrics.image.kid import poly_mmd

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation import cmmd, frechet, frechet_distance, kernel_distance, modality_gap, precision_recall

ALL = [frechet_distance, frechet, kernel_distance, cmmd, modality_gap, precision_recall]


def correlated(rng: np.random.Generator, count: int, width: int, shift: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + shift)


def test_frechet_against_the_matrix_square_root(rng: np.random.Generator) -> None:
    generated, real = correlated(rng, 60, 6, 0.5), correlated(rng, 45, 6)
    x, y = generated.numpy(), real.numpy()
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(first @ second)
    expected = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + np.trace(first + second - 2 * root.real)
    assert frechet_distance(generated, real) == pytest.approx(expected)


def test_frechet_with_fewer_pictures_than_dimensions(rng: np.random.Generator) -> None:
    generated, real = correlated(rng, 5, 12), correlated(rng, 30, 12)
    first, second = np.cov(generated.numpy(), rowvar=False), np.cov(real.numpy(), rowvar=False)
    # Tr (Σ₁Σ₂)^½ from the eigenvalues of a symmetric product, which stands a singular Σ₁.
    half = linalg.cholesky(second, lower=True)
    cross = np.sqrt(np.linalg.eigvalsh(half.T @ first @ half).clip(0)).sum()
    shift = float((generated.mean(dim=0) - real.mean(dim=0)).square().sum())
    expected = shift + np.trace(first) + np.trace(second) - 2 * cross
    assert frechet_distance(generated, real) == pytest.approx(expected)


def test_frechet_in_one_dimension_by_hand() -> None:
    # Means 0 and 3, unbiased variances 2 and 8: 9 + 2 + 8 − 2·√16.
    assert frechet_distance(torch.tensor([[-1.0], [1.0]]), torch.tensor([[1.0], [5.0]])) == pytest.approx(11)


def test_frechet_by_chance_is_what_two_halves_of_one_source_have(generator: torch.Generator) -> None:
    found = [
        frechet(torch.randn(80, 30, generator=generator), torch.randn(50, 30, generator=generator)) for _ in range(40)
    ]
    assert all(one.distance == pytest.approx(one.shift + one.spread) for one in found)
    assert np.mean([one.spread for one in found]) == pytest.approx(
        np.mean([one.chance_spread for one in found]), rel=0.04
    )
    assert np.mean([one.shift for one in found]) == pytest.approx(30 / 80 + 30 / 50, rel=0.15)
    assert np.mean([one.chance_shift for one in found]) == pytest.approx(30 / 80 + 30 / 50, rel=0.02)


def explicit_kernel_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    def kernel(p: torch.Tensor, q: torch.Tensor) -> float:
        return (float(p @ q) / len(p) + 1) ** 3

    m, n = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_y = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within_x + within_y - 2 * sum(kernel(p, q) for p in x for q in y) / (m * n)


def test_kernel_distance_by_an_explicit_loop_and_torchmetrics(rng: np.random.Generator) -> None:
    generated, real = correlated(rng, 7, 4, 0.3), correlated(rng, 7, 4)
    found = kernel_distance(generated, real)
    assert found.mean == pytest.approx(explicit_kernel_distance(generated, real))
    assert found.mean == pytest.approx(float(poly_mmd(real, generated)))
    assert (found.std, found.subsets, found.subset_size) == (0, 1, 7)


def test_kernel_distance_averages_subsets_to_that_of_the_whole(rng: np.random.Generator) -> None:
    generated, real = correlated(rng, 12, 3, 1.0), correlated(rng, 9, 3)
    found = kernel_distance(generated, real, subsets=500, subset_size=6)
    error = found.std / math.sqrt(500)
    assert found.mean == pytest.approx(explicit_kernel_distance(generated, real), abs=4 * error)
    assert found == kernel_distance(generated, real, subsets=500, subset_size=6)
    assert found != kernel_distance(generated, real, subsets=500, subset_size=6, seed=1)


def test_kernel_distance_has_no_bias(generator: torch.Generator) -> None:
    values = [
        kernel_distance(torch.randn(12, 8, generator=generator), torch.randn(12, 8, generator=generator)).mean
        for _ in range(400)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20


def test_cmmd_by_an_explicit_loop(rng: np.random.Generator) -> None:
    generated, real = correlated(rng, 6, 4, 0.5), correlated(rng, 9, 4)
    x = [row / row.norm() for row in generated]
    y = [row / row.norm() for row in real]

    def mean_kernel(p: list[torch.Tensor], q: list[torch.Tensor]) -> float:
        return sum(math.exp(-float((a - b).square().sum()) / 200) for a in p for b in q) / (len(p) * len(q))

    expected = 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    assert cmmd(generated, real) == pytest.approx(expected, rel=1e-9)
    assert cmmd(generated, real) == pytest.approx(10 * modality_gap(generated, real).distance ** 2, rel=0.05)


def test_modality_gap_by_hand() -> None:
    generated, real = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[5.0, 0.0], [1.0, 0.0]])
    found = modality_gap(generated, real)
    assert found.distance == pytest.approx(math.sqrt(0.5))
    assert found.cosine == pytest.approx(math.sqrt(0.5))


def test_modality_gap_of_a_centroid_at_zero_is_finite() -> None:
    found = modality_gap(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert (found.distance, found.cosine) == (1, 0)


def test_precision_and_recall_by_hand() -> None:
    # k = 1 on a line. Real radii are 1, 1, 2 at 0, 1, 3; generated ones 0.5, 0.5, 9.5 at 0, 0.5, 10.
    real, generated = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.0], [0.5], [10.0]])
    found = precision_recall(generated, real, neighbours=1)
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), pytest.approx(3 / 3))
    assert precision_recall(generated[:2], real, neighbours=1).recall == pytest.approx(2 / 3)


def test_equal_sets_have_no_distance(generator: torch.Generator) -> None:
    features = torch.randn(40, 6, generator=generator)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-10)
    assert kernel_distance(features, features).mean <= 0
    assert cmmd(features, features) == 0
    assert modality_gap(features, features).distance == 0
    assert modality_gap(features, features).cosine == pytest.approx(1)
    assert precision_recall(features, features).precision == 1


@pytest.mark.parametrize("distance", ALL)
def test_two_equal_pictures_a_side_give_finite_numbers(distance: object) -> None:
    found = distance(torch.ones(2, 3), torch.ones(2, 3))  # type: ignore[operator]
    numbers = [found] if isinstance(found, float) else found.to_json().values()
    assert all(math.isfinite(number) for number in numbers)


@pytest.mark.parametrize("distance", ALL)
def test_one_picture_is_refused(distance: object) -> None:
    with pytest.raises(ImageSetError, match=r"at least 2 real pictures; got shape \[1, 3\]"):
        distance(torch.ones(2, 3), torch.ones(1, 3))  # type: ignore[operator]


@pytest.mark.parametrize("distance", ALL)
@pytest.mark.usefixtures("unchecked")
def test_features_of_two_encoders_are_refused(distance: object) -> None:
    with pytest.raises(ModelError, match="generated features are 3 wide, real ones 4"):
        distance(torch.ones(2, 3), torch.ones(2, 4))  # type: ignore[operator]


@pytest.mark.parametrize("distance", ALL)
def test_broken_features_are_refused(distance: object) -> None:
    with pytest.raises(ModelError, match="1 of 2 rows of generated features"):
        distance(torch.tensor([[0.0], [math.inf]]), torch.ones(2, 1))  # type: ignore[operator]
