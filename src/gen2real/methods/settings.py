"""What recipes may say: the parts that methods share, then those of the classification methods and soups.

Nothing heavy is imported here, so that a mistake in a recipe is told at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gen2real.config import Config, RecipeName, RecipePath
from gen2real.methods.compare_settings import Arm as Arm
from gen2real.methods.compare_settings import CompareConfig as CompareConfig
from gen2real.methods.compare_settings import SoupOf as SoupOf
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings

Branch = Literal["f_r", "f_g"]


class EncoderSettings(Config):
    """The dual encoder: by name, or with a tower of its own for generated pictures from a finished alignment (GMAIL).

    `methods.start.open_encoder` opens either.
    """

    name: RecipeName | None = Field(
        None, description="a hub name, a folder, or package.module:function for towers of the user's own"
    )
    init: RecipePath | None = Field(
        None, description="in place of name: the folder of a finished run of method: gmail, or its model folder"
    )
    revision: str | None = None
    generated_through: Branch | None = Field(
        None,
        description="the image tower that generated pictures go through: f_g, W + ΔW of the alignment, or f_r, that of "
        "real pictures; None: f_g with init, f_r with name",
    )

    @model_validator(mode="after")
    def _one_start(self) -> EncoderSettings:
        if self.name is None and self.init is None:
            raise ValueError(
                "give the encoder a name (a hub name, a folder or package.module:function), or init, the folder of a "
                "finished run of method: gmail"
            )
        if self.name is not None and self.init is not None:
            raise ValueError(
                "name and init are two ways to say where the encoder comes from; give one of them "
                "(--set encoder.name=null leaves out a name that the recipe's base gives)"
            )
        if self.init is not None and self.revision is not None:
            raise ValueError("revision is of a hub repository, and init is a folder; leave revision out")
        if self.init is None and self.generated_through == "f_g":
            raise ValueError(
                "generated_through: f_g needs a tower of its own for generated pictures; give encoder.init, the folder "
                "of a finished run of method: gmail, in place of encoder.name"
            )
        return self

    @property
    def source(self) -> str:
        """Where the encoder comes from, for people: the name, or the folder of `init`."""
        return str(self.init) if self.name is None else self.name

    @property
    def generated_branch(self) -> Branch:
        """`generated_through`, resolved: the tower that generated pictures go through."""
        return self.generated_through or ("f_r" if self.init is None else "f_g")


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


def as_source(value: Any) -> Any:
    """A path alone stands for `{path: …}`."""
    return {"path": value} if isinstance(value, str) else value


def one_or_more(value: Any) -> Any:
    """One path or section alone stands for a list of it."""
    return [value] if isinstance(value, str | dict) else value


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

    generated: Annotated[
        tuple[Annotated[SourceSettings, BeforeValidator(as_source)], ...], BeforeValidator(one_or_more)
    ]
    real: Annotated[RealShots | None, BeforeValidator(as_source)] = None
    class_names: RecipePath | None = Field(None, description="one name a line; None: those of the generated sets")
    holdout: float = Field(0.1, ge=0, lt=1)
    held_out: RecipePath | None = None
    evaluation: RecipePath | None = None
    augmentation: AugmentationSettings = AugmentationSettings()
    views: int = Field(1, ge=1, description="head only: encoded views of each picture, the first one plain")
    class_unique: bool = Field(False, description="no two pictures of one class in a batch")
    on_unreadable: Literal["error", "skip"] = "error"
    cache: Literal["auto", "memory", "none"] = "auto"

    @field_validator("generated")
    @classmethod
    def _some_pictures(cls, value: tuple[SourceSettings, ...]) -> tuple[SourceSettings, ...]:
        if not value:
            raise ValueError("at least one image set: --set data.generated='[my-generated]'; gen2real import makes one")
        return value

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
    sweep: tuple[Annotated[float, Field(ge=0, le=1)], ...] = tuple(round(0.1 * step, 1) for step in range(11))


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

    @model_validator(mode="after")
    def _layers_computed_once(self) -> ClassificationConfig:
        if self.encoder.generated_branch == "f_g" and self.training.gradient_checkpointing:
            raise ValueError(
                "training.gradient_checkpointing computes layers again when the shift of the weights for generated "
                "pictures is gone; leave it out, or set encoder.generated_through=f_r"
            )
        return self

    @model_validator(mode="after")
    def _pictures_to_choose_on(self) -> ClassificationConfig:
        if self.ensemble.rule == "generated" and self.data.held_out is None and self.data.holdout == 0:
            raise ValueError(
                "ensemble.rule: generated needs held-out pictures, as those of training would always choose the tuned "
                "weights; set data.holdout=0.1 or data.held_out"
            )
        return self


class LossSettings(Config):
    """L = (1−λ)·CE + λ·soft + a·V + b·K. The defaults of a and b are the authors' for ImageNet and ViT-B/16."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    variance: float = Field(0.16, ge=0, description="a")
    covariance: float = Field(0.02, ge=0, description="b")
    normalizer: Literal["pairs", "dim"] = Field("pairs", description="pairs: the authors' code; dim: VICReg")
    target_std: float | Literal["zero_shot"] = Field(
        1.0, description="zero_shot (ours): the mean standard deviation of the original encoder's features"
    )
    regularised: Literal["raw", "normalized"] = Field("raw", description="which features V and K see")
    soft_targets: float = Field(0.0, ge=0, le=1, description="λ; He et al. have 0.5, with the head alone trained")
    temperature: float = Field(2.0, gt=0)


class LoraSettings(Config):
    """Low-rank adapters on the image encoder's linear layers; they are merged before anything is measured or saved."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] | None = None


class HeadFirst(Config):
    """LP-FT (Kumar et al. 2022): the head alone on frozen features, before the encoder is touched."""

    lr: float = Field(1e-3, gt=0)
    epochs: float = Field(10, gt=0)


class RegFTConfig(ClassificationConfig):
    """A RegFT run. See the module for what each part does."""

    method: Literal["regft"] = "regft"
    tune: Literal["encoder", "lora", "head"] = "encoder"
    lora: LoraSettings = LoraSettings()
    head_first: HeadFirst | None = None
    loss: LossSettings = LossSettings()

    @model_validator(mode="after")
    def _settings_that_agree(self) -> RegFTConfig:
        if self.tune == "head" and self.head_first is not None:
            raise ValueError(
                "head_first trains the head before the encoder; with tune: head there is no encoder to follow"
            )
        if self.tune == "head" and self.loss.variance + self.loss.covariance > 0:
            raise ValueError(
                "with tune: head the features never change, so variance and covariance have no gradient; "
                "set loss.variance=0 and loss.covariance=0, or tune: encoder"
            )
        if self.tune == "head" and self.training.gradient_checkpointing:
            raise ValueError("training.gradient_checkpointing has nothing to save with tune: head; leave it out")
        if self.tune != "head" and self.data.views > 1:
            raise ValueError("data.views belongs to tune: head; an encoder in training sees a new view every time")
        return self


class FLYPConfig(ClassificationConfig):
    """A FLYP run. The optimiser's defaults are the paper's for ImageNet: learning rate 1e-5, weight decay 0.1."""

    method: Literal["flyp"] = "flyp"
    same_class_positives: bool = Field(
        False, description="makes a difference with several prompts a class; with one, the two losses are equal"
    )
    tune_logit_scale: bool = True
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-5)


class SoupConfig(Config):
    """A soup of finished RegFT runs on one encoder and one set of classes."""

    method: Literal["soup"] = "soup"
    output: Path
    runs: tuple[Path, ...] = Field(min_length=1)
    kind: Literal["uniform", "greedy"] = "uniform"
    include_zero_shot: bool = False
    save_model: bool = True
