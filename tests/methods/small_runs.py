"""Whole runs on the tiny world, in a second each."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen2real import methods
from gen2real.config import parse_config
from gen2real.files import read_tensors
from gen2real.methods.result import Result
from gen2real.models.adapters import add_lora
from gen2real.models.dual_encoder import DualEncoder

TEMPLATES = ["a photo of {}", "{}, plain", "a square in {}"]


@dataclass(frozen=True)
class World:
    """Where everything lies."""

    clip: Path
    generated: Path
    real: Path
    cache: Path


def lora_of(encoder: DualEncoder) -> nn.Module:
    """A copy of the image tower with LoRA layers that have learned something; the same one every time."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        tower = add_lora(copy.deepcopy(encoder.vision), rank=4, alpha=8)
        for name, parameter in tower.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.2)
    return tower


def recipe(world: World, folder: Path, method: str = "regft", **changes: Any) -> dict[str, Any]:
    """Three updates of 8 pictures; `changes` are laid over, a double underscore goes into a section."""
    values: dict[str, Any] = {
        "method": method,
        "output": str(folder),
        "encoder": {"name": str(world.clip)},
        "prompts": {"templates": TEMPLATES},
        "data": {"generated": [str(world.generated)], "holdout": 0.2, "evaluation": str(world.real)},
        "optimizer": {"lr": 1e-3},
        "schedule": {"warmup_steps": 0},
        "training": {"steps": 3, "batch_size": 8, "log_every": 1, "checkpoint_every": 2},
        "ensemble": {"sweep": [0.3, 0.6]},
        "gap": False,
    }
    if changes.get("tune") == "head":
        changes = {"loss__variance": 0, "loss__covariance": 0, **changes}
    return at_keys(values, changes)


def at_keys(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over a recipe's values, in place; a double underscore in a key goes into a section."""
    for key, value in changes.items():
        *sections, last = key.split("__")
        at = values
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = copy.deepcopy(value)
    return values


def config(world: World, folder: Path, method: str = "regft", **changes: Any) -> Any:
    """The recipe, validated."""
    return parse_config(methods.CONFIGS[method], recipe(world, folder, method, **changes), source="recipe")


def run(world: World, folder: Path, method: str = "regft", **changes: Any) -> Result:
    """A run from recipe to result."""
    result = methods.run(config(world, folder, method, **changes), quiet=True)
    assert isinstance(result, Result)
    return result


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Every logged update."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Equal names, equal bits."""
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def model_tensors(folder: Path) -> dict[str, Tensor]:
    """All weights of a run's model folder."""
    return {
        f"{name}:{key}": value
        for name in ("model", "head")
        for key, value in read_tensors(folder / "model" / f"{name}.safetensors").items()
    }
