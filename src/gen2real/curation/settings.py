"""What a curation may be asked for. Nothing heavy is imported here, so that a mistake is told at once."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gen2real.config import Config, RecipeName, RecipePath

Share = Annotated[float, Field(gt=0, le=1)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
UNSAFE_WORDS = ("nsfw", "porn", "hentai", "sexy", "sexual", "nude", "unsafe", "explicit", "violence", "gore")


class CurateConfig(Config):
    """A curation: which set, seen by which encoder, and what leaves a picture out. Unless asked, no score does.

    `min_*` leaves out what scores below a number; `keep_*` keeps a share of each class, its best: of the pictures that
    no other rule has left out. What a rule means is told by `gen2real.curation.curating`.
    """

    images: RecipePath = Field(description="the set: a folder, or a manifest file")
    encoder: RecipeName = Field(description="whose eyes score: a dual encoder, best another one than will be trained")
    trained_encoder: RecipeName | None = Field(None, description="the one that will be trained, to be compared")
    name: str = Field("curated.parquet", description="the manifest to write, beside the pictures")
    templates: str | tuple[str, ...] = "simple"
    prompts: RecipePath | None = Field(None, description="class texts from a CuPL file instead of templates")
    min_similarity: Cosine | None = None
    keep_similarity: Share | None = None
    min_margin: Annotated[float, Field(ge=-2, le=2)] | None = None
    keep_margin: Share | None = None
    real: RecipePath | None = Field(None, description="unlabelled real pictures, not those of an evaluation")
    min_real_likeness: float | None = None
    keep_real_likeness: Share | None = None
    duplicates: bool = Field(True, description="keep one of several near-duplicates in a class")
    duplicate_bits: int = Field(4, ge=0, le=16, description="of 64, by which perceptual hashes may differ")
    duplicate_cosine: Cosine | Literal["auto"] = Field(
        "auto", description="auto: measured on the encoder, by what a crop changes and by pictures of other classes"
    )
    evaluation: tuple[RecipePath, ...] = Field((), description="sets to be tested on: what is in them is left out")
    leak_bits: int = Field(4, ge=0, le=16, description="of 64; mirrored and cropped pictures are compared as well")
    leak_cosine: Cosine | Literal["auto"] = "auto"
    safety: RecipeName | None = Field(None, description="an image-classification model in Hugging Face layout")
    unsafe_labels: tuple[str, ...] = Field((), description="of that model; none: those with a word such as nsfw")
    max_unsafe: float = Field(0.5, ge=0, le=1, description="probability of the unsafe labels that is still kept")
    empty_classes: Literal["error", "warn"] = "error"

    @field_validator("name")
    @classmethod
    def _a_file_beside_the_pictures(cls, value: str) -> str:
        if PurePath(value).name != value or not value.endswith(".parquet") or value in (".parquet", "manifest.parquet"):
            raise ValueError(
                "expected a file name that ends in .parquet, without a folder, other than manifest.parquet, which is "
                "never rewritten; e.g. curated.parquet"
            )
        return value

    @model_validator(mode="after")
    def _settings_that_agree(self) -> CurateConfig:
        if self.real is None and (self.min_real_likeness is not None or self.keep_real_likeness is not None):
            raise ValueError("real-likeness needs real pictures to compare with; set real (--real SET)")
        if self.safety is None and self.unsafe_labels:
            raise ValueError("unsafe_labels are those of a safety model; set safety (--safety FOLDER)")
        if self.prompts is not None and "templates" in self.model_fields_set:
            raise ValueError("templates and prompts are two ways to say one thing; give one of them")
        return self
