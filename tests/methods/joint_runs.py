"""A tiny CLIP and a tiny Stable Diffusion, with one text tower or with two, and captioned squares to tune them on."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from small_runs import at_keys
from torch import Tensor

from gen2real import methods
from gen2real.config import parse_config
from gen2real.methods.measured import Measured
from gen2real.methods.unidiff import algorithm
from gen2real.methods.unidiff.data import JointBatch, JointData
from gen2real.methods.unidiff.loss import JointLoss
from gen2real.methods.unidiff.settings import ModelSettings, UniDiffConfig
from gen2real.models.joint import Joint, load_joint
from tiny import tiny_clip, tiny_stable_diffusion
from tiny_sets import colour_set


@dataclass(frozen=True)
class JointWorld:
    """Where everything lies. generator reads with CLIP's text tower, stranger with one of its own."""

    clip: Path
    generator: Path
    stranger: Path
    pictures: Path
    evaluation: Path


def joint_world(root: Path) -> JointWorld:
    """CLIP sees 32 pixels, the generator draws 32; 24 pictures of 4 captions, 8 others to measure on."""
    clip = tiny_clip(root / "clip")
    return JointWorld(
        clip,
        tiny_stable_diffusion(root / "generator", clip=clip),
        tiny_stable_diffusion(root / "stranger", seed=5),
        colour_set(root / "pictures", origin="real").root,
        colour_set(root / "evaluation", origin="real", per_class=2, seed=9).root,
    )


def rescheduled(generator: Path, folder: Path, **changes: Any) -> Path:
    """The same generator with another noise schedule."""
    shutil.copytree(generator, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def joint_recipe(world: JointWorld, folder: Path, **changes: Any) -> dict[str, Any]:
    """Batches of 8; all parts whole; a double underscore in `changes` goes into a section."""
    values: dict[str, Any] = {
        "method": "unidiff",
        "output": str(folder),
        "models": {"clip": str(world.clip), "generator": str(world.generator)},
        "data": {"pictures": str(world.pictures), "evaluation": str(world.evaluation), "holdout": 0.1, "views": 2},
        "conflict": {"log_every": None},
        "drawing": {"pictures": 0, "sampled_prompts": 0, "steps": 2},
        "panel": {"prompts": []},
        "optimizer": {"lr": 0.001, "head_lr": 0.01},
        "training": {"steps": 4, "batch_size": 8, "log_every": 1},
    }
    return at_keys(values, changes)


def joint_config(world: JointWorld, folder: Path, **changes: Any) -> UniDiffConfig:
    """The recipe, validated."""
    found = parse_config(UniDiffConfig, joint_recipe(world, folder, **changes), source="recipe")
    assert isinstance(found, UniDiffConfig)
    return found


def joint_run(world: JointWorld, folder: Path, **changes: Any) -> Measured:
    """A run from recipe to result."""
    result = methods.run(joint_config(world, folder, **changes), quiet=True)
    assert isinstance(result, Measured)
    return result


@functools.cache
def _loaded(names: ModelSettings) -> Joint:
    return load_joint(names)


class Step:
    """One batch of a recipe, ready to be computed."""

    def __init__(self, config: UniDiffConfig, **more: Any) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        joint = copy.deepcopy(_loaded(config.models))
        self.training = algorithm.JointTraining(config, joint, JointData(config, joint))
        self.network = self.training.network.train()
        self.loss = JointLoss(self.training.joint, self.training.data, self.network, **more)
        self.batch: JointBatch = next(self.training.data.batches()(range(1)))[0]

    def at(self, time: int) -> Step:
        """The same batch with every picture noised to one timestep."""
        assert self.batch.denoised is not None
        times = torch.full_like(self.batch.denoised.times, time)
        self.batch = replace(self.batch, denoised=replace(self.batch.denoised, times=times))
        return self

    def terms(self) -> dict[str, Tensor]:
        """Named losses."""
        return self.loss({"joint": self.network}, self.batch)

    def values(self) -> dict[str, float]:
        """Named losses as numbers."""
        return {name: float(value.detach()) for name, value in self.terms().items()}

    def gradients(self, term: str = "loss") -> dict[str, Tensor | None]:
        """Parameter in training → its gradient of one term."""
        return self.both(term)[1]

    def both(self, term: str = "loss") -> tuple[dict[str, float], dict[str, Tensor | None]]:
        """Named losses as numbers, and the gradients of one of them, of one pass."""
        self.network.zero_grad(set_to_none=True)
        terms = self.terms()
        if terms[term].requires_grad:
            terms[term].backward()
        gradients = {name: p.grad for name, p in self.network.named_parameters() if p.requires_grad}
        return {name: float(value.detach()) for name, value in terms.items()}, gradients


def reached(gradients: Mapping[str, Tensor | None]) -> set[str]:
    """The parts in which anything has a gradient that is not zero."""
    parts = {"encoder.vision": "image", "encoder.text": "text", "unet": "unet", "head": "head"}
    parts["encoder.logit_scale"] = "scale"
    found = set()
    for name, gradient in gradients.items():
        if gradient is not None and bool(gradient.count_nonzero()):
            found.add(next(part for before, part in parts.items() if name.startswith(before)))
    return found
