"""Drawn pictures measured: KID's own value as one value a picture with U's own spread, cosines, diversity, warnings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation import (
    bootstrap_interval,
    cmmd,
    frechet,
    kernel_distance,
    paired_bootstrap,
    synthesis,
    synthesis_details,
    synthesis_values,
)
from gen2real.evaluation.synthesis import diversity, kernel_values, small_sample_notes


def pairs(generator: torch.Generator, count: int = 40, width: int = 6, shift: float = 0.4) -> tuple[Tensor, Tensor]:
    """Drawn and real features that have something in common, row by row, and differ in mean and spread."""
    common, own, others = (torch.randn(count, width, generator=generator, dtype=torch.float64) for _ in range(3))
    return 0.7 * common + own + shift, 0.7 * common + 0.6 * others


def test_the_mean_of_the_values_is_kid(generator: torch.Generator) -> None:
    drawn, real = pairs(generator)
    values = kernel_values(drawn, real)
    assert values.shape == (40,)
    assert values.dtype == np.float64
    assert values.mean() == pytest.approx(kernel_distance(drawn, real).mean, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all extracted features")
def test_as_torchmetrics_finds_it_with_one_subset(generator: torch.Generator) -> None:
    class Features(nn.Module):
        num_features = 6

        def forward(self, pictures: Tensor) -> Tensor:
            return pictures

    drawn, real = pairs(generator)
    theirs = KernelInceptionDistance(feature=Features(), subsets=1, subset_size=40)
    theirs.update(drawn, real=False)
    theirs.update(real, real=True)
    assert kernel_values(drawn, real).mean() == pytest.approx(float(theirs.compute()[0]), rel=1e-5)


def test_a_value_is_twice_its_picture_s_part_less_the_whole(generator: torch.Generator) -> None:
    x, y = pairs(generator, count=5, width=3)

    def kernel(p: Tensor, q: Tensor) -> float:
        return (float(p @ q) / 3 + 1) ** 3

    whole = kernel_distance(x, y).mean
    for i, value in enumerate(kernel_values(x, y)):
        within = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for j in range(5) if j != i) / 4
        across = sum(kernel(x[i], y[j]) + kernel(x[j], y[i]) for j in range(5)) / 5
        assert value == pytest.approx(2 * (within - across) - whole)


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_tiles_change_nothing(rows: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, real = pairs(generator)
    whole = kernel_values(drawn, real)
    monkeypatch.setattr(synthesis, "_ROWS", rows)
    np.testing.assert_allclose(kernel_values(drawn, real), whole, rtol=1e-12)


def test_the_values_spread_as_the_statistic_does() -> None:
    """400 draws of 60 pairs: the standard error from one draw is U's standard deviation over draws; v_i's is half."""
    generator = torch.Generator().manual_seed(3)
    draws = [kernel_values(*pairs(generator, 60)) for _ in range(400)]
    found = np.array([one.mean() for one in draws])
    errors = np.array([one.std(ddof=1) / math.sqrt(60) for one in draws])
    true = found.std(ddof=1)
    # The standard deviation of 400 draws is itself known to ±3.5 %.
    assert math.sqrt((errors**2).mean()) == pytest.approx(true, rel=0.12)
    # Expectation, from the mean of all draws; a normal interval should hold it in 95 of 100.
    covered = np.abs(found - found.mean()) <= 1.96 * errors
    assert 0.91 <= covered.mean() <= 0.98
    halved = np.abs(found - found.mean()) <= 1.96 * errors / 2
    assert halved.mean() < 0.8


def test_of_one_source_the_spread_is_too_wide_and_never_too_narrow() -> None:
    """There U varies by √2 σ/n and the values tell 2 σ/n: an interval that holds zero more often than it promises."""
    generator = torch.Generator().manual_seed(6)
    draws = [
        kernel_values(*(torch.randn(60, 6, generator=generator, dtype=torch.float64) for _ in range(2)))
        for _ in range(400)
    ]
    found, errors = (
        np.array([one.mean() for one in draws]),
        np.array([one.std(ddof=1) / math.sqrt(60) for one in draws]),
    )
    assert math.sqrt((errors**2).mean()) / found.std(ddof=1) == pytest.approx(math.sqrt(2), rel=0.15)
    assert (np.abs(found) <= 1.96 * errors).mean() >= 0.95


def test_the_house_s_interval_covers_and_its_paired_test_finds() -> None:
    generator = torch.Generator().manual_seed(4)
    every = [kernel_values(*pairs(generator, 60)) for _ in range(80)]
    truth = np.mean([one.mean() for one in every])
    intervals = [bootstrap_interval(one, resamples=400) for one in every]
    # 80 draws: 95 % ± 5 points, two standard errors; a percentile bootstrap of 60 is a little narrow.
    assert np.mean([one.low <= truth <= one.high for one in intervals]) >= 0.87
    near, real = pairs(generator, 60, shift=0.1)
    test = paired_bootstrap(kernel_values(near, real), kernel_values(near + 0.6, real), resamples=400)
    assert test.high < 0


def test_differences_of_two_generators_spread_as_their_test_says() -> None:
    """The same real pictures and captions: what the two share cancels, in the values as in the statistics."""
    generator = torch.Generator().manual_seed(5)
    differences, errors = [], []
    for _ in range(300):
        drawn, real = pairs(generator, 50)
        other = drawn + 0.2 * torch.randn(50, 6, generator=generator, dtype=torch.float64) + 0.1
        change = kernel_values(other, real) - kernel_values(drawn, real)
        differences.append(change.mean())
        errors.append(change.std(ddof=1) / math.sqrt(50))
    assert math.sqrt(np.square(errors).mean()) == pytest.approx(np.std(differences, ddof=1), rel=0.14)


def test_scores_are_cosines_row_by_row(generator: torch.Generator) -> None:
    drawn, real, texts = (torch.randn(9, 5, generator=generator) for _ in range(3))
    values = synthesis_values(drawn, real, texts)
    assert list(values) == ["kernel_distance", "clip_score", "clip_i"]

    def cosine(a: Tensor, b: Tensor) -> float:
        p, q = a.double().numpy(), b.double().numpy()
        return float(p @ q / np.linalg.norm(p) / np.linalg.norm(q))

    for row in range(9):
        assert values["clip_score"][row] == pytest.approx(cosine(drawn[row], texts[row]), abs=1e-12)
        assert values["clip_i"][row] == pytest.approx(cosine(drawn[row], real[row]), abs=1e-12)
    assert "clip_score" not in synthesis_values(drawn, real)


def test_the_best_generator_draws_the_real_pictures(generator: torch.Generator) -> None:
    _, real = pairs(generator, 200)
    _, fresh = pairs(generator, 200)
    noisy = fresh + torch.randn(200, 6, generator=generator, dtype=torch.float64)
    good, bad = (synthesis_values(one, real) for one in (fresh, noisy))
    assert bootstrap_interval(good["kernel_distance"]).high < bootstrap_interval(bad["kernel_distance"]).low
    np.testing.assert_allclose(synthesis_values(real, real)["clip_i"], 1)


def test_details_are_fid_and_cmmd_with_their_warning(generator: torch.Generator) -> None:
    drawn, real = pairs(generator, 5)
    found = synthesis_details(drawn, real)
    assert found["fid"] == frechet(drawn, real).to_json()
    assert found["cmmd"] == cmmd(drawn, real)
    assert (found["pictures"], found["dimension"]) == (5, 6)
    (note,) = found["notes"]
    chance = found["fid"]["chance_shift"] + found["fid"]["chance_spread"]
    assert note.startswith("FID of 5 pictures is biased upwards, and a covariance of 6 dimensions from so few has no")
    assert f"about {chance:.3g} of it would be there by chance" in note


def test_who_is_warned_of_fid() -> None:
    assert small_sample_notes(5_000, 768) == []
    assert "no full rank" not in small_sample_notes(1_000, 768)[0]
    assert "no full rank" in small_sample_notes(768, 768)[0]
    assert "no full rank" in small_sample_notes(2_048, 2_048)[0]


def test_diversity_by_hand() -> None:
    right, up, left = torch.tensor([1.0, 0]), torch.tensor([0, 2.0]), torch.tensor([-3.0, 0])
    found = diversity(torch.stack([torch.stack([right, right, right]), torch.stack([right, up, left])]))
    # Three equal ones; cosines 0, 0 and −1, whose mean of 1 − cosine is 4/3.
    np.testing.assert_allclose(found, [0, 4 / 3], atol=1e-12)


def test_what_cannot_be_measured_is_told(generator: torch.Generator) -> None:
    rows = torch.randn(4, 3, generator=generator)
    with pytest.raises(ImageSetError, match="at least 2 pictures for each of at least 1 prompt; got 1 for each of 4"):
        diversity(rows[:, None])
    with pytest.raises(ModelError, match="1 of 8 rows hold NaN"):
        diversity(torch.cat([rows, rows.clone().index_fill_(0, torch.tensor([2]), torch.nan)])[None])
    with pytest.raises(ImageSetError, match="at least 2"):
        kernel_values(rows[:1], rows[:1])


def test_unequal_numbers_are_told(generator: torch.Generator, unchecked: None) -> None:
    rows = torch.randn(4, 3, generator=generator)
    with pytest.raises(ImageSetError, match="4 drawn pictures and 3 captions; expected one for each"):
        synthesis_values(rows, rows, rows[:3])
    with pytest.raises(ImageSetError, match="3 drawn pictures and 4 real pictures"):
        synthesis_values(rows[:3], rows)
