"""The learning rate's curve, at the numbers its users can check by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from gen2real.config import parse_config
from gen2real.errors import RecipeError
from gen2real.training.schedules import factor
from gen2real.training.settings import ScheduleSettings, TrainingSettings


def test_the_authors_warm_up_of_500_steps() -> None:
    steps = 5000
    assert factor(0, steps, warmup=500) == 1 / 500
    assert factor(249, steps, warmup=500) == 0.5
    assert factor(499, steps, warmup=500) == 1.0
    assert factor(500, steps, warmup=500) == 1.0
    assert factor(2750, steps, warmup=500) == pytest.approx(0.5)
    assert factor(4999, steps, warmup=500) == pytest.approx(0.5 * (1 - math.cos(math.pi / 4500)))
    assert factor(4999, steps, warmup=500) < 1e-6


def test_a_run_shorter_than_its_warm_up_never_ends_it() -> None:
    """EuroSAT in the authors' setting: 50 updates, warm-up over 500."""
    curve = [factor(step, 50, warmup=500) for step in range(50)]
    assert curve == [(step + 1) / 500 for step in range(50)]
    assert curve[-1] == 0.1


def test_the_cosine_falls_all_the_way() -> None:
    curve = [factor(step, 40, warmup=4) for step in range(40)]
    assert curve[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(before > after for before, after in pairwise(curve[4:]))
    assert curve[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 35 / 36)))


def test_a_constant_follows_its_warm_up() -> None:
    assert [factor(step, 6, warmup=2, name="constant") for step in range(6)] == [0.5, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("name", ["cosine", "constant"])
def test_without_warm_up_the_first_step_is_whole(name: str) -> None:
    assert factor(0, 1, warmup=0, name=name) == 1.0


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        ({}, 200, 20),
        ({}, 4, 0),
        ({"warmup_fraction": 0.25}, 10, 2),
        ({"warmup_steps": 500}, 50, 500),
        ({"warmup_steps": 0}, 50, 0),
        ({"warmup_steps": 3, "warmup_fraction": 0.5}, 50, 3),
    ],
)
def test_warm_up_is_a_number_of_steps_or_a_fraction(settings: dict[str, float], steps: int, expected: int) -> None:
    assert ScheduleSettings(**settings).warmup(steps) == expected


def test_a_runs_length_is_epochs_or_steps() -> None:
    assert TrainingSettings(epochs=10).total_steps(25) == 250
    assert TrainingSettings(epochs=0.5).total_steps(25) == 12
    assert TrainingSettings(epochs=0.001).total_steps(25) == 1
    assert TrainingSettings(steps=7).total_steps(25) == 7


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epochs": None}, "a run needs an end; give epochs or steps"),
        ({"batch_size": 10, "accumulation": 4}, "batch_size 10 is not a multiple of accumulation 4; try batch_size=8"),
        ({"batch_size": 2, "accumulation": 4}, "try batch_size=4"),
        ({"trackers": ["tensorbord"]}, "tensorboard"),
    ],
)
def test_settings_that_do_not_fit_say_what_would(values: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_config(TrainingSettings, values, source="recipe")


def test_warm_restarts_begin_again_and_each_takes_twice_as_long() -> None:
    """SGDR's equation 5 with T_0 = 4 and a factor of 2: periods of 4, 8 and 16 updates."""
    curve = [factor(step, 28, warmup=0, name="cosine_restarts", restart_steps=4) for step in range(28)]
    expected = [0.5 * (1 + math.cos(math.pi * t / period)) for period in (4, 8, 16) for t in range(period)]
    assert curve == pytest.approx(expected, abs=1e-12)
    assert [step for step, value in enumerate(curve) if value == 1.0] == [0, 4, 12]


def test_equal_periods_after_a_warm_up() -> None:
    def at(step: int) -> float:
        return factor(step, 100, warmup=10, name="cosine_restarts", restart_steps=5, restart_multiplier=1)

    assert [at(step) for step in (0, 9, 10, 15, 95)] == [0.1, 1, 1, 1, 1]
    assert at(12) == pytest.approx(0.5 * (1 + math.cos(math.pi * 2 / 5)))


@pytest.mark.parametrize(("steps", "multiplier", "starts"), [(70, 2, [0, 10, 30]), (39, 3, [0, 3, 12])])
def test_three_periods_end_with_the_run_unless_told(steps: int, multiplier: float, starts: list[int]) -> None:
    curve = [
        factor(step, steps, warmup=0, name="cosine_restarts", restart_multiplier=multiplier) for step in range(steps)
    ]
    assert [step for step, value in enumerate(curve) if value == 1.0] == starts
    assert curve[-1] < 0.02


def test_restart_steps_need_restarts() -> None:
    with pytest.raises(RecipeError, match="restart_steps belongs to name: cosine_restarts"):
        parse_config(ScheduleSettings, {"restart_steps": 10}, source="recipe")
