from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from gen2real.evaluation import (
    Interval,
    bootstrap_interval,
    group_values,
    holm,
    mcnemar,
    paired_bootstrap,
    proportion_interval,
    seed_interval,
)
from gen2real.evaluation import statistics as ours


def test_interval_reads_as_percent_and_as_a_number() -> None:
    interval = Interval(0.4129, 0.3512, 0.4758, 120, 0.95)
    assert interval.percent() == "41.3 % [35.1, 47.6]"
    assert str(interval) == "0.4129 [0.3512, 0.4758]"
    assert interval.to_json() == {"mean": 0.4129, "low": 0.3512, "high": 0.4758, "count": 120, "level": 0.95}


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 1000])
@pytest.mark.parametrize("probability", [0.5, 0.75, 0.95, 0.975, 0.9995])
def test_t_quantile_is_scipys(freedom: int, probability: float) -> None:
    assert ours.t_quantile(probability, freedom) == pytest.approx(
        stats.t.ppf(probability, freedom), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (0, 7), (1, 1), (7, 7), (3, 10), (60, 100), (2600, 5000)])
@pytest.mark.parametrize("probability", [0.5, 0.13])
def test_binomial_tail_is_scipys(successes: int, count: int, probability: float) -> None:
    expected = stats.binom.sf(successes - 1, count, probability)
    assert ours.binomial_tail(successes, count, probability) == pytest.approx(expected, rel=1e-9)


def test_binomial_tail_never_underflows_to_zero() -> None:
    assert 0 < ours.binomial_tail(5000, 5000) < 1e-300


def test_bootstrap_of_a_share_matches_its_exact_binomial_quantiles() -> None:
    values = np.repeat([1.0, 0.0], [60, 140])
    interval = bootstrap_interval(values, resamples=20_000)
    low, high = stats.binom.ppf([0.025, 0.975], 200, 0.3) / 200
    assert interval.mean == pytest.approx(0.3)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))


def test_bootstrap_of_few_and_of_many_distinct_values_agree(rng: np.random.Generator) -> None:
    # The same numbers with and without a tremble that makes each of them distinct take the two ways of drawing.
    values = rng.integers(0, 3, 120).astype(float)
    shaken = values + 1e-9 * np.arange(120)
    few, many = bootstrap_interval(values), bootstrap_interval(shaken)
    spread = values.std() / math.sqrt(120)
    assert few.low == pytest.approx(many.low, abs=0.1 * spread)
    assert few.high == pytest.approx(many.high, abs=0.1 * spread)


def test_bootstrap_over_seeds_enumerated_by_hand() -> None:
    # Two seeds, two examples: 4 × 4 equally likely draws of a 2 × 2 table.
    table = np.array([[0.0, 1.0], [2.0, 5.0]])
    draws = list(itertools.product([0, 1], repeat=2))
    every = [table[np.ix_(seeds, examples)].mean() for seeds in draws for examples in draws]
    means = ours._resampled_means(table, 40_000, seed=3)
    found, counts = np.unique(means, return_counts=True)
    expected, weights = np.unique(every, return_counts=True)
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(counts / 40_000, weights / 16, atol=0.01)


def test_bootstrap_with_one_seed_is_that_of_examples_only() -> None:
    values = np.arange(30.0)
    assert bootstrap_interval(values) == bootstrap_interval(values[None])


def test_bootstrap_covers_the_spread_between_seeds(rng: np.random.Generator) -> None:
    per_seed = rng.random((5, 1)) + np.zeros((5, 400))
    assert bootstrap_interval(per_seed).high - bootstrap_interval(per_seed).low > 0.1
    assert bootstrap_interval(per_seed[0]).high == pytest.approx(bootstrap_interval(per_seed[0]).low)


def test_bootstrap_blocks_do_not_change_what_is_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.linspace(0, 1, 40)
    whole = bootstrap_interval(values)
    monkeypatch.setattr(ours, "_CELLS", 100)
    blocked = bootstrap_interval(values)
    assert (blocked.low, blocked.high) == (pytest.approx(whole.low, abs=0.02), pytest.approx(whole.high, abs=0.02))


def test_bootstrap_interval_holds_the_truth_as_often_as_it_says(rng: np.random.Generator) -> None:
    hits = 0
    for trial in range(300):
        interval = bootstrap_interval(rng.random(150) < 0.7, resamples=500, seed=trial)
        hits += interval.low <= 0.7 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_bootstrap_takes_tensors_and_booleans_and_repeats_itself() -> None:
    values = [True, False, True, True, False]
    reference = bootstrap_interval(np.array(values), seed=5)
    assert bootstrap_interval(torch.tensor(values), seed=5) == reference
    assert bootstrap_interval(values, seed=5) == reference
    assert bootstrap_interval(torch.tensor(values).to(torch.bfloat16), seed=5) == reference


def test_bootstrap_of_one_value_is_that_value() -> None:
    assert bootstrap_interval([0.25]) == Interval(0.25, 0.25, 0.25, 1, 0.95)


@pytest.mark.parametrize("values", [[], [[]], np.zeros((2, 2, 2)), [1.0, math.nan], [math.inf]])
def test_bootstrap_refuses_what_has_no_mean(values: object) -> None:
    with pytest.raises(ValueError, match="values must be"):
        bootstrap_interval(values)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_level_is_a_share(level: float) -> None:
    with pytest.raises(ValueError, match="level must lie between"):
        bootstrap_interval([0.0, 1.0], level=level)


@pytest.mark.parametrize(("successes", "count"), [(0, 20), (20, 20), (1, 1), (13, 40), (4000, 5000)])
def test_proportion_interval_is_wilsons(successes: int, count: int) -> None:
    interval = proportion_interval(successes, count)
    expected = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert interval.mean == successes / count
    assert (interval.low, interval.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert 0 <= interval.low <= interval.mean <= interval.high <= 1


@pytest.mark.parametrize(("successes", "count"), [(0, 0), (3, 2), (-1, 5)])
def test_proportion_interval_refuses_impossible_counts(successes: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"got {successes} of {count}"):
        proportion_interval(successes, count)


def test_seed_interval_is_students() -> None:
    values = [0.71, 0.69, 0.74, 0.70, 0.73]
    interval = seed_interval(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (interval.low, interval.high, interval.count) == (pytest.approx(low), pytest.approx(high), 5)


def test_seed_interval_of_equal_seeds_is_a_point() -> None:
    assert seed_interval([0.5, 0.5]) == Interval(0.5, 0.5, 0.5, 2, 0.95)


@pytest.mark.parametrize("values", [[0.7], np.zeros((2, 3))])
def test_seed_interval_needs_two_seeds(values: object) -> None:
    with pytest.raises(ValueError, match="at least 2 seeds"):
        seed_interval(values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (3, 9), (7, 7), (1010, 1190), (3000, 0)])
def test_mcnemar_is_the_exact_binomial_test(only_a: int, only_b: int) -> None:
    a = np.repeat([True, True, False, False], [5, only_a, only_b, 4])
    b = np.repeat([True, False, True, False], [5, only_a, only_b, 4])
    result = mcnemar(a, torch.from_numpy(b))
    assert (result.only_a, result.only_b) == (only_a, only_b)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert result.p_value == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert 0 < result.p_value <= 1


def test_mcnemar_refuses_scores_and_other_lengths() -> None:
    with pytest.raises(ValueError, match="paired_bootstrap"):
        mcnemar([0.3, 1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match=r"shape \[2\] and shape \[3\]"):
        mcnemar([0, 1], [1, 0, 1])


def test_paired_bootstrap_of_a_clear_difference() -> None:
    a, b = np.repeat([1.0, 0.0], [80, 20]), np.repeat([1.0, 0.0], [50, 50])
    test = paired_bootstrap(a, b, resamples=2_000)
    assert test.difference == pytest.approx(0.3)
    assert test.p_value == 2 / 2_001
    low, high = stats.binom.ppf([0.025, 0.975], 100, 0.3) / 100
    assert (test.low, test.high) == (pytest.approx(low, abs=0.011), pytest.approx(high, abs=0.011))
    assert test.percent() == f"+30.0 pp [{100 * test.low:+.1f}, {100 * test.high:+.1f}]"


def test_paired_bootstrap_changes_sign_with_its_sides(rng: np.random.Generator) -> None:
    a, b = rng.random((3, 200)), rng.random((3, 200))
    forth, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert forth.difference == pytest.approx(-back.difference)
    assert (forth.low, forth.high) == (pytest.approx(-back.high, abs=0.004), pytest.approx(-back.low, abs=0.004))
    assert forth.p_value == pytest.approx(back.p_value, abs=0.03)


def test_paired_bootstrap_of_equal_sides_says_one() -> None:
    thirds = np.array([[1 / 3, 2 / 3, 0.1], [0.7, 0.2, 1 / 3]])
    test = paired_bootstrap(thirds, thirds)
    assert (test.difference, test.low, test.high, test.p_value) == (0, 0, 0, 1)


def test_paired_bootstrap_finds_nothing_as_often_as_it_should(rng: np.random.Generator) -> None:
    p_values = [
        paired_bootstrap(rng.normal(size=60), rng.normal(size=60), resamples=400, seed=trial).p_value
        for trial in range(300)
    ]
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.09


def test_paired_bootstrap_pairs_one_row_with_every_seed(rng: np.random.Generator) -> None:
    tuned = rng.random((5, 50))
    zero_shot = rng.random(50)
    assert paired_bootstrap(tuned, zero_shot) == paired_bootstrap(tuned, np.tile(zero_shot, (5, 1)))
    assert paired_bootstrap(tuned, zero_shot).seeds == 5


def test_paired_bootstrap_averages_seeds_that_cannot_be_paired(rng: np.random.Generator) -> None:
    a, b = rng.random((5, 50)), rng.random((3, 50))
    assert paired_bootstrap(a, b) == paired_bootstrap(a.mean(axis=0), b.mean(axis=0))


def test_paired_bootstrap_refuses_other_examples() -> None:
    with pytest.raises(ValueError, match="same examples"):
        paired_bootstrap(np.zeros(4), np.zeros(5))


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, 0.04 -> made monotone 0.03, 0.06, 0.06.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match=r"got 1\.5"):
        holm([0.5, 1.5])


def test_values_of_groups_have_the_mean_of_all() -> None:
    values, group = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], [0, 0, 1, 3, 3, 3]
    found = group_values(values, group, 4)
    # By hand: the mean is 4/6, there are 6/4 values a group; the third has none.
    mean, size = 4 / 6, 6 / 4
    expected = [mean + (1 - 2 * mean) / size, mean + (1 - mean) / size, mean, mean + (2 - 3 * mean) / size]
    assert found == pytest.approx(expected)
    assert found.mean() == pytest.approx(mean)
    assert group_values([0.0, 1.0, 1.0, 1.0], [1, 1, 0, 0], 2) == pytest.approx([1, 0.5])


def test_values_without_a_group_are_refused() -> None:
    with pytest.raises(ValueError, match=r"each of 2 values needs its group in 0…1"):
        group_values([0.0, 1.0], [0, 2], 2)
    with pytest.raises(ValueError, match=r"each of 2 values needs its group"):
        group_values([0.0, 1.0], [0], 2)
