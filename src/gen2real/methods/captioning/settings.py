"""What a recipe of `method: captioning` may say. Nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from gen2real.config import Config, RecipeName, RecipePath
from gen2real.methods.settings import EncoderSettings, SourceSettings, as_source, one_or_more
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings

TrainOn = Literal["generated", "real", "mixed"]


class DecoderSettings(Config):
    """The language model: a hub name ("gpt2") or a folder that `AutoModelForCausalLM` can load."""

    name: RecipeName
    revision: str | None = None


class MapperSettings(Config):
    """ClipCap's mapping network. The MLP's defaults and the transformer's are the authors'."""

    kind: Literal["mlp", "transformer"] = "mlp"
    prefix_length: int | None = Field(None, ge=1, description="None: 10 for mlp, 40 for transformer")
    clip_length: int = Field(40, ge=1, description="transformer: tokens made from the picture's embedding")
    layers: int = Field(8, ge=1, description="transformer")
    heads: int = Field(8, ge=1, description="transformer")
    normalize: bool = Field(False, description="scale embeddings to length 1 before they are mapped; ClipCap does not")

    @model_validator(mode="after")
    def _transformers_own(self) -> MapperSettings:
        if self.kind == "mlp" and (extra := {"clip_length", "layers", "heads"} & self.model_fields_set):
            raise ValueError(f"{', '.join(sorted(extra))} belong to kind: transformer; set it, or leave them out")
        return self

    @property
    def described(self) -> dict[str, int | str]:
        """As `models.prefix_mappers.make_mapper` takes it."""
        if self.kind == "mlp":
            return {"kind": "mlp", "prefix_length": self.prefix_length or 10}
        shape = {"clip_length": self.clip_length, "layers": self.layers, "heads": self.heads}
        return {"kind": "transformer", "prefix_length": self.prefix_length or 40, **shape}


class DecodingSettings(Config):
    """How captions are written when they are measured. ClipCap: 5 beams, 67 tokens, an end at the first full stop."""

    beams: int = Field(5, ge=1, description="1: greedy")
    max_tokens: int = Field(67, ge=1, description="in training, captions are cut there too")
    ends_at: Literal["end_token", "full_stop"] = Field(
        "end_token", description="end_token (ours): the end is learnt, so captions may have several sentences"
    )


class CaptioningData(Config):
    """Pictures with captions. `evaluation` is real and only measured on."""

    train_on: TrainOn = "generated"
    generated: Annotated[
        tuple[Annotated[SourceSettings, BeforeValidator(as_source)], ...], BeforeValidator(one_or_more)
    ] = Field((), validate_default=True)
    real: Annotated[SourceSettings | None, BeforeValidator(as_source)] = Field(
        None, validate_default=True, description="for train_on: real and mixed"
    )
    evaluation: RecipePath
    pictures: int | None = Field(
        None, ge=1, description="train on so many pictures, drawn by the seed; a larger number's contain a smaller's"
    )
    on_unreadable: Literal["error", "skip"] = "error"
    cache: Literal["auto", "memory", "none"] = "auto"

    @field_validator("generated")
    @classmethod
    def _some_generated(cls, value: tuple[SourceSettings, ...], info: ValidationInfo) -> tuple[SourceSettings, ...]:
        if not value and info.data.get("train_on") != "real":
            raise ValueError(
                "at least one image set: --set data.generated='[my-generated]'; gen2real generate draws one from "
                "captions. To train on real pictures alone: --set data.train_on=real"
            )
        return value

    @field_validator("real")
    @classmethod
    def _some_real(cls, value: SourceSettings | None, info: ValidationInfo) -> SourceSettings | None:
        train_on = info.data.get("train_on")
        if value is None and train_on in ("real", "mixed"):
            raise ValueError(f"train_on: {train_on} needs real pictures with captions: --set data.real=my-photos")
        return value


class CaptioningConfig(Config):
    """A captioning run (ClipCap, GMAIL's stage 2). See the module for what each reading of the paper does.

    Learning rate, weight decay, batch and schedule are GMAIL's; recipes/gmail/captioning-clipcap.yaml has ClipCap's.
    """

    method: Literal["captioning"] = "captioning"
    output: Path
    encoder: EncoderSettings
    decoder: DecoderSettings | None = Field(None, description="the language model of a new captioner")
    start: RecipePath | None = Field(
        None, description="in place of decoder: a finished captioning run, or its model folder, to go on with"
    )
    data: CaptioningData
    reading: Literal["a", "b", "c"] | None = Field(
        None,
        description="c: one mapper for all pictures. a: generated pictures have a mapper of their own, beside that of "
        "start for real ones (the paper's figure 1). b: both mappers are trained, on a mix (its algorithm 1). "
        "None: what projections and data.train_on say, which is c (ours) where nothing is said",
    )
    projections: Literal["single", "dual"] | None = Field(
        None, description="one mapper (c) or one for real and one for generated pictures (a, b); None: the reading's"
    )
    mapper: MapperSettings = MapperSettings()
    tune_decoder: bool | None = Field(
        None, description="whether the language model is trained too; None: with an mlp yes, with a transformer no"
    )
    decoding: DecodingSettings = DecodingSettings()
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-4, weight_decay=0.01)
    schedule: ScheduleSettings = ScheduleSettings(name="cosine_restarts")
    training: TrainingSettings = TrainingSettings(batch_size=256)
    save_model: bool = True
    seed: int = Field(0, ge=0)

    @property
    def stage(self) -> Literal["a", "b", "c"]:
        """`reading`, resolved."""
        two_mappers: Literal["a", "b"] = "b" if self.data.train_on == "mixed" else "a"
        return self.reading or (two_mappers if self.projections == "dual" else "c")

    @property
    def is_dual(self) -> bool:
        """Whether generated pictures have a mapper of their own."""
        return self.stage != "c"

    @model_validator(mode="after")
    def _one_start(self) -> CaptioningConfig:
        if self.decoder is None and self.start is None:
            raise ValueError(
                "give decoder.name, the language model of a new captioner (a hub name or a folder), or start, a "
                "finished captioning run to go on with"
            )
        if self.decoder is not None and self.start is not None:
            raise ValueError(
                "decoder and start are two ways to say where the language model comes from; give one of them "
                "(--set decoder=null leaves out the recipe's)"
            )
        if self.start is not None and "mapper" in self.model_fields_set:
            raise ValueError("start brings its own mapper; leave the recipe's mapper out")
        return self

    @model_validator(mode="after")
    def _a_reading_that_can_be(self) -> CaptioningConfig:
        train_on = self.data.train_on
        if self.reading == "c" and self.projections == "dual":
            raise ValueError("reading: c has one mapper for all pictures; set reading: a or b, or projections: single")
        if self.reading in ("a", "b") and self.projections == "single":
            raise ValueError(f"reading: {self.reading} is of two mappers; set projections: dual, or reading: c")
        if self.reading == "a" and train_on == "mixed":
            raise ValueError("with reading: a one mapper is trained; a mix of pictures trains both: set reading: b")
        if self.reading == "b" and train_on != "mixed":
            raise ValueError(f"reading: b trains on a mix; set data.train_on=mixed, or reading: a for {train_on} alone")
        if self.stage == "a" and train_on == "generated" and self.start is None:
            raise ValueError(
                "with two mappers and generated pictures alone, the one for real pictures is not trained, so it has to "
                "be trained already: set start to a finished captioning run, or reading: c, which has one mapper"
            )
        return self
