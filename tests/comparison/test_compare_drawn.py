"""Generation as an arm: it draws with what another arm made, and a third learns from its pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from commands import gen2real_
from gen2real.comparison import Table, compare
from gen2real.comparison.plan import make_plan
from gen2real.comparison.recipes import make_recipes
from gen2real.config import load_recipe, parse_config
from gen2real.errors import RecipeError
from gen2real.files import read_json
from gen2real.generation import GenerateConfig, generate
from gen2real.imagesets import ImageSet
from gen2real.methods.generate import DrawnSet
from gen2real.methods.settings import CompareConfig
from tiny import tiny_clip, tiny_stable_diffusion
from tiny_sets import colour_set

DRAWN = """\
method: generate
source: names.txt
output: drawn
generators: [{name: sd, steps: 1}]
per_class: 2
templates: ["a photo of {}"]
dtype: float32
"""
HEAD = """\
method: regft
output: unused
tune: head
encoder: {name: clip}
prompts: {templates: ["a photo of {}"]}
data: {generated: [generated], evaluation: real, holdout: 0}
loss: {variance: 0, covariance: 0}
training: {steps: 2, batch_size: 4}
ensemble: {sweep: [0.5]}
"""
ARMS: dict[str, Any] = {
    "zero-shot": {"reading": "zero_shot"},
    "taught": {"init": {"data.generated": "drawn"}, "reading": "tuned"},
    "drawn": {"recipe": "drawn.yaml"},
}


@dataclass(frozen=True)
class World:
    """A comparison of a classifier that learns from an arm's pictures."""

    root: Path
    config: CompareConfig
    table: Table


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("circle")
    tiny_clip(root / "clip")
    tiny_stable_diffusion(root / "sd")
    colour_set(root / "generated", per_class=2)
    colour_set(root / "real", origin="real", per_class=2)
    (root / "names.txt").write_text("red\ngreen\nblue\nF-16A/B\n")
    (root / "drawn.yaml").write_text(DRAWN)
    (root / "head.yaml").write_text(HEAD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        patch.chdir(root)
        config = comparison(ARMS, against=["zero-shot"])
        table = compare(config, quiet=True)
        assert isinstance(table, Table)
        yield World(root, config, table)


def comparison(arms: dict[str, Any], **more: Any) -> CompareConfig:
    values = {"output": "out", "recipe": "head.yaml", "seeds": [0, 1], "arms": arms, **more}
    return parse_config(CompareConfig, values, source="compare.yaml")


def test_an_arm_learns_from_the_pictures_that_another_draws(world: World) -> None:
    recipes = make_recipes(make_plan(world.config))
    assert list(recipes)[-2:] == [("taught", 0), ("taught", 1)]
    for seed in (0, 1):
        drawn = ImageSet.read(recipes["drawn", seed].output)
        assert (len(drawn), drawn.class_names) == (8, ["red", "green", "blue", "F-16A/B"])
        taught = recipes["taught", seed]
        assert [one.path for one in taught.data.generated] == [drawn.root]
        stored = read_json(taught.output / "recipe.json")
        assert [one["path"] for one in stored["data"]["generated"]] == [str(drawn.root)]
    pictures = [ImageSet.read(recipes["drawn", seed].output).fingerprint for seed in (0, 1)]
    assert pictures[0] != pictures[1]


def test_a_step_has_no_row_and_the_table_says_so(world: World) -> None:
    assert [row.arm for row in world.table.rows] == ["zero-shot", "taught"]
    assert set(world.table.rows[1].tests) == {"zero-shot"}
    said = "drawn is a step on the way to other arms; nothing is measured of it."
    assert world.table.notes == (said,)
    assert read_json(Path("out/table.json"))["notes"] == [said]
    assert Path("out/table.md").read_text(encoding="utf-8").endswith(f" |\n\n{said}\n")
    done = gen2real_("report", "out")
    assert done.code == 0, done.err
    assert said in Path("out/report.html").read_text(encoding="utf-8")


def test_a_finished_drawing_is_read_and_keeps_what_it_cost(world: World) -> None:
    folder = make_recipes(make_plan(world.config))["drawn", 0].output
    before = read_json(folder / "result.json")
    assert (before["kind"], before["method"], before["pictures"]) == ("pictures", "generate", 8)
    assert before["cost"]["training_seconds"] > 0
    again = compare(world.config, quiet=True)
    assert again is not None
    assert again.to_json() == world.table.to_json()
    assert DrawnSet.read(folder).summary == before


@pytest.mark.usefixtures("world")
def test_a_run_may_go_into_a_list_of_the_recipe() -> None:
    arms = {
        "begin": {"set": {"training.steps": 1}},
        "drawn": {"recipe": "drawn.yaml", "init": {"generators.0.name": "begin"}},
        "end": {"init": {"data.generated": "drawn", "encoder.name": "begin"}},
    }
    found = make_recipes(make_plan(comparison(arms)))
    for seed in (0, 1):
        begin, drawn, end = (found[arm, seed] for arm in ("begin", "drawn", "end"))
        assert (drawn.generators[0].name, drawn.generators[0].steps) == (str(begin.output), 1)
        assert (end.encoder.name, end.data.generated[0].path) == (str(begin.output), drawn.output)
        assert begin.save_model
        assert not end.save_model
    other = {**arms, "begin": {"set": {"training.steps": 2}}}
    moved = make_recipes(make_plan(comparison(other)))
    assert moved["end", 0].output != found["end", 0].output


@pytest.mark.usefixtures("world")
def test_captions_of_another_set_draw_other_pictures(tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    arms = {**ARMS, "drawn": {"recipe": "drawn.yaml",
                              "set": {"source": str(captions), "per_class": None, "per_caption": 1}}}  # fmt: skip
    folders = []
    for text in ("a red square\n", "a blue square\n"):
        captions.write_text(text)
        folders.append(make_recipes(make_plan(comparison(arms)))["drawn", 0].output)
    assert folders[0] != folders[1]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("drawn", "more", "said"),
    [
        ({"reading": "tuned"}, {}, "arm drawn: a run of method: generate has no readings"),
        ({}, {"against": ["drawn"]}, "arm drawn: it draws pictures and has no numbers"),
    ],
)
def test_nothing_can_be_tested_against_pictures(drawn: dict[str, Any], more: dict[str, Any], said: str) -> None:
    arms = {**ARMS, "drawn": {"recipe": "drawn.yaml", **drawn}}
    with pytest.raises(RecipeError, match=said):
        make_recipes(make_plan(comparison(arms, **more)))


@pytest.mark.usefixtures("world")
def test_pictures_that_no_arm_takes_are_refused() -> None:
    arms = {"zero-shot": ARMS["zero-shot"], "drawn": {"recipe": "drawn.yaml"}}
    with pytest.raises(RecipeError, match=r"no arm takes; give .* init: \{data.generated: drawn\}"):
        make_recipes(make_plan(comparison(arms)))


def test_a_recipe_draws_as_the_command_does(world: World) -> None:
    recipe = world.root / "drawn.yaml"
    done = gen2real_("train", recipe, "--set", "output=by-train", "--json")
    assert done.code == 0, done.err
    assert done.value == {"set": "by-train", "finished": True, "pictures": 8, "kept": 8, "classes": 4}
    config = load_recipe(recipe, {"generate": GenerateConfig}, ["output=by-hand"])
    assert isinstance(config, GenerateConfig)
    by_hand = generate(config, quiet=True)
    assert by_hand is not None
    assert by_hand.fingerprint == ImageSet.read(world.root / "by-train").fingerprint
    said = gen2real_("train", recipe, "--set", "output=foreseen", "--dry-run", "--json")
    assert said.value["planned"] == 8
    assert not (world.root / "foreseen").exists()
