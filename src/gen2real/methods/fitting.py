"""From a method's settings to the one trainer: groups, schedule and length are the same for every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from torch import nn

from gen2real.training.averaging import Average
from gen2real.training.run_folder import RunFolder
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings
from gen2real.training.trainer import BatchSource, FitReport, Part, StepFunction, Trainer, parameter_groups

B = TypeVar("B", bound=Part)


class TrainedConfig(Protocol):
    """What a config says of training."""

    @property
    def optimizer(self) -> OptimizerSettings: ...
    @property
    def schedule(self) -> ScheduleSettings: ...
    @property
    def training(self) -> TrainingSettings: ...


def fit(
    models: Mapping[str, nn.Module],
    rates: Mapping[str, tuple[nn.Module, float]],
    batches: BatchSource[B],
    steps: int,
    step: StepFunction[B],
    folder: RunFolder,
    config: TrainedConfig,
    *,
    stage: str,
    quiet: bool = False,
    schedules: Mapping[str, ScheduleSettings | None] | None = None,
    averages: Mapping[str, Average] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> FitReport:
    """Trains whatever requires a gradient in `models`, resuming by itself.

    Args:
        rates: name → a part and its learning rate. schedules: of parts that have one of their own, by the same names.
        averages: running means of weights. on_step: called after each update with its number, from 1.
    """
    optimizer = config.optimizer
    groups = parameter_groups(
        rates,
        weight_decay=optimizer.weight_decay,
        decay_norms_and_biases=optimizer.decay_norms_and_biases,
        schedules=schedules,
    )
    return Trainer(
        folder,
        models=models,
        groups=groups,
        step=step,
        batches=batches,
        steps=steps,
        optimizer=optimizer,
        schedule=config.schedule,
        training=config.training,
        averages=averages,
        stage=stage,
        quiet=quiet,
        on_step=on_step,
    ).fit()
