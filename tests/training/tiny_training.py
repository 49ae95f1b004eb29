"""A trainer's smallest surroundings: rows of numbers, a mean loss, a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen2real.config import Config
from gen2real.training.distributed import rank
from gen2real.training.run_folder import RunFolder
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings
from gen2real.training.trainer import Trainer, parameter_groups


class PlainRecipe(Config):
    """A recipe of two keys."""

    output: Path
    seed: int = 0


@dataclass(frozen=True)
class Part:
    """Inputs [n 4] and targets [n 3]."""

    x: Tensor
    y: Tensor

    @property
    def rows(self) -> int:
        return len(self.x)


class Numbers:
    """Rows by update number, cut into `parts`."""

    def __init__(self, size: int = 6, parts: int = 1) -> None:
        self.size, self.parts = size, parts

    def __call__(self, numbers: range) -> Iterator[tuple[Part, ...]]:
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            x, y = torch.randn(self.size, 4, generator=generator), torch.randn(self.size, 3, generator=generator)
            cut = -(-self.size // self.parts)
            yield tuple(Part(a, b) for a, b in zip(x.split(cut), y.split(cut), strict=True))


def mean_square(models: Mapping[str, nn.Module], part: Part) -> dict[str, Tensor]:
    """The mean square error of the sum of all models' outputs."""
    error = sum(model(part.x) for model in models.values()) - part.y
    loss = error.square().mean()
    return {"loss": loss, "largest": error.abs().max()}


def plain_model(seed: int = 0, *, dropout: float = 0.0) -> nn.Module:
    """4 → 5 → 3 with a batch norm (float and integer buffers) and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(dropout), nn.Linear(5, 3))


def trainer(
    folder: Path,
    models: Mapping[str, nn.Module],
    *,
    steps: int = 5,
    batches: Any = None,
    step: Any = mean_square,
    optimizer: Mapping[str, Any] | None = None,
    groups: Any = None,
    training: Mapping[str, Any] | None = None,
    stage: str = "train",
    on_step: Any = None,
    averages: Any = None,
    schedule: ScheduleSettings | None = None,
) -> Trainer[Part]:
    """A `Trainer` with a constant learning rate of 0.01 and a checkpoint after every update."""
    settings = OptimizerSettings(**{"lr": 0.01, **(optimizer or {})})
    rates = {name: (model, settings.lr) for name, model in models.items()}
    whole = {"steps": steps, "batch_size": 6, "checkpoint_every": 1, "log_every": 1, **(training or {})}
    return Trainer(
        RunFolder(folder, PlainRecipe(output=folder), writer=rank() == 0),
        models=models,
        groups=groups or parameter_groups(rates, weight_decay=0.1, decay_norms_and_biases=False),
        step=step,
        batches=batches or Numbers(),
        steps=steps,
        optimizer=settings,
        schedule=schedule or ScheduleSettings(name="constant", warmup_steps=0),
        training=TrainingSettings(**whole),
        stage=stage,
        quiet=True,
        on_step=on_step,
        averages=averages,
    )


def state_of(models: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Every tensor of every model, copied."""
    return {
        f"{name}.{key}": value.clone() for name, model in models.items() for key, value in model.state_dict().items()
    }


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """The names whose tensors are not the same bit for bit."""
    assert set(one) == set(other)
    return [name for name in one if not torch.equal(one[name], other[name])]
