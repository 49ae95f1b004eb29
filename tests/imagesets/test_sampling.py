from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from gen2real.errors import ImageSetError
from gen2real.imagesets.sampling import EpochSampler

Draw = tuple[int, int]


def epoch(sampler: EpochSampler, number: int = 0) -> list[list[Draw]]:
    steps = sampler.steps_per_epoch
    return [sampler.batch(step) for step in range(number * steps, (number + 1) * steps)]


def flat(batches: list[list[Draw]]) -> list[Draw]:
    return [draw for batch in batches for draw in batch]


@pytest.mark.parametrize("sizes", [(1,), (7,), (10, 5), (3, 0, 4), (64,)])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("number", [0, 3])
def test_every_row_comes_once_an_epoch(sizes: tuple[int, ...], batch_size: int, number: int) -> None:
    sampler = EpochSampler(sizes, None, batch_size, seed=1)
    batches = epoch(sampler, number)
    everything = [(source, index) for source, size in enumerate(sizes) for index in range(size)]
    assert sorted(flat(batches)) == everything
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_drop_last_leaves_the_short_batch_out() -> None:
    sampler = EpochSampler([10], None, 4, seed=0, drop_last=True)
    assert sampler.steps_per_epoch == 2
    assert len(set(flat(epoch(sampler)))) == 8


def test_a_batch_is_a_function_of_seed_and_step_alone() -> None:
    for settings in ({}, {"weights": [1.0, 3.0]}, {"labels": [np.arange(50) % 7, np.arange(30) % 7]}):
        sampler = EpochSampler([50, 30], batch_size=8, seed=5, **settings)
        forwards = [sampler.batch(step) for step in range(45)]
        fresh = EpochSampler([50, 30], batch_size=8, seed=5, **settings)
        assert [fresh.batch(step) for step in range(44, -1, -1)] == forwards[::-1]
        other = EpochSampler([50, 30], batch_size=8, seed=6, **settings)
        assert other.batch(0) != forwards[0]
        assert sorted(flat(forwards[:10])) != flat(forwards[:10])


def test_epochs_differ() -> None:
    sampler = EpochSampler([40], batch_size=40)
    assert sampler.batch(0) != sampler.batch(1)
    assert (sampler.epoch(0), sampler.epoch(1)) == (0, 1)


def test_weights_decide_how_often_a_source_is_drawn_from() -> None:
    sampler = EpochSampler([900, 100], [1, 1], 50, seed=0)
    assert sampler.steps_per_epoch == 20
    counts = Counter(source for number in range(10) for source, _ in flat(epoch(sampler, number)))
    assert sum(counts.values()) == 10_000
    assert abs(counts[0] - 5000) < 200


def test_a_source_is_used_up_before_a_row_comes_again_also_across_epochs() -> None:
    sampler = EpochSampler([11, 4], [2, 1], 4, seed=9)
    drawn: dict[int, list[int]] = {0: [], 1: []}
    for number in range(12):
        for source, index in flat(epoch(sampler, number)):
            drawn[source].append(index)
    for source, size in ((0, 11), (1, 4)):
        passes = [drawn[source][start : start + size] for start in range(0, len(drawn[source]) - size, size)]
        assert len(passes) >= 3
        assert all(sorted(one) == list(range(size)) for one in passes)
        assert len({tuple(one) for one in passes}) > 1


def test_a_source_of_weight_zero_is_never_drawn_from() -> None:
    assert {source for source, _ in flat(epoch(EpochSampler([5, 5, 0], [1, 0, 0], 3)))} == {0}


def test_shuffled_passes_are_even() -> None:
    sampler = EpochSampler([6, 6], [1, 1], 12, seed=2)
    place = np.zeros((6, 6))
    drawn = [index for number in range(3000) for source, index in sampler.batch(number) if source == 0]
    for start in range(0, len(drawn) - 6, 6):
        for position, index in enumerate(drawn[start : start + 6]):
            place[position, index] += 1
    expected = place.sum() / 36
    assert np.abs(place - expected).max() < 5 * np.sqrt(expected)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("total", [64, 61, 57])
@pytest.mark.parametrize("number", range(4))
def test_classes_that_are_few_enough_never_meet_in_a_batch(drop_last: bool, total: int, number: int) -> None:
    # 8 batches of 8; a class of 7 rows fits as long as there are more batches than that, or as many full ones.
    labels = np.repeat(np.arange(20), [7, 7, 7, 6, 5, 5, 4, 4, 3, 3, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1])[:total]
    sampler = EpochSampler([len(labels)], None, 8, seed=number, drop_last=drop_last, labels=[labels])
    batches = epoch(sampler, number)
    for batch in batches:
        classes = [labels[index] for _, index in batch]
        assert len(set(classes)) == len(classes)
    if not drop_last:
        assert sorted(flat(batches)) == [(0, index) for index in range(len(labels))]


def test_a_class_that_is_too_frequent_is_spread_evenly() -> None:
    labels = np.array([0] * 30 + list(range(1, 11)))
    sampler = EpochSampler([40], None, 8, seed=0, labels=[labels])
    assert [sum(labels[index] == 0 for _, index in batch) for batch in epoch(sampler)] == [6] * 5


def test_rows_without_a_class_may_meet_and_classes_are_shared_between_sources() -> None:
    sampler = EpochSampler([6, 6], None, 4, seed=0, labels=[[-1] * 6, [0, 0, 0, 1, 1, 1]])
    for batch in epoch(sampler):
        classes = [index // 3 for source, index in batch if source == 1]
        assert len(set(classes)) == len(classes)
    both = EpochSampler([2, 2], None, 2, seed=0, labels=[[0, 1], [0, 1]])
    for batch in epoch(both):
        assert len({index for _, index in batch}) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": []}, "nothing to draw"),
        ({"sizes": [0, 0]}, "nothing to draw"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"drop_last": True, "batch_size": 11}, "batch_size=10 or less"),
        ({"weights": [1]}, "2 sources, 1 weights"),
        ({"weights": [0, 0]}, "one of them above 0"),
        ({"weights": [1, float("nan")]}, "finite"),
        ({"weights": [1, -1]}, "0 or more"),
        ({"sizes": [10, 0], "weights": [1, 1]}, r"\[1\] have a weight but no rows"),
        ({"labels": [[0] * 5]}, "5, 5"),
    ],
)
def test_impossible_arguments_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageSetError, match=message):
        EpochSampler(**{"sizes": [5, 5], "batch_size": 2, **settings})


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(ImageSetError, match="got -1"):
        EpochSampler([5], batch_size=2).batch(-1)
