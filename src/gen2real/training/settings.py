"""The settings every method's training shares."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gen2real.config import Config


class OptimizerSettings(Config):
    """AdamW. `decay_norms_and_biases=True` puts weight decay on every parameter, as wise-ft's and RegFT's code do."""

    lr: float = Field(3e-5, gt=0)
    head_lr: float | None = Field(None, gt=0, description="None: the same as lr")
    weight_decay: float = Field(0.1, ge=0)
    decay_norms_and_biases: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    clip_norm: float | None = Field(1.0, gt=0, description="global norm over all parameters; None: off")


class ScheduleSettings(Config):
    """Linear warm-up, then a cosine to zero, one with warm restarts, or a constant.

    Warm-up is a number of steps or a fraction of all steps.
    """

    name: Literal["cosine", "cosine_restarts", "constant"] = "cosine"
    warmup_steps: int | None = Field(None, ge=0)
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    restart_steps: int | None = Field(
        None, ge=1, description="cosine_restarts: the first period; None (ours): three periods end with the run"
    )
    restart_multiplier: float = Field(2.0, ge=1, description="cosine_restarts: each period by so much longer")

    def warmup(self, steps: int) -> int:
        """Warm-up steps of a run of `steps`."""
        return self.warmup_steps if self.warmup_steps is not None else round(self.warmup_fraction * steps)

    @model_validator(mode="after")
    def _restarts_that_happen(self) -> ScheduleSettings:
        if self.restart_steps is not None and self.name != "cosine_restarts":
            raise ValueError("restart_steps belongs to name: cosine_restarts; set it, or leave restart_steps out")
        return self


class TrainingSettings(Config):
    """How long, how exactly, how often saved."""

    epochs: float | None = Field(10, gt=0)
    steps: int | None = Field(None, ge=1, description="instead of epochs")
    batch_size: int = Field(128, ge=1, description="pictures an update, over all processes and accumulation steps")
    accumulation: int = Field(
        1, ge=1, description="parts a batch is cut into; batch losses then see one part at a time"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    checkpoint_every: int = Field(500, ge=1, description="steps")
    keep_checkpoints: int = Field(2, ge=1)
    log_every: int = Field(10, ge=1, description="steps")
    loader_workers: int = Field(2, ge=1)
    gradient_checkpointing: bool = False
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()

    @model_validator(mode="after")
    def _an_end(self) -> TrainingSettings:
        if self.epochs is None and self.steps is None:
            raise ValueError("a run needs an end; give epochs or steps")
        return self

    @model_validator(mode="after")
    def _whole_parts(self) -> TrainingSettings:
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}; "
                f"try batch_size={self.batch_size // self.accumulation * self.accumulation or self.accumulation}"
            )
        return self

    def total_steps(self, steps_per_epoch: int) -> int:
        """Updates in the whole run."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(1, round(self.epochs * steps_per_epoch))
