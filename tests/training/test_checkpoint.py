"""Checkpoints: all of a run's state comes back, and whatever happens to the disk leaves a whole one behind."""

from __future__ import annotations

import errno
import random
import resource
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import differing, plain_model, state_of
from torch import nn

from gen2real.errors import CheckpointError
from gen2real.files import read_json, read_tensors, sha256_of, write_json
from gen2real.training import checkpoint

Models = dict[str, nn.Module]


def optimizer_of(models: Models) -> torch.optim.AdamW:
    trained = [p for model in models.values() for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=0.01, fused=True)


def learn(models: Models, optimizer: torch.optim.Optimizer, updates: int = 2) -> None:
    for _ in range(updates):
        sum(model(torch.randn(6, 4)).square().mean() for model in models.values()).backward()
        optimizer.step()
        optimizer.zero_grad()


def two_models(seed: int = 0) -> Models:
    models = {"first": plain_model(seed), "second": plain_model(seed + 10)}
    models["second"][0].requires_grad_(False)
    return models


def saved(folder: Path, *steps: int, keep: int = 5) -> Models:
    """A folder with a checkpoint at each of `steps`, and the models as they were after the last."""
    models = two_models()
    optimizer = optimizer_of(models)
    for step in steps:
        learn(models, optimizer)
        checkpoint.save(folder, step, models, optimizer, extra={"seconds": float(step)}, keep=keep)
    return models


def restored(folder: Path, models: Models | None = None) -> tuple[Models, int]:
    models = models or two_models(seed=0)
    found = checkpoint.restore(folder, models, optimizer_of(models))
    assert found is not None
    return models, found[0]


def newest(folder: Path) -> Path:
    return sorted(folder.glob("step-*"))[-1]


def test_all_of_the_models_come_back(tmp_path: Path) -> None:
    models = saved(tmp_path, 1, 2)
    other = two_models()
    assert differing(state_of(models), state_of(other))
    optimizer = optimizer_of(other)
    assert checkpoint.restore(tmp_path, other, optimizer) == (2, {"seconds": 2.0})
    assert differing(state_of(models), state_of(other)) == []
    counter = other["first"][1].num_batches_tracked
    assert counter.dtype == torch.int64
    assert int(counter) == 4


def test_the_optimizer_goes_on_where_it_was(tmp_path: Path) -> None:
    models = two_models()
    optimizer = optimizer_of(models)
    learn(models, optimizer)
    checkpoint.save(tmp_path, 2, models, optimizer, extra={}, keep=1)
    other = two_models(seed=5)
    for name in models:  # the frozen part of a run comes from where it came the first time
        other[name][0].load_state_dict(models[name][0].state_dict())
    resumed = optimizer_of(other)
    checkpoint.restore(tmp_path, other, resumed)
    for mine, theirs in zip(
        optimizer.state_dict()["state"].values(), resumed.state_dict()["state"].values(), strict=True
    ):
        assert sorted(mine) == ["exp_avg", "exp_avg_sq", "step"]
        assert all(torch.equal(mine[moment], theirs[moment]) for moment in mine)
    for one, its_optimizer in ((models, optimizer), (other, resumed)):
        torch.manual_seed(3)
        learn(one, its_optimizer)
    assert differing(state_of(models), state_of(other)) == []


def test_what_is_frozen_is_not_stored(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    stored = read_tensors(newest(tmp_path) / "model.safetensors")
    assert "first.0.weight" in stored
    assert "second.0.weight" not in stored
    assert {"second.1.running_mean", "second.1.num_batches_tracked", "second.4.bias"} <= set(stored)
    moments = read_tensors(newest(tmp_path) / "optimizer.safetensors")
    assert not any(name.startswith("second.0") for name in moments)


def test_a_parameter_that_got_no_gradient_yet_is_no_obstacle(tmp_path: Path) -> None:
    models: Models = {"only": plain_model()}
    models["only"].register_parameter("unused", nn.Parameter(torch.ones(3)))
    optimizer = optimizer_of(models)
    learn(models, optimizer)
    checkpoint.save(tmp_path, 1, models, optimizer, extra={}, keep=1)
    other: Models = {"only": plain_model(seed=4)}
    other["only"].register_parameter("unused", nn.Parameter(torch.zeros(3)))
    resumed = optimizer_of(other)
    checkpoint.restore(tmp_path, other, resumed)
    for one, its_optimizer in ((models, optimizer), (other, resumed)):
        torch.manual_seed(3)
        learn(one, its_optimizer)
    assert differing(state_of(models), state_of(other)) == []


def test_every_random_generator_goes_on_where_it_was(tmp_path: Path) -> None:
    models = two_models()
    np.random.standard_normal()  # leaves a second normal number waiting inside
    random.gauss(0, 1)
    checkpoint.save(tmp_path, 1, models, optimizer_of(models), extra={}, keep=1)

    def draws() -> tuple[list[float], list[float], list[float]]:
        return torch.rand(3).tolist(), [random.gauss(0, 1), random.random()], np.random.standard_normal(3).tolist()

    expected = draws()
    draws()
    restored(tmp_path, models)
    assert draws() == expected


def test_nothing_to_restore(tmp_path: Path) -> None:
    models = two_models()
    assert checkpoint.restore(tmp_path / "none", models, optimizer_of(models)) is None


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 10, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000010"]


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "rng.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("harm", [shorten, Path.unlink, flip_a_bit])
def test_a_torn_checkpoint_is_passed_over(tmp_path: Path, name: str, harm: object) -> None:
    before = state_of(saved(tmp_path, 1))
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000002")
    harm(tmp_path / "step-00000002" / name)  # type: ignore[operator]
    with pytest.warns(UserWarning, match=r"step-00000002 is torn .*; the checkpoint before it is used"):
        models, step = restored(tmp_path)
    assert step == 1
    assert differing(before, state_of(models)) == []


def test_where_all_are_torn_nothing_is_loaded(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    for folder in tmp_path.iterdir():
        shorten(folder / "model.safetensors")
    fresh = two_models()
    with pytest.raises(CheckpointError, match=r"(?s)none of the 2 checkpoints .* is whole.*Remove that folder"):
        restored(tmp_path, fresh)
    assert differing(state_of(two_models()), state_of(fresh)) == []


@pytest.mark.parametrize("other", ["another layer", "another shape", "a model less", "a model more"])
def test_another_models_checkpoint_is_refused_by_name(tmp_path: Path, other: str) -> None:
    saved(tmp_path, 1)
    models = two_models()
    if other == "another layer":
        models["first"].append(nn.Linear(3, 3))
    elif other == "another shape":
        models["first"][4] = nn.Linear(5, 2)
    elif other == "a model less":
        del models["second"]
    else:
        models["third"] = nn.Linear(4, 3)
    tensor = {
        "another layer": r"first\.5\.bias",
        "another shape": r"first\.4\.bias",
        "a model less": r"second\.1\.bias",
        "a model more": r"third\.bias",
    }[other]
    with pytest.raises(CheckpointError, match=rf"belongs to another model; .*{tensor}.*[Uu]se another output folder"):
        restored(tmp_path, models)


@pytest.mark.parametrize("kind", ["pickle", "torch zip"])
def test_a_pickle_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    saved(tmp_path, 1)
    file = tmp_path / "step-00000001" / "model.safetensors"
    # A pickle that would write a file if anything opened it.
    harmful = b"\x80\x04cbuiltins\nopen\n(V" + str(tmp_path / "opened").encode() + b"\nVw\ntR."
    if kind == "pickle":
        file.write_bytes(harmful)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", harmful)
    # Even one whose hash is what checkpoint.json says.
    described = read_json(file.parent / "checkpoint.json")
    described["sha256"]["model.safetensors"] = sha256_of(file)
    write_json(file.parent / "checkpoint.json", described)
    with pytest.raises(CheckpointError, match=r"is a pickle\. .* opening a pickle runs whatever program"):
        restored(tmp_path)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "checkpoint.json"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, number: int
) -> None:
    before = state_of(saved(tmp_path, 1))

    def full(path: Path, *_: object) -> None:
        if path.name == file:
            path.write_bytes(b"half of ")
            raise OSError(number, "the disk says no")
        path.write_bytes(b"whole")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    monkeypatch.setattr(checkpoint, "write_json", full)
    said = "takes no file as large" if number == errno.EFBIG else r"the disk is full: .*\d+ MB are free"
    models = two_models()
    with pytest.raises(CheckpointError, match=said + r".*Nothing that was there before is lost.*it resumes"):
        checkpoint.save(tmp_path, 2, models, optimizer_of(models), extra={}, keep=1)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    models, step = restored(tmp_path)
    assert step == 1
    assert differing(before, state_of(models)) == []


def test_the_operating_system_refusing_more_bytes_keeps_what_was_there(tmp_path: Path) -> None:
    """No pretence here: the kernel itself stops the writer in the middle of model.safetensors."""
    models: Models = {"wide": nn.Linear(300, 300)}
    optimizer = optimizer_of(models)
    checkpoint.save(tmp_path, 1, models, optimizer, extra={}, keep=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"takes no file as large.*raise the limit"):
            checkpoint.save(tmp_path, 2, models, optimizer, extra={}, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert restored(tmp_path, models)[1] == 1
    checkpoint.save(tmp_path, 2, models, optimizer, extra={}, keep=1)
    assert restored(tmp_path, models)[1] == 2


def test_what_a_killed_writer_left_is_ignored_then_removed(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    for left in (".step-00000002.x7f.partial", ".step-00000001.a1b.retired"):
        shutil.copytree(tmp_path / "step-00000001", tmp_path / left)
    (tmp_path / ".step-00000002.x7f.partial" / ".model.safetensors.9.partial.safetensors").write_bytes(b"half")
    assert restored(tmp_path)[1] == 1
    models = two_models()
    checkpoint.save(tmp_path, 2, models, optimizer_of(models), extra={}, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_checkpoint_replaces_the_torn_one_of_its_step(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    shorten(tmp_path / "step-00000002" / "model.safetensors")
    models = saved(tmp_path, 2)
    again, step = restored(tmp_path)
    assert step == 2
    assert differing(state_of(models), state_of(again)) == []


def test_another_number_of_processes_is_told(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    path = tmp_path / "step-00000001" / "checkpoint.json"
    write_json(path, {**read_json(path), "processes": 4})
    with pytest.warns(UserWarning, match=r"was written by 4 process\(es\) and is resumed by 1"):
        restored(tmp_path)
