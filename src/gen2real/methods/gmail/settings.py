"""What a recipe of method `gmail` may say; nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from gen2real.config import Config, RecipePath
from gen2real.methods.settings import (
    AugmentationSettings,
    EncoderSettings,
    LoraSettings,
    PromptSettings,
    one_or_more,
)
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings

Inference = Literal["f_r", "f_g", "projection"]


class AlignmentDataSettings(Config):
    """Pictures of an alignment. Rows of `generated` name their real partner by `pair_id`, which is an id of `real`.

    A picture's texts are its own captions, else its partner's. `evaluation` is real and nothing is chosen on it.
    """

    train_on: Literal["generated", "real", "mixed"] = Field(
        "generated", description="what goes through f_g; real: the partners, each its own partner"
    )
    generated: Annotated[tuple[RecipePath, ...], BeforeValidator(one_or_more)] = ()
    real: RecipePath | None = Field(None, description="the partners; may be left out where nothing is aligned to them")
    evaluation: RecipePath | None = Field(None, description="captions: retrieval; labels: zero-shot top-1; or both")
    pictures: int | None = Field(None, ge=1, description="at most so many generated ones; smaller is part of larger")
    captions: Literal["any", "longest"] = Field(
        "any", description="the text: one of a picture's captions, drawn anew each time, or the longest"
    )
    holdout: float = Field(0.1, ge=0, lt=1, description="of the real partners, with their generated pictures")
    augmentation: AugmentationSettings = AugmentationSettings()
    on_unreadable: Literal["error", "skip"] = "error"
    cache: Literal["auto", "memory", "none"] = "auto"

    @field_validator("generated")
    @classmethod
    def _some_pictures(cls, value: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        if not value and info.data.get("train_on") != "real":
            raise ValueError(
                "at least one image set, whose pictures name their real partners: "
                "--set data.generated='[my-generated]'; gen2real generate makes one from captioned photographs"
            )
        return value

    @model_validator(mode="after")
    def _real_ones_too(self) -> AlignmentDataSettings:
        if self.train_on != "generated" and self.real is None:
            raise ValueError(f"train_on: {self.train_on} needs real pictures; set data.real=MY-PHOTOS")
        return self


class AlignmentTermSettings(Config):
    """Generated pictures pulled to real ones. The temperature and the one direction are the paper's (equation 1)."""

    temperature: float = Field(0.07, gt=0)
    symmetric: bool = Field(False, description="ours: also from real to generated")
    same_partner: Literal["literal", "masked", "positives"] = Field(
        "literal",
        description="pictures of one partner in a batch: negatives of each other, as in the paper; left out; or "
        "positives, in the text terms too (ours)",
    )
    weight: float = Field(1.0, gt=0, description="ours: the paper has no weights")
    moments: float = Field(
        0.0,
        ge=0,
        description="ours: weight of mean and covariance of a batch's generated features beside equation 1, which "
        "leaves free, and so turns away from, what all real pictures have in common",
    )
    form: Literal["moments", "mmd"] = Field("moments", description="of loss: distribution")


class LongTextSettings(Config):
    """Long captions (Long-CLIP): text positions stretched, a fine term, and a coarse one on first sentences."""

    keep: int = Field(20, ge=1, description="positions that stay as they are")
    factor: int = Field(4, ge=1, description="the others are stretched by this: 77 positions become 248")
    components: int = Field(
        32, ge=1, description="principal components of the batch that the coarse term's pictures keep"
    )
    coarse_weight: float = Field(1.0, ge=0)


class TextTermSettings(Config):
    """CLIP's contrastive loss of f_g's pictures and their texts, at the encoder's own logit scale, which stays (ours).

    `tower: lora` tunes the text tower too; only then can real pictures through f_r be searched better than before.
    """

    tower: Literal["frozen", "lora"] = "frozen"
    weight: float = Field(1.0, gt=0, description="ours: the paper has no weights")
    long: LongTextSettings | None = None


class GMAILConfig(Config):
    """An alignment run: f_g, the image tower for generated pictures, is taught to see them as f_r sees real ones."""

    method: Literal["gmail"] = "gmail"
    output: Path
    encoder: EncoderSettings
    prompts: PromptSettings = PromptSettings()
    data: AlignmentDataSettings
    loss: Literal["align", "align+text", "text", "distribution", "distribution+text"] = Field(
        "align",
        description="text alone is the control without alignment; distribution (ours) needs no pairs",
    )
    align: AlignmentTermSettings = AlignmentTermSettings()
    text: TextTermSettings = TextTermSettings()
    tune: Literal["lora", "full"] = "lora"
    lora: LoraSettings = LoraSettings(rank=4, alpha=8.0)
    real_projection: bool = Field(False, description="a square matrix on f_r, trained on real pictures and their texts")
    inference: Inference | None = Field(
        None,
        description="what real pictures go through in the reading that counts; None (ours): projection where one is "
        "trained, f_r where the text tower is tuned, else f_g",
    )
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-4, weight_decay=0.01, clip_norm=1.0)
    schedule: ScheduleSettings = ScheduleSettings(name="cosine_restarts")
    training: TrainingSettings = TrainingSettings(batch_size=256)
    save_model: bool = True
    seed: int = Field(0, ge=0)

    @property
    def aligns(self) -> Literal["pairs", "distributions", "nothing"]:
        """What the loss aligns."""
        if self.loss.startswith("align"):
            return "pairs"
        return "distributions" if self.loss.startswith("distribution") else "nothing"

    @property
    def has_text_term(self) -> bool:
        """Whether f_g's pictures meet texts in the loss."""
        return self.loss.endswith("text")

    @property
    def reads_texts(self) -> bool:
        """Whether any term needs texts."""
        return self.has_text_term or self.real_projection

    @property
    def resolved_inference(self) -> Inference:
        """`inference`, with the default resolved."""
        if self.inference is not None:
            return self.inference
        if self.real_projection:
            return "projection"
        return "f_r" if self.text.tower == "lora" else "f_g"

    @field_validator("encoder")
    @classmethod
    def _its_own_branch(cls, value: EncoderSettings) -> EncoderSettings:
        if value.generated_through == "f_r":
            raise ValueError("generated_through: f_r leaves nothing to align; leave it out")
        return value

    @model_validator(mode="after")
    def _partners(self) -> GMAILConfig:
        if self.data.real is None and (self.aligns != "nothing" or self.real_projection):
            what = "real_projection" if self.aligns == "nothing" else f"loss: {self.loss}"
            raise ValueError(f"{what} needs real pictures; set data.real=MY-PHOTOS, or loss=text without a projection")
        if self.data.real is None and self.align.same_partner != "literal":
            raise ValueError("align.same_partner is about real partners; set data.real=MY-PHOTOS")
        return self

    @model_validator(mode="after")
    def _texts_that_are_read(self) -> GMAILConfig:
        if self.text.tower == "lora" and not self.reads_texts:
            raise ValueError(
                f"text.tower: lora trains the text tower, and loss: {self.loss} has no text; set loss=align+text"
            )
        if self.text.long is not None and not self.has_text_term:
            raise ValueError(f"text.long is about texts, and loss: {self.loss} has none; set loss=align+text")
        if self.text.long is not None and self.data.captions != "longest":
            raise ValueError("text.long learns from long captions; set data.captions=longest")
        return self

    @model_validator(mode="after")
    def _pairs_of_their_own(self) -> GMAILConfig:
        if self.aligns == "distributions" and (self.real_projection or self.align.same_partner != "literal"):
            raise ValueError(
                "loss: distribution draws real pictures that belong to no text and no generated picture; leave out "
                "real_projection and align.same_partner"
            )
        if self.inference == "projection" and not self.real_projection and self.encoder.init is None:
            raise ValueError("inference: projection needs one; set real_projection=true")
        return self
