"""The parts of a recipe that several methods share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from gen2real.config import Config, RecipeName, RecipePath
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings


class EncoderSettings(Config):
    """The dual encoder: a hub name, a folder, or `package.module:function` for towers of the user's own."""

    name: RecipeName
    revision: str | None = None


class PromptSettings(Config):
    """Texts for the zero-shot head: templates by name or in full, or a CuPL file (class name → prompts)."""

    templates: str | tuple[str, ...] = "simple"
    file: RecipePath | None = None


class SourceSettings(Config):
    """One image set and its share of the draws; equal weights draw every picture once an epoch."""

    path: RecipePath
    weight: float = Field(1.0, gt=0)


class RealShots(SourceSettings):
    """Real pictures mixed into training (few-shot): `shots` a class, chosen by the run's seed; None takes all."""

    shots: int | None = Field(16, ge=1)


def _as_source(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class AugmentationSettings(Config):
    """Random changes to training pictures. The default is the authors': a crop of 90–100 % of the area."""

    crop_scale: tuple[float, float] = (0.9, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = Field(0.0, ge=0, le=1)
    brightness: float = Field(0.0, ge=0)
    contrast: float = Field(0.0, ge=0)
    saturation: float = Field(0.0, ge=0)
    hue: float = Field(0.0, ge=0, le=0.5)
    grayscale: float = Field(0.0, ge=0, le=1)
    blur: float = Field(0.0, ge=0, le=1)
    noise: float = Field(0.0, ge=0)
    rotation: float = Field(0.0, ge=0, le=180)


class DataSettings(Config):
    """Pictures of a classification run.

    `held_out` is a generated set, or `holdout` a fraction of the generated pictures of each class, on which alpha is
    chosen. `evaluation` is real: until training has ended, only its class names are read.
    """

    generated: tuple[Annotated[SourceSettings, BeforeValidator(_as_source)], ...] = Field(min_length=1)
    real: Annotated[RealShots | None, BeforeValidator(_as_source)] = None
    class_names: RecipePath | None = Field(None, description="one name a line; None: those of the generated sets")
    holdout: float = Field(0.1, ge=0, lt=1)
    held_out: RecipePath | None = None
    evaluation: RecipePath | None = None
    augmentation: AugmentationSettings = AugmentationSettings()
    views: int = Field(1, ge=1, description="head only: encoded views of each picture, the first one plain")
    class_unique: bool = Field(False, description="no two pictures of one class in a batch")
    on_unreadable: Literal["error", "skip"] = "error"
    cache: Literal["auto", "memory", "none"] = "auto"

    @model_validator(mode="after")
    def _one_held_out(self) -> DataSettings:
        if self.held_out is not None and "holdout" in self.model_fields_set and self.holdout > 0:
            raise ValueError("holdout and held_out are two ways to say one thing; give one of them")
        return self


class EnsembleSettings(Config):
    """Weight-space ensemble θ(α) = (1−α)·θ_zero-shot + α·θ_tuned.

    `rule` decides the alpha of the model that is saved: `fixed` takes `alpha`, `generated` the best of `sweep` on
    held-out generated pictures. The best alpha on labelled real pictures is reported as `oracle` and never used.
    """

    rule: Literal["fixed", "generated"] = "fixed"
    alpha: float = Field(0.5, ge=0, le=1)
    sweep: tuple[float, ...] = tuple(round(0.1 * step, 1) for step in range(11))


class ClassificationConfig(Config):
    """What every method that tunes a classifier is told."""

    method: str
    output: Path
    encoder: EncoderSettings
    prompts: PromptSettings = PromptSettings()
    data: DataSettings
    centering: Literal["none", "generated"] = Field(
        "none", description="generated (ours): features less the mean over the training pictures, before the head"
    )
    freeze_batch_norm: bool = True
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    training: TrainingSettings = TrainingSettings()
    ensemble: EnsembleSettings = EnsembleSettings()
    transductive: bool = Field(
        False, description="adds readings centred on the mean of the unlabelled evaluation pictures"
    )
    gap: bool = Field(True, description="how far generated and real features are apart, before and after")
    save_model: bool = True
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _a_mean_to_swap(self) -> ClassificationConfig:
        if self.transductive and self.centering == "none":
            raise ValueError("transductive swaps the mean that is subtracted; it needs centering: generated")
        return self
