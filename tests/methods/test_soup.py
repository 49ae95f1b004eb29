"""Soups of finished runs: their weights, what greedy ones choose on, and what cannot be mixed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import World, config, run, same

from gen2real import methods
from gen2real.config import parse_config
from gen2real.errors import RecipeError
from gen2real.files import read_json, read_tensors
from gen2real.methods import soup as soup_module
from gen2real.methods.result import Result
from gen2real.methods.settings import SoupConfig
from gen2real.models.folder import load_classifier


@pytest.fixture(scope="module")
def runs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Two heads of different seeds and learning rates, tuned to different weights."""
    root = tmp_path_factory.mktemp("ingredients")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(world.cache))
        for name, changes in {"one": {"seed": 0}, "two": {"seed": 1, "optimizer__lr": 1e-2}}.items():
            run(world, root / name, tune="head", **changes)
        yield [root / "one", root / "two"]


def soup(folder: Path, runs: list[Path], **more: Any) -> Result:
    values = {"method": "soup", "output": str(folder), "runs": [str(path) for path in runs], **more}
    result = methods.run(parse_config(SoupConfig, values, source="soup.yaml"), quiet=True)
    assert isinstance(result, Result)
    return result


def head_of(world: World, folder: Path) -> torch.Tensor:
    return read_tensors(folder / "tuned.safetensors")["head.weight"]


def test_a_uniform_soup_is_the_mean(world: World, runs: list[Path], folder: Path) -> None:
    result = soup(folder, runs)
    one, two = (head_of(world, path) for path in runs)
    torch.testing.assert_close(head_of(world, folder), (one + two) / 2)
    assert result.summary["soup"] == {
        "kind": "uniform",
        "ingredients": [str(path) for path in runs],
        "chosen": [str(path) for path in runs],
    }
    assert not any(name.startswith("vision.") for name in result.changed_weights())


def test_the_model_folder_holds_the_recipes_blend(world: World, runs: list[Path], folder: Path) -> None:
    result = soup(folder, runs)
    start = read_tensors(runs[0] / "model" / "head.safetensors")["weight"] * 2 - head_of(world, runs[0])
    blended = load_classifier(folder / "model").classifier.head.weight
    torch.testing.assert_close(blended.detach(), (start + head_of(world, folder)) / 2)
    assert result.summary["saved"] == {"alpha": 0.5, "rule": "fixed"}


def test_zero_shot_may_be_an_ingredient(world: World, runs: list[Path], folder: Path) -> None:
    result = soup(folder, runs, include_zero_shot=True, save_model=False)
    one, two = (head_of(world, path) for path in runs)
    start = read_tensors(runs[0] / "model" / "head.safetensors")["weight"] * 2 - one
    torch.testing.assert_close(head_of(world, folder), (one + two + start) / 3)
    assert result.summary["soup"]["ingredients"][-1] == "zero-shot"
    assert not (folder / "model").exists()


def test_a_soup_of_one_is_that_one(world: World, runs: list[Path], folder: Path) -> None:
    result = soup(folder, runs[:1], save_model=False)
    assert same(result.changed_weights(), Result.read(runs[0]).changed_weights())
    alone = Result.read(runs[0])
    for reading in ("zero_shot", "tuned", "blend"):
        assert torch.equal(result.answers[f"real.{reading}"], alone.answers[f"real.{reading}"])


def test_a_greedy_soup_takes_what_does_not_lower_held_out_accuracy(
    runs: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.75, 0.7])  # one, two, then both: worse than two alone
    monkeypatch.setattr(soup_module, "_held_out_accuracy", lambda *_: next(scores))
    result = soup(folder, runs, kind="greedy", save_model=False)
    assert result.summary["soup"]["chosen"] == [str(runs[1])]
    assert same(result.changed_weights(), Result.read(runs[1]).changed_weights())


def test_held_out_accuracy_is_that_of_the_run(runs: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    measured = soup_module._held_out_accuracy
    monkeypatch.setattr(soup_module, "_held_out_accuracy", lambda *given: seen.append(measured(*given)) or seen[-1])
    soup(folder, runs, kind="greedy", save_model=False)
    own = [Result.read(path).correct("tuned", "generated").mean() for path in runs]
    assert seen[:2] == pytest.approx(own)


def test_a_finished_soup_is_read(runs: list[Path], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = soup(folder, runs, save_model=False)
    monkeypatch.setattr(soup_module, "start_of", None)
    assert soup(folder, runs, save_model=False).summary == first.summary
    with pytest.raises(RecipeError, match="kind: 'uniform' → 'greedy'"):
        soup(folder, runs, save_model=False, kind="greedy")


def copied(source: Path, target: Path, **changes: Any) -> Path:
    """A finished run whose recipe says something else."""
    from gen2real.files import write_json

    shutil.copytree(source, target)
    values = read_json(target / "recipe.json")
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (values[section] if section else values)[name] = value
    write_json(target / "recipe.json", values)
    return target


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder__name": "another"}, "differs from the first run in encoder"),
        ({"prompts__templates": "simple"}, "differs from the first run in prompts"),
        ({"centering": "generated"}, "differs from the first run in centering"),
        ({"data__holdout": 0.5}, r"differs from the first run in data\.holdout"),
        ({"data__evaluation": None}, r"differs from the first run in data\.evaluation"),
        ({"data__generated": [{"path": "others"}]}, r"differs from the first run in data\.generated"),
    ],
)
def test_runs_of_another_ground_are_refused(
    runs: list[Path], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    other = copied(runs[1], tmp_path / "other", **changes)
    with pytest.raises(RecipeError, match=f"other {said}"):
        soup(tmp_path / "soup", [runs[0], other])
    assert not (tmp_path / "soup").exists()


def test_greedy_needs_something_held_out(world: World, tmp_path: Path, runs: list[Path]) -> None:
    others = [copied(path, tmp_path / path.name, data__holdout=0.0) for path in runs]
    with pytest.raises(RecipeError, match=r"hold none out\. Set data\.holdout=0\.1"):
        soup(tmp_path / "soup", others, kind="greedy")


def test_runs_of_other_methods_are_refused(world: World, runs: list[Path], tmp_path: Path) -> None:
    flyp = config(world, tmp_path / "flyp", "flyp").model_dump(mode="json")
    shutil.copytree(runs[0], tmp_path / "flyp")
    from gen2real.files import write_json

    write_json(tmp_path / "flyp" / "recipe.json", flyp)
    with pytest.raises(RecipeError, match="flyp is of method 'flyp'; a soup takes runs of 'regft'"):
        soup(tmp_path / "soup", [runs[0], tmp_path / "flyp"])
    soup(tmp_path / "soup", runs, save_model=False)
    with pytest.raises(RecipeError, match="soup is of method 'soup'"):
        soup(tmp_path / "soup of soups", [tmp_path / "soup"])


def test_a_run_that_has_not_ended_is_named(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    with pytest.raises(RecipeError, match=r"begun holds no result\.json: the run has not ended"):
        soup(tmp_path / "soup", [runs[0], tmp_path / "begun"])
    assert not (tmp_path / "soup").exists()
