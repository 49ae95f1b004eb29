"""A run that is killed with -9 anywhere, and started again, ends with the bits of one that was not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import World, lora_of, metrics, recipe

from gen2real.files import write_json
from gen2real.models import load_dual_encoder
from gen2real.models.aligned import save_aligned
from tiny_sets import colour_set

WORKER = Path(__file__).parent / "workers" / "runs_that_die.py"

RECIPES: dict[str, dict[str, Any]] = {
    "encoder": {"head_first": {"lr": 0.01, "epochs": 1}, "data__augmentation": {"flip": 0.5}},
    "lora": {"tune": "lora", "lora__dropout": 0.3, "training__accumulation": 2},
    "head": {"tune": "head", "data__views": 2},
    "flyp": {"method": "flyp"},
    "shifted": {"tune": "lora", "lora__dropout": 0.3, "encoder__name": None},
}

DEATHS: dict[str, list[str]] = {
    # One process after another in the same folder; the last one lives.
    "encoder": ["update:3", "tensors:5", "update:4", "rename:13", "remove:1", "never"],
    "lora": ["tensors:2", "renamed:9", "never"],
    "head": ["rename:1", "update:3", "never"],
    "flyp": ["remove:1", "never"],
    "shifted": ["update:4", "never"],
}


@pytest.fixture(scope="module")
def root(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Every recipe once in one piece, and once killed again and again; and what the worker said."""
    root = tmp_path_factory.mktemp("resume")
    arguments: list[str] = []
    encoder = load_dual_encoder(world.clip)
    save_aligned(root / "aligned", encoder, lora_of(encoder), made_by={})
    shots = colour_set(root / "shots", origin="real", per_class=2, seed=7).root
    RECIPES["shifted"] |= {"encoder__init": str(root / "aligned"), "data__real": {"path": str(shots)}}
    for name, changes in RECIPES.items():
        for kind, deaths in (("whole", ["never"]), ("killed", DEATHS[name])):
            changed = {
                "training__steps": 7,
                "training__checkpoint_every": 2,
                "training__keep_checkpoints": 1,
                "ensemble__rule": "generated",
                **changes,
            }
            method = changed.pop("method", "regft")
            path = root / f"{name}-{kind}.json"
            write_json(path, recipe(world, root / f"{name}-{kind}", method, **changed))
            for death in deaths:
                arguments += [str(path), death]
    tests = WORKER.parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(tests)])}
    environment |= {"GEN2REAL_CACHE": str(root / "cache"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(WORKER), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return root, [*done.stdout.splitlines(), *done.stderr.splitlines()]


@pytest.mark.parametrize("name", RECIPES)
def test_every_kill_hit(root: tuple[Path, list[str]], name: str) -> None:
    """A kill that comes too late would test nothing."""
    lines = [line for line in root[1] if f"{name}-killed.json" in line]
    expected = ["exit 0" if death == "never" else "signal 9" for death in DEATHS[name]]
    assert [" ".join(line.split()[-2:]) for line in lines] == expected, "\n".join(root[1])


@pytest.mark.parametrize("name", RECIPES)
def test_the_weights_are_those_of_a_run_in_one_piece(root: tuple[Path, list[str]], name: str) -> None:
    whole, killed = root[0] / f"{name}-whole", root[0] / f"{name}-killed"
    for file in ("tuned.safetensors", "answers.safetensors", "model/model.safetensors", "model/head.safetensors"):
        assert (whole / file).read_bytes() == (killed / file).read_bytes(), file


@pytest.mark.parametrize("name", RECIPES)
def test_every_update_is_logged_once(root: tuple[Path, list[str]], name: str) -> None:
    whole, killed = (
        [{**row, "seconds": 0} for row in metrics(root[0] / f"{name}-{kind}")] for kind in ("whole", "killed")
    )
    assert whole == killed


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_of_the_kills_is_left(root: tuple[Path, list[str]], name: str) -> None:
    whole, killed = root[0] / f"{name}-whole", root[0] / f"{name}-killed"
    names = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (whole, killed)]
    assert names[0] == names[1]
