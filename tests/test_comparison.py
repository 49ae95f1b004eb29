"""Arms × seeds, whole: tiny encoders, every number of the table worked out again from the runs' own answers."""

from __future__ import annotations

import csv
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gen2real import comparison
from gen2real.comparison import Table, compare
from gen2real.comparison.plan import leaves
from gen2real.config import parse_config
from gen2real.errors import RecipeError
from gen2real.evaluation import features
from gen2real.evaluation.statistics import bootstrap_interval, paired_bootstrap, seed_interval
from gen2real.files import read_json, read_tensors
from gen2real.methods.result import Result
from gen2real.methods.settings import CompareConfig
from tiny import tiny_clip
from tiny_sets import colour_set

RECIPE = """
method: regft
output: unused
encoder: {{name: {root}/clip}}
prompts: {{templates: ["a photo of {{}}"]}}
data: {{generated: [{root}/generated], evaluation: {root}/real, holdout: 0.2}}
optimizer: {{lr: 1e-3}}
schedule: {{warmup_steps: 0}}
training: {{steps: 2, batch_size: 8}}
ensemble: {{sweep: [0.3]}}
"""
HEAD = """
base: encoder.yaml
tune: head
loss: {variance: 0, covariance: 0}
training: {steps: 20}
"""
PLAIN = {"loss.variance": 0, "loss.covariance": 0}


@dataclass(frozen=True)
class World:
    """The recipes, and a comparison that was run."""

    root: Path
    config: CompareConfig
    table: Table
    lines: list[str]

    @property
    def output(self) -> Path:
        return self.config.output

    def runs(self, method: str = "regft") -> list[Result]:
        found = sorted((self.output / "runs").iterdir())
        return [Result.read(folder) for folder in found if read_json(folder / "recipe.json")["method"] == method]

    def run(self, *, seed: int, tune: str = "encoder", variance: float = 0.16) -> Result:
        [found] = [
            one
            for one in self.runs()
            if (recipe := read_json(one.folder / "recipe.json"))["seed"] == seed
            and recipe["tune"] == tune
            and recipe["loss"]["variance"] == variance
        ]
        return found


def config(root: Path, output: Path, arms: dict[str, Any], **more: Any) -> CompareConfig:
    values = {"output": str(output), "recipe": str(root / "head.yaml"), "seeds": [0, 1], "arms": arms, **more}
    return parse_config(CompareConfig, values, source="compare.yaml")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("comparison")
    tiny_clip(root / "clip")
    colour_set(root / "generated")
    colour_set(root / "real", origin="real", per_class=5)
    (root / "encoder.yaml").write_text(RECIPE.format(root=root))
    (root / "head.yaml").write_text(HEAD)
    (root / "flyp.yaml").write_text(RECIPE.format(root=root).replace("regft", "flyp"))
    arms = {
        "zero-shot": {"reading": "zero_shot"},
        "plain": {"set": PLAIN, "reading": "tuned"},
        "plain, blended": {"set": PLAIN, "note": "half way"},
        "VCR": {"reading": "alpha=0.3"},
        "probe": {"recipe": str(root / "head.yaml"), "reading": "tuned"},
        "probe, best": {"recipe": str(root / "head.yaml"), "reading": "oracle"},
        "uniform": {"soup": {"arms": ["plain", "VCR"]}, "reading": "tuned"},
        "greedy": {"soup": {"arms": ["plain", "VCR"], "kind": "greedy", "include_zero_shot": True}, "reading": "tuned"},
        "of seeds": {"soup": {"arms": ["plain"], "over": "seeds"}, "reading": "tuned"},
    }
    settings = config(
        root,
        root / "out",
        arms,
        recipe=str(root / "encoder.yaml"),
        against=["zero-shot", "plain"],
        set={"data.views": 1},
    )
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        table = compare(settings, quiet=True, on_run=lines.append)
        assert table is not None
        yield World(root, settings, table, lines)


def test_equal_trainings_are_shared(world: World) -> None:
    assert len(world.runs()) == 6  # encoder, plain and head for each of two seeds
    assert len(world.runs("soup")) == 5  # uniform and greedy for each seed, one over seeds
    assert world.lines[:6] == [
        "[1/6] zero-shot, seed 0",
        "[2/6] zero-shot, seed 1",
        "[3/6] plain, seed 0",
        "[4/6] plain, seed 1",
        "[5/6] probe, seed 0",
        "[6/6] probe, seed 1",
    ]
    assert world.lines[6:] == [
        "uniform, seed 0: uniform soup of 2",
        "uniform, seed 1: uniform soup of 2",
        "greedy, seed 0: greedy soup of 2",
        "greedy, seed 1: greedy soup of 2",
        "of seeds, seed 0: uniform soup of 2",
    ]


def answers(result: Result, reading: str, on: str = "real") -> np.ndarray:
    stored = read_tensors(result.folder / "answers.safetensors")
    return (stored[f"{on}.{reading}"][:, 0] == stored[on]).numpy()


def test_every_row_holds_what_the_answers_say(world: World) -> None:
    rows = {row.arm: row for row in world.table.rows}
    assert list(rows) == list(world.config.arms)
    for arm, variance, reading in [
        ("zero-shot", 0.16, "zero_shot"),
        ("plain", 0, "tuned"),
        ("plain, blended", 0, "blend"),
        ("VCR", 0.16, "alpha=0.3"),
    ]:
        row, results = rows[arm], [world.run(seed=seed, variance=variance) for seed in (0, 1)]
        right = np.stack([answers(result, reading) for result in results])
        assert (row.seeds, row.reading) == (2, reading)
        assert row.real is not None
        assert row.real.mean == pytest.approx(right.mean())
        assert row.real == bootstrap_interval(right)
        assert row.real_over_seeds == seed_interval(right.mean(axis=1))
        learned = np.stack([answers(result, reading, "generated") for result in results])
        assert row.generated.mean == pytest.approx(learned.mean())
        assert row.generated_pictures_are == "held out"
        spent = [read_json(result.folder / "result.json")["cost"]["training_seconds"] for result in results]
        assert row.seconds == pytest.approx(np.mean(spent))
    assert rows["plain, blended"].note == "half way"
    assert rows["of seeds"].seeds == 1
    assert rows["of seeds"].real_over_seeds is None


def test_a_soup_costs_what_its_ingredients_cost(world: World) -> None:
    rows = {row.arm: row for row in world.table.rows}
    assert rows["uniform"].seconds == pytest.approx(rows["plain"].seconds + rows["VCR"].seconds)
    assert rows["of seeds"].seconds == pytest.approx(2 * rows["plain"].seconds)


def test_tests_are_paired_and_corrected(world: World) -> None:
    rows = {row.arm: row for row in world.table.rows}
    zero_shot = np.stack([answers(world.run(seed=seed), "zero_shot") for seed in (0, 1)])
    plain = np.stack([answers(world.run(seed=seed, variance=0), "tuned") for seed in (0, 1)])
    test, _ = rows["plain"].tests["zero-shot"]
    assert test == paired_bootstrap(plain, zero_shot)
    assert test.difference == pytest.approx(plain.mean() - zero_shot.mean())
    assert "plain" not in rows["plain"].tests
    for reference in ("zero-shot", "plain"):
        found = {arm: row.tests[reference] for arm, row in rows.items() if arm != reference}
        assert len(found) == 8
        # Holm: the smallest of m p-values times m, the next times m − 1, never falling.
        highest = 0.0
        for place, (test, corrected) in enumerate(sorted(found.values(), key=lambda pair: pair[0].p_value)):
            highest = max(highest, min(1.0, (8 - place) * test.p_value))
            assert corrected == pytest.approx(highest)


def test_the_greedy_soup_chooses_on_generated_pictures_alone(world: World) -> None:
    greedy = [one for one in world.runs("regft") + world.runs("soup") if "soup" in one.summary]
    kinds = Counter(one.summary["soup"]["kind"] for one in greedy)
    assert kinds == {"uniform": 3, "greedy": 2}
    for one in greedy:
        assert set(one.summary["soup"]["chosen"]) <= set(one.summary["soup"]["ingredients"])


def test_the_three_files_say_the_same(world: World) -> None:
    stored = read_json(world.output / "table.json")
    assert stored == world.table.to_json()
    assert set(stored) == {"version", "against", "rows"}
    assert set(stored["rows"][1]) == {
        "arm", "reading", "seeds", "real_top1", "real_top1_over_seeds", "generated_top1", "generated_pictures_are",
        "against", "transductive_top1", "training_seconds_a_seed", "note",
        "runs",
    }  # fmt: skip
    for row in stored["rows"]:
        folders = [world.output / folder for folder in row["runs"].values()]
        right = [Result.read(folder).correct(row["reading"]).mean() for folder in folders]
        assert np.mean(right) == pytest.approx(row["real_top1"]["mean"])
    assert "plain, blended" in (world.output / "recipe.yaml").read_text()
    assert set(stored["rows"][1]["against"]["zero-shot"]) >= {"difference", "low", "high", "p_value", "p_value_holm"}
    lines = list(csv.DictReader((world.output / "table.csv").read_text().splitlines()))
    assert [line["arm"] for line in lines] == list(world.config.arms)
    for line, row in zip(lines, stored["rows"], strict=True):
        assert float(line["real_top1"]) == row["real_top1"]["mean"]
        assert float(line["real_low"]) == row["real_top1"]["low"]
        assert float(line["generated_top1"]) == row["generated_top1"]["mean"]
        tested = row["against"].get("plain")
        assert line["p_holm_to_plain"] == ("" if tested is None else str(tested["p_value_holm"]))
    drawn = (world.output / "table.md").read_text().splitlines()
    assert drawn[0] == "| arm | seeds | real top-1 | ± seeds | generated top-1 | against zero-shot | against plain |"
    assert len(drawn) == 2 + len(lines)
    assert drawn[3].startswith("| plain | 2 | ")
    assert drawn[3].endswith(" | – |")


def test_a_bound_is_called_one(world: World) -> None:
    _, lines = world.table.cells()
    assert lines[5][0] == "probe, best (a bound)"


def test_a_pipe_in_a_name_does_not_break_the_table(world: World) -> None:
    row = world.table.rows[0]
    drawn = Table((type(row)(**{**vars(row), "arm": "a|b"}),), ()).markdown()
    assert "| a\\|b |" in drawn


def test_a_second_call_reads_what_is_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in world.output.rglob("result.json")}
    monkeypatch.setattr(features, "_encode", None)
    assert compare(world.config, quiet=True) == world.table
    assert {path: path.stat().st_mtime_ns for path in world.output.rglob("result.json")} == before


class Encoded:
    """Counts the pictures that went through an image encoder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pictures = 0
        encode = features._encode

        def counted(vision: Any, count: int, *rest: Any, **more: Any) -> Any:
            self.pictures += count
            return encode(vision, count, *rest, **more)

        monkeypatch.setattr(features, "_encode", counted)


def test_head_only_arms_and_seeds_encode_each_picture_once(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEN2REAL_CACHE", str(tmp_path / "cache"))
    encoded = Encoded(monkeypatch)
    arms = {
        "zero-shot": {"reading": "zero_shot"},
        "probe": {"reading": "tuned"},
        "soft": {"set": {"loss.soft_targets": 0.5}, "reading": "tuned"},
    }
    start = time.perf_counter()
    compare(config(world.root, tmp_path / "out", arms, seeds=[0, 1, 2]), quiet=True)
    assert encoded.pictures == 24 + 20  # every generated picture, held out or not, and every real one
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 6
    assert time.perf_counter() - start < 60


def test_a_comparison_that_was_interrupted_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {"probe": {"reading": "tuned"}, "soft": {"set": {"loss.soft_targets": 0.5}, "reading": "tuned"}}
    whole = compare(config(world.root, tmp_path / "whole", arms), quiet=True)
    run, started = comparison.run, []

    def interrupted(recipe: Any, **more: Any) -> Any:
        started.append(recipe)
        if len(started) == 3:
            raise KeyboardInterrupt
        return run(recipe, **more)

    settings = config(world.root, tmp_path / "out", arms)
    monkeypatch.setattr(comparison, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(settings, quiet=True)
    assert not (tmp_path / "out" / "table.json").exists()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("result.json")}
    assert len(done) == 2
    monkeypatch.setattr(comparison, "run", run)
    table = compare(settings, quiet=True)
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert table is not None
    assert whole is not None
    assert [row.real for row in table.rows] == [row.real for row in whole.rows]
    assert [row.tests for row in table.rows] == [row.tests for row in whole.rows]


def test_without_real_pictures_the_table_speaks_of_generated_ones(world: World, tmp_path: Path) -> None:
    arms = {"zero-shot": {"reading": "zero_shot"}, "a": {"reading": "tuned"}}
    settings = config(world.root, tmp_path, arms, set={"data.evaluation": None}, against=["zero-shot"], seeds=[0])
    table = compare(settings, quiet=True)
    assert table is not None
    for row in table.rows:
        assert (row.real, row.real_over_seeds, row.tests) == (None, None, {})
    assert table.cells()[1][1][2:4] == ["–", "–"]
    [_, line] = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert line["real_top1"] == line["p_to_zero-shot"] == ""
    assert float(line["generated_top1"]) == table.rows[1].generated.mean
    assert read_json(tmp_path / "table.json")["rows"][0]["real_top1"] is None


FLYP = {"recipe": "flyp.yaml", "reading": "tuned"}


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({"b": {"set": {"los.variance": 0}}}, "arm b: .*los: unknown key; did you mean loss?"),
        ({"b": {"set": {"optimizer.lr": -1}}}, "arm b: .*optimizer.lr: given -1; expected greater than 0"),
        ({"b": {"reading": "tunde"}}, "arm b: reading: given 'tunde'.*did you mean tuned?"),
        ({"b": {"reading": "alpha=0.4"}}, "arm b: reading: given 'alpha=0.4'.*one of 0, 0.3, 0.5, 1"),
        ({"b": {"reading": "transductive_tuned"}}, "arm b: reading"),
        ({"b": {"set": {"data.evaluation": None}, "reading": "oracle"}}, "arm b: reading"),
        ({"b": {"set": {"data.holdout": 0}, "reading": "blend_generated"}}, "arm b: reading"),
        ({"b": {"set": {"data.generated": ["nowhere"]}}}, "arm b: .*nowhere does not exist"),
        ({"b": {"set": {"data.evaluation": "generated"}}}, "data.evaluation must be one set for all:\n  a: .*\n  b: "),
        ({"b": {"recipe": "nowhere.yaml"}}, "arm b: .*nowhere.yaml"),
        ({"b": FLYP, "s": {"soup": {"arms": ["a", "b"]}}}, "arm s: arm b is of method 'flyp'; a soup takes"),
        ({"b": {"set": {"centering": "generated"}}, "s": {"soup": {"arms": ["a", "b"]}}}, "arm s: arm b .*centering"),
        ({"b": {"set": {"data.holdout": 0.5}}, "s": {"soup": {"arms": ["a", "b"]}}}, "arm s: arm b .*data.holdout"),
        (
            {"b": {"set": {"data.holdout": 0}}, "s": {"soup": {"arms": ["b"], "kind": "greedy"}}},
            "arm s: a greedy soup is chosen on held-out generated pictures",
        ),
        ({"s": {"soup": {"arms": ["a"]}, "reading": "bland"}}, "arm s: reading: given 'bland'.*did you mean blend"),
    ],
)  # fmt: skip
def test_an_arm_that_does_not_fit_is_named_before_anything_runs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arms: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(world.root)
    monkeypatch.setattr(comparison, "run", None)
    with pytest.raises(RecipeError, match=f"(?s){said}"):
        compare(config(world.root, tmp_path / "out", {"a": {}, **arms}), quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arms", "more", "said"),
    [
        ({"a": {}}, {"against": ["b"]}, "against: b names an arm that is not there"),
        ({"a": {}, "s": {"soup": {"arms": ["aa"]}}}, {}, "did you mean a?"),
        ({"a": {}, "s": {"soup": {"arms": ["a"]}, "set": {"seed": 1}}}, {}, "recipe, set and seeds belong there"),
        ({"a": {}}, {"recipe": None}, "arm a has no recipe"),
        ({"a": {}}, {"seeds": []}, "seeds"),
    ],
)
def test_a_comparison_that_contradicts_itself_is_refused(
    world: World, arms: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        config(world.root, world.root / "unused", arms, **more)


def test_a_set_made_anew_under_its_old_name_is_trained_on_anew(world: World, tmp_path: Path) -> None:
    colour_set(tmp_path / "generated", per_class=3)
    settings = config(
        world.root,
        tmp_path / "out",
        {"a": {"reading": "tuned"}},
        set={"data.generated": [str(tmp_path / "generated")]},
        seeds=[0],
    )
    compare(settings, quiet=True)
    os.remove(tmp_path / "generated" / "manifest.parquet")
    colour_set(tmp_path / "generated", per_class=3, seed=1)
    compare(settings, quiet=True)
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2


def test_processes_other_than_the_first_train_along_and_write_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(comparison, "rank", lambda: 1)
    monkeypatch.setattr(comparison, "run", lambda recipe, **_: started.append(recipe.output))
    arms = {"a": {"reading": "tuned"}, "b": {"reading": "blend"}}
    assert compare(config(world.root, tmp_path / "out", arms), quiet=True) is None
    assert len(started) == len(set(started)) == 2
    assert not (tmp_path / "out").exists()


def test_sections_and_dotted_keys_mean_the_same() -> None:
    nested = {"loss": {"variance": 0, "covariance": 1}, "data.views": 2, "optimizer": {"betas": [0, 1]}}
    assert leaves(nested) == {
        "loss.variance": 0, "loss.covariance": 1, "data.views": 2, "optimizer.betas": [0, 1]
    }  # fmt: skip


def test_the_table_is_json(world: World) -> None:
    assert json.loads(json.dumps(world.table.to_json(), allow_nan=False))["version"] == 1
