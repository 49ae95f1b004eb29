"""A run's folder belongs to one recipe, and its metrics are each update's once."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gen2real.config import Config
from gen2real.errors import CheckpointError, RecipeError
from gen2real.files import read_json
from gen2real.training.run_folder import RunFolder, environment


class Inner(Config):
    """A section."""

    lr: float = 0.1
    names: tuple[str, ...] = ("a",)


class Recipe(Config):
    """A recipe with a section."""

    output: Path
    seed: int = 0
    optimizer: Inner = Inner()
    data: Path = Path("pictures")


def opened(path: Path, **settings: Any) -> RunFolder:
    return RunFolder(path, Recipe(output=path, **settings))


def test_a_new_folder_says_what_runs_in_it(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run", seed=3)
    assert not folder.finished
    assert sorted(path.name for path in folder.path.iterdir()) == ["environment.json", "recipe.json", "recipe.yaml"]
    assert read_json(folder.path / "recipe.json")["seed"] == 3
    assert "lr: 0.1" in (folder.path / "recipe.yaml").read_text()
    assert read_json(folder.path / "environment.json") == environment()
    assert set(environment()) >= {"python", "torch", "transformers", "gen2real"}


def test_the_same_recipe_opens_it_again(tmp_path: Path) -> None:
    opened(tmp_path / "run")
    opened(tmp_path / "run")


def test_another_recipe_is_refused_with_what_differs(tmp_path: Path) -> None:
    opened(tmp_path / "run").log({"stage": "head", "step": 1})
    with pytest.raises(RecipeError) as caught:
        opened(tmp_path / "run", seed=1, optimizer=Inner(lr=0.2, names=("a", "b")))
    said = str(caught.value)
    assert "seed: 0 → 1" in said
    assert "optimizer.lr: 0.1 → 0.2" in said
    assert "optimizer.names: ['a'] → ['a', 'b']" in said
    assert "data" not in said.replace("output", "").split("Give this one")[0]
    assert "--set output=FOLDER" in said
    assert read_json(tmp_path / "run" / "recipe.json")["seed"] == 0


def test_a_recipe_that_was_mended_before_anything_was_trained_is_taken(tmp_path: Path) -> None:
    opened(tmp_path / "run", data=Path("pictrues"))
    opened(tmp_path / "run", data=Path("pictures"))
    assert read_json(tmp_path / "run" / "recipe.json")["data"] == "pictures"
    assert "pictrues" not in (tmp_path / "run" / "recipe.yaml").read_text()


def test_a_moved_folder_is_still_its_recipes(tmp_path: Path) -> None:
    opened(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    opened(tmp_path / "there")


def test_a_process_that_does_not_write_writes_nothing(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", Recipe(output=tmp_path), writer=False)
    assert not (tmp_path / "run").exists()


def test_a_kill_between_the_first_files_is_no_obstacle(tmp_path: Path) -> None:
    opened(tmp_path / "run")
    (tmp_path / "run" / "recipe.json").unlink()
    (tmp_path / "run" / ".recipe.json.x1.partial.json").write_text("{")
    (tmp_path / "run" / ".model.x2.partial").mkdir()
    opened(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "environment.json",
        "recipe.json",
        "recipe.yaml",
    ]


def test_checkpoints_go_when_the_run_has_ended(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    (folder.checkpoints / "step-00000001").mkdir(parents=True)
    opened(folder.path)
    assert folder.checkpoints.exists()
    folder.result.write_text("{}")
    assert opened(folder.path).finished
    assert not folder.checkpoints.exists()


def rows_of(folder: RunFolder) -> list[tuple[str, int]]:
    return [(row["stage"], row["step"]) for row in map(json.loads, folder.metrics.read_text().splitlines())]


def test_updates_that_will_be_done_again_are_forgotten(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    folder.forget_after("head", 0)
    for stage, step in (("head", 1), ("head", 2), ("encoder", 1), ("encoder", 2), ("encoder", 3)):
        folder.log({"stage": stage, "step": step, "loss": 0.5})
    folder.forget_after("encoder", 1)
    assert rows_of(folder) == [("head", 1), ("head", 2), ("encoder", 1)]


def test_a_line_torn_by_a_kill_is_forgotten(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    folder.log({"stage": "head", "step": 1})
    with folder.metrics.open("a") as stream:
        stream.write('{"stage": "head", "st')
    folder.forget_after("head", 1)
    folder.log({"stage": "head", "step": 2})
    assert rows_of(folder) == [("head", 1), ("head", 2)]


def test_a_row_is_json_and_nothing_else(tmp_path: Path) -> None:
    folder = opened(tmp_path / "run")
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.log({"stage": "head", "step": 1, "loss": float("nan")})


def test_a_disk_that_fills_while_logging_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = opened(tmp_path / "run")

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match=r"the disk is full: .*metrics\.jsonl"):
        folder.log({"stage": "head", "step": 1})
