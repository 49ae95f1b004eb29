from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from gen2real.errors import ImageSetError
from gen2real.evaluation import two_sample, two_sample_test


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
def test_logistic_regression_finds_scipys_optimum(rng: np.random.Generator, l2: float) -> None:
    rows, target = rng.normal(size=(40, 5)), (rng.random(40) < 0.4).astype(float)

    def loss(parameters: np.ndarray) -> float:
        z = rows @ parameters[:-1] + parameters[-1]
        return float((np.logaddexp(0, z) - target * z).sum() + l2 / 2 * (parameters[:-1] ** 2).sum())

    expected = optimize.minimize(loss, np.zeros(6), tol=1e-12).x
    weight, bias = two_sample.fit_logistic(torch.from_numpy(rows), torch.from_numpy(target), l2)
    np.testing.assert_allclose([*weight.tolist(), float(bias)], expected, atol=1e-4)


def test_logistic_regression_stays_finite_on_separable_rows() -> None:
    rows = torch.tensor([[-50.0], [-40.0], [45.0], [60.0]]).double()
    weight, _ = two_sample.fit_logistic(rows, torch.tensor([0.0, 0.0, 1.0, 1.0]).double(), 1e-3)
    assert torch.isfinite(weight).all()
    assert weight > 0


def test_solving_in_the_span_of_the_rows_changes_nothing(generator: torch.Generator) -> None:
    # Dimensions that are always zero send it through the span (28 > 24 rows) without changing the problem.
    train = torch.randn(2, 12, 20, generator=generator, dtype=torch.float64)
    test = torch.randn(2, 5, 20, generator=generator, dtype=torch.float64)
    plain = two_sample._held_out_scores(train, test, 1.0)
    padded = two_sample._held_out_scores(
        torch.nn.functional.pad(train, (0, 8)), torch.nn.functional.pad(test, (0, 8)), 1.0
    )
    torch.testing.assert_close(padded, plain, rtol=1e-4, atol=1e-4)


def test_area_under_roc_is_mann_whitneys_u(rng: np.random.Generator) -> None:
    positive, negative = rng.integers(0, 6, 30) + 1.0, rng.integers(0, 6, 20) + 0.0
    expected = stats.mannwhitneyu(positive, negative).statistic / 600
    found = two_sample._area_under_roc(torch.from_numpy(positive), torch.from_numpy(negative))
    assert found == pytest.approx(expected)


def test_sets_far_apart_are_told_apart(generator: torch.Generator) -> None:
    generated = torch.randn(60, 4, generator=generator) + 6
    found = two_sample_test(generated, torch.randn(80, 4, generator=generator))
    assert (found.accuracy, found.auc, found.per_side, found.folds) == (1, 1, 60, 5)
    assert found.p_value == pytest.approx(0.5**60)


def test_equal_sets_are_not_told_apart(generator: torch.Generator) -> None:
    features = torch.randn(50, 70, generator=generator)
    found = two_sample_test(features, features.clone())
    assert (found.accuracy, found.auc) == (0.5, 0.5)
    assert found.p_value > 0.5


def test_accuracy_approaches_that_of_the_best_linear_rule(generator: torch.Generator) -> None:
    # Unit Gaussians whose means lie 2 apart: the best rule is right in Φ(1) = 84 % of cases.
    real = torch.randn(1500, 3, generator=generator)
    generated = torch.randn(1500, 3, generator=generator) + torch.tensor([2.0, 0.0, 0.0])
    found = two_sample_test(generated, real)
    assert found.accuracy == pytest.approx(stats.norm.cdf(1), abs=0.02)
    assert found.auc == pytest.approx(stats.norm.cdf(2 / 2**0.5), abs=0.02)


def test_one_source_is_seldom_taken_for_two(generator: torch.Generator) -> None:
    p_values = [
        two_sample_test(torch.randn(40, 6, generator=generator), torch.randn(40, 6, generator=generator)).p_value
        for _ in range(150)
    ]
    assert np.mean(np.array(p_values) < 0.05) < 0.1
    assert all(0 < p_value <= 1 for p_value in p_values)


def test_seed_decides_everything(generator: torch.Generator) -> None:
    generated, real = torch.randn(30, 5, generator=generator) + 0.5, torch.randn(40, 5, generator=generator)
    assert two_sample_test(generated, real, seed=4) == two_sample_test(generated, real, seed=4)
    assert two_sample_test(generated, real, seed=4) != two_sample_test(generated, real, seed=5)


def test_sets_are_cut_to_the_limit(generator: torch.Generator) -> None:
    features = torch.randn(50, 2, generator=generator)
    assert two_sample_test(features, features + 1, max_per_side=20).per_side == 20


def test_works_in_inference_mode(generator: torch.Generator) -> None:
    with torch.inference_mode():
        features = torch.randn(10, 3, generator=generator)
        assert two_sample_test(features + 9, features).accuracy == 1


def test_two_pictures_a_side_are_enough_and_one_is_not() -> None:
    found = two_sample_test(torch.tensor([[5.0], [6.0]]), torch.tensor([[0.0], [1.0]]))
    assert (found.accuracy, found.folds) == (1, 2)
    with pytest.raises(ImageSetError, match="at least 2 generated pictures"):
        two_sample_test(torch.ones(1, 2), torch.ones(4, 2))


def test_a_single_fold_is_refused() -> None:
    with pytest.raises(ValueError, match="folds >= 2"):
        two_sample_test(torch.ones(4, 2), torch.ones(4, 2), folds=1)
