"""Sizes and starts: which rows there are, in which order they run, and what a comparison refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from measured_runs import plan_of

from gen2real.comparison.plan import Sized
from gen2real.errors import RecipeError

OUT = Path("out")


def test_without_sizes_a_row_is_an_arm() -> None:
    plan = plan_of(OUT, {"a": {}, "b": {"set": {"x": 1}}})
    assert plan.arms == plan.config.arms
    assert plan.order == ("a", "b")
    assert plan.rows["a"] == Sized("a", None)


def test_every_arm_is_run_at_every_size() -> None:
    arms = {
        "base": {},
        "a": {"set": {"data": {"pictures": 7, "holdout": 0}}, "init": {"start": "base", "encoder.init": "b"}},
        "b": {"set": {"data.pictures": 3}},
    }
    plan = plan_of(OUT, arms, sizes=[50, 9], scaled=["a", "b"], against=["b", "base"])
    assert list(plan.arms) == ["base", "a @ 50", "a @ 9", "b @ 50", "b @ 9"]
    assert plan.rows["a @ 9"] == Sized("a", 9)
    assert plan.arms["a @ 9"].set == {"data.pictures": 9, "data.holdout": 0}
    assert plan.arms["b @ 50"].set == {"data.pictures": 50}
    assert plan.arms["base"].set == {}
    assert plan.arms["a @ 9"].starts == {"start": "base", "encoder.init": "b @ 9"}
    assert plan.reference("a @ 9", "b") == "b @ 9"
    assert plan.reference("b @ 9", "b") is None
    assert plan.reference("base", "b") is None
    assert plan.reference("a @ 9", "base") == "base"


def test_a_soup_has_the_size_of_its_arms_and_another_key_may_be_the_size() -> None:
    arms = {"a": {}, "s": {"soup": {"arms": ["a"]}}}
    plan = plan_of(OUT, arms, sizes=[2, 1], size_key="data.real.shots")
    assert plan.ingredients("s @ 1") == {0: [("a @ 1", 0)], 1: [("a @ 1", 1)]}
    assert plan.arms["a @ 1"].set == {"data.real.shots": 1}
    assert plan.arms["s @ 1"].set == {}


def test_a_run_comes_after_those_it_starts_from() -> None:
    plan = plan_of(OUT, {"end": {"init": "middle"}, "middle": {"init": "begin"}, "other": {}, "begin": {}})
    assert plan.order == ("begin", "middle", "end", "other")
    assert list(plan.arms) == ["end", "middle", "other", "begin"]
    assert plan.arms["end"].starts == {"encoder.init": "middle"}


def test_the_models_of_equal_trainings_are_kept_together() -> None:
    arms = {
        "begin": {"set": {"loss": {"weight": 1}}},
        "the same, read otherwise": {"set": {"loss.weight": 1}, "reading": "f_g"},
        "another": {"set": {"loss.weight": 2}},
        "end": {"init": "begin", "into": "start"},
    }
    plan = plan_of(OUT, arms)
    assert plan.started_from() == {"begin", "the same, read otherwise"}
    assert plan.arms["end"].starts == {"start": "begin"}


@pytest.mark.parametrize(
    ("arms", "more", "said"),
    [
        ({"a": {"init": "b"}, "b": {"init": "c"}, "c": {"init": "b"}}, {}, "in a circle: b → c → b"),
        ({"a": {"init": "a"}}, {}, "in a circle: a → a"),
        ({"align": {}, "b": {"init": "algin"}}, {}, "b: init names an arm that is not there; did you mean align?"),
        ({"a": {"seeds": [0, 1]}, "b": {"init": "a", "seeds": [1, 2, 3]}}, {}, "b starts from a's .* no seed 2, 3"),
        ({"a": {}, "b": {"init": {"start": "a"}, "into": "aligned"}}, {}, "into says where"),
        ({"a": {}, "b": {"into": "aligned"}}, {}, "into says where"),
        ({"a": {}, "s": {"soup": {"arms": ["a"]}}, "b": {"init": "s"}}, {}, "b: init names s, which is a soup"),
        ({"a": {}, "s": {"soup": {"arms": ["a"]}, "init": "a"}}, {}, "arm s is a soup .* leave out init"),
        ({"a": {}}, {"sizes": [5, 5]}, "sizes: .*each given once"),
        ({"a": {}}, {"sizes": [0]}, "sizes: .*at least 1"),
        ({"a": {}}, {"scaled": ["a"]}, "there are none; set sizes"),
        ({"a": {}}, {"sizes": [5], "scaled": ["aa"]}, "scaled: aa names an arm that is not there; did you mean a?"),
        ({"a": {}, "b": {"init": "a"}}, {"sizes": [5], "scaled": ["a"]}, "add b to scaled"),
        ({"a": {}, "s": {"soup": {"arms": ["a"]}}}, {"sizes": [5], "scaled": ["a"]}, "add s to scaled"),
        ({"a": {}, "s": {"soup": {"arms": ["a"]}}}, {"sizes": [5], "scaled": ["s"]}, "take it out of scaled"),
    ],
)  # fmt: skip
def test_a_comparison_that_cannot_be_run_is_refused(arms: dict[str, Any], more: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        plan_of(OUT, arms, **more)
