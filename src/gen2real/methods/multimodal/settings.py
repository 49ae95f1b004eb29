"""What a recipe of `method: multimodal` may say. Nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from gen2real.config import Config, RecipeName, RecipePath
from gen2real.methods.settings import LoraSettings, SourceSettings, as_source, one_or_more
from gen2real.prompts import CAPTION_PROMPTS
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings


class MultimodalSettings(Config):
    """The base model: any `AutoModelForImageTextToText` of transformers, by hub name or folder."""

    name: RecipeName
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the frozen weights; what is trained is float32 in any case"
    )


class AlignedSettings(Config):
    """A finished run of `method: gmail` on the encoder that the model's image tower was made from."""

    run: RecipePath
    other_base: Literal["error", "warn"] = Field(
        "error", description="what to do where the image tower holds other weights than those that were aligned"
    )


class AnswerSource(SourceSettings):
    """An image set to learn from: its captions, or the answers in a file of questions about its pictures."""

    questions: RecipePath | None = Field(None, description="JSONL with image, question and answers; None: captions")


def _as_run(value: Any) -> Any:
    return {"run": value} if isinstance(value, str | Path) else value


class AnswerData(Config):
    """Pictures with captions, or with questions and answers."""

    train_on: Literal["generated", "real", "mixed"] = "generated"
    generated: Annotated[
        tuple[Annotated[AnswerSource, BeforeValidator(as_source)], ...], BeforeValidator(one_or_more)
    ] = Field((), validate_default=True)
    real: tuple[Annotated[AnswerSource, BeforeValidator(as_source)], ...] = Field(
        (), validate_default=True, description="for train_on: real and mixed"
    )
    evaluation: RecipePath | None = Field(None, description="real; its captions are what a description is scored by")
    evaluation_questions: RecipePath | None = Field(None, description="JSONL of questions about `evaluation`")
    pictures: int | None = Field(
        None, ge=1, description="train on so many of each origin; a larger number's contain a smaller's"
    )
    captions: Literal["any", "longest"] = Field("any", description="which of a picture's captions is learnt")
    prompts: tuple[str, ...] = Field(
        CAPTION_PROMPTS, min_length=1, description="one is drawn for each caption; the first one is asked in evaluation"
    )
    max_length: int | None = Field(None, ge=16, description="tokens of a sample, pictures included; None: the model's")
    on_unreadable: Literal["error", "skip"] = "error"

    @field_validator("generated", "real")
    @classmethod
    def _something_to_learn(cls, value: tuple[AnswerSource, ...], info: ValidationInfo) -> tuple[AnswerSource, ...]:
        train_on = info.data.get("train_on")
        if not value and train_on in (info.field_name, "mixed"):
            raise ValueError(
                f"train_on: {train_on} needs at least one image set here: "
                f"--set data.{info.field_name}='[my-{info.field_name}]'"
            )
        return value

    @model_validator(mode="after")
    def _pictures_to_ask_about(self) -> AnswerData:
        if self.evaluation_questions is not None and self.evaluation is None:
            raise ValueError("evaluation_questions are about the pictures of evaluation; set data.evaluation too")
        return self

    @property
    def sources(self) -> list[tuple[Literal["generated", "real"], AnswerSource]]:
        """The sets that are learnt from, in order, with what their pictures are."""
        generated = [("generated", one) for one in self.generated if self.train_on != "real"]
        real = [("real", one) for one in self.real if self.train_on != "generated"]
        return [*generated, *real]  # type: ignore[list-item]


class LanguageLoraSettings(LoraSettings):
    """Low-rank adapters on the language model. Rank 16 on q and v is ours; LLaVA has rank 128 on every layer."""

    targets: tuple[str, ...] = ("q_proj", "v_proj")


class DecodingSettings(Config):
    """How answers are written in evaluation: greedily (beams: 1) or by beam search."""

    max_tokens: int = Field(64, ge=1)
    beams: int = Field(1, ge=1)
    batch_size: int = Field(8, ge=1)


class MultimodalConfig(Config):
    """A run of `method: multimodal`. The optimiser's defaults are LLaVA-1.5's for LoRA."""

    method: Literal["multimodal"] = "multimodal"
    output: Path
    model: MultimodalSettings
    aligned: Annotated[AlignedSettings | None, BeforeValidator(_as_run)] = Field(
        None, description="generated pictures then go through W + ΔW; None: all go through W"
    )
    inference: Literal["f_r", "f_g"] = Field(
        "f_r", description="ours: the tower that real pictures go through in the reading that counts"
    )
    data: AnswerData
    lora: LanguageLoraSettings = LanguageLoraSettings()
    projector: Literal["full", "frozen"] = "full"
    optimizer: OptimizerSettings = OptimizerSettings(lr=2e-4, head_lr=2e-5, weight_decay=0.0)
    schedule: ScheduleSettings = ScheduleSettings(warmup_fraction=0.03)
    training: TrainingSettings = TrainingSettings(epochs=1, batch_size=128)
    decoding: DecodingSettings = DecodingSettings()
    save_model: bool = True
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _settings_that_agree(self) -> MultimodalConfig:
        if self.inference == "f_g" and self.aligned is None:
            raise ValueError("inference: f_g needs the tower of an alignment; set aligned to the folder of a GMAIL run")
        if self.model.dtype != "float32" and self.training.precision == "float32":
            raise ValueError(
                "model.dtype: bfloat16 is trained in mixed precision; set training.precision=bfloat16 (or auto)"
            )
        return self
