"""Dry runs of joint trainings: what they count, price and hold, and that they leave nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from captioned_sets import captioned, config, shared_pair
from torch import nn

from gen2real.errors import ImageSetError
from gen2real.methods.estimate import estimate
from gen2real.methods.unidiff.algorithm import JointTraining
from gen2real.methods.unidiff.data import JointData
from gen2real.methods.unidiff.rehearsal import states_of
from gen2real.methods.unidiff.settings import UniDiffConfig
from gen2real.models.joint import load_joint


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rehearsed")
    assert shared_pair(root).shared
    captioned(root / "pictures", 24)
    captioned(root / "evaluation", 10, seed=1)
    return root


def recipe(root: Path, run: Path, **changes: Any) -> UniDiffConfig:
    values = {
        "output": str(run),
        "models__clip": str(root / "clip"),
        "models__generator": str(root / "generator"),
        "drawing__steps": 2,
        "training": {"epochs": 10, "steps": None, "batch_size": 6},
    }
    return config(root / "pictures", **{**values, **changes})


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for p in {id(p): p for module in modules for p in module.parameters()}.values())


def buffers(*modules: nn.Module) -> int:
    return sum(b.nbytes for b in {id(b): b for module in modules for b in module.buffers()}.values())


def test_everything_is_counted_and_nothing_is_left_behind(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEN2REAL_CACHE", str(tmp_path / "cache"))
    settings = recipe(
        root,
        tmp_path / "run",
        data__holdout=0.25,
        data__evaluation=str(root / "evaluation"),
        conflict__heads_first=7,
        drawing__pictures=3,
    )
    found = estimate(settings)
    assert list(tmp_path.iterdir()) == []
    assert (found.pictures, found.held_out) == (18, 6)
    assert (found.updates, found.timed_updates) == (10 * 3 + 7, 3)
    # Before, after and at 3, 6, … 27 of 30 updates the held-out pictures, and the evaluation set at either end.
    assert found.encoded == 11 * 6 + 2 * 10
    # Two crops a picture; without a scorer the report's pictures alone are drawn, one of each caption, at either end.
    assert {name: one["count"] for name, one in found.further.items()} == {"crops": 36, "drawn": 2 * 4}
    spent = found.updates * found.seconds_per_update + found.encoded * found.seconds_per_encoded
    spent += sum(one["count"] * one["seconds_each"] for one in found.further.values())
    assert found.hours == pytest.approx(spent / 3600)
    assert all(one["seconds_each"] > 0 for one in found.further.values())
    assert found.states is not None
    assert found.states.total / 1e9 < found.memory_gb < 64
    said = found.text().splitlines()
    assert said[0] == "18 pictures to train on, 6 held out"
    assert "36 crops encoded by the VAE and kept at " in said[1]
    assert "8 pictures drawn at " in said[1]
    # What was measured, and beside it what of it is known from shapes.
    peak = said.index(next(line for line in said if "memory at the peak" in line))
    assert " of states (weights " in said[peak + 1]
    assert said[peak + 2].startswith("  image tower, full: ")
    assert found.to_json()["states"]["total"] == found.states.total


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ({}, {"image tower", "text tower", "denoiser", "head of RSC"}),
        ({"image__mode": "frozen", "text__mode": "frozen", "unet__mode": "lora"}, {"denoiser", "head of RSC"}),
        (
            {"consistency__form": "decoded", "consistency__judge": "ema", "synthesis__ema": None},
            {"image tower", "text tower", "denoiser"},
        ),
        ({"consistency__weight": 0, "synthesis__weight": 0}, {"image tower", "text tower"}),
    ],
)
def test_states_are_those_that_training_holds(
    root: Path, tmp_path: Path, changes: dict[str, Any], trained: set[str]
) -> None:
    settings = recipe(root, tmp_path / "run", **changes)
    joint = load_joint(settings.models)
    training = JointTraining(settings, joint, JointData(settings, joint))
    found = states_of(training)
    parts = {part.name: part for part in found.parts}
    assert {part.name for part in found.parts if part.trained} == trained
    # One text tower, counted once; the judge is a second image tower where there is one.
    modules = [joint.encoder.vision, joint.encoder.text, joint.diffusion.unet, joint.diffusion.vae]
    modules += [one for one in (training.network.head, training.network.judge) if one is not None]
    assert sum(part.parameters for part in found.parts) == count(*modules)
    assert sum(part.weights for part in found.parts) == 4 * count(*modules) + buffers(*modules)
    # What AdamW makes of it in the one trainer, less its step counters.
    held = [p for p in training.network.parameters() if p.requires_grad and p is not joint.encoder.logit_scale]
    optimizer = torch.optim.AdamW(held)
    for parameter in held:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moments = sum(v.nbytes for state in optimizer.state.values() for k, v in state.items() if k != "step")
    assert sum(part.moments for part in found.parts) == moments
    assert sum(part.gradients for part in found.parts) == sum(parameter.nbytes for parameter in held)
    averaged = settings.synthesis.ema is not None and "denoiser" in trained
    assert parts["denoiser"].average == (4 * parts["denoiser"].trained if averaged else 0)
    assert ("judge of RSC" in parts) == (settings.consistency.form == "decoded")


def test_what_is_wrong_is_told_of_the_set_itself(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match=r"24 pictures of .*pictures are there") as found:
        estimate(recipe(root, tmp_path / "run", training__batch_size=32))
    assert "part" not in str(found.value)


def test_new_crops_are_no_work_of_their_own(root: Path, tmp_path: Path) -> None:
    settings = recipe(
        root,
        tmp_path / "run",
        data__views=None,
        data__evaluation=str(root / "evaluation"),
        drawing__pictures=2,
        consistency__weight=0,
        synthesis__weight=0,
        text__mode="frozen",
    )
    found = estimate(settings)
    # Nothing that draws is in training, so it draws once.
    assert {name: one["count"] for name, one in found.further.items()} == {"drawn": 4}
    assert found.updates == 10 * 4
