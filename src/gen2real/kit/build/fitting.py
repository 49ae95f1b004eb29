"""One stage of the build, in the one trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from gen2real.config import Config
from gen2real.kit.build.corpus import Batches, CorpusBatch
from gen2real.kit.build.settings import StageSettings
from gen2real.training.distributed import rank
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import StepFunction, Trainer, parameter_groups


def fit(
    folder: Path,
    config: Config,
    stage: StageSettings,
    models: Mapping[str, nn.Module],
    step: StepFunction[CorpusBatch],
    *,
    scenes: int,
    seed: int,
    quiet: bool = False,
) -> None:
    """Trains what requires a gradient in `models`, or goes on with it.

    Args:
        folder: where checkpoints and metrics go; its name up to the last hyphen is the stage's.
        scenes: how many to draw batches from, by `seed`.
    """
    Trainer(
        RunFolder(folder, config, writer=rank() == 0),
        models=models,
        groups=parameter_groups(
            {name: (model, stage.lr) for name, model in models.items()},
            weight_decay=stage.weight_decay,
            decay_norms_and_biases=False,
        ),
        step=step,
        batches=Batches(scenes, stage, seed=seed),
        steps=stage.steps,
        optimizer=stage.optimizer(),
        schedule=stage.schedule(),
        training=stage.training(),
        stage=folder.name.rpartition("-")[0],
        quiet=quiet,
    ).fit()
