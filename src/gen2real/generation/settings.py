"""What a generation may be asked for. Nothing heavy is imported here, so that a mistake is told at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gen2real.config import Config, RecipeName, RecipePath, nearest

SCHEDULERS = {
    "auto": "dpm++ for a pipeline whose own needs fifty steps, else the pipeline's own",
    "native": "the pipeline's own",
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "deis": "DEISMultistepScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "dpm++sde": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Short names; any scheduler class of diffusers may be named in full instead."""

CAPTION_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


class GeneratorSettings(Config):
    """A text-to-image pipeline of diffusers, by hub name or folder, and how it draws.

    What is None is the pipeline's own default; with the scheduler dpm++ that auto chooses, 20 steps.
    """

    name: RecipeName
    revision: str | None = Field(None, description="of a hub repository: a commit, tag or branch")
    scheduler: str = Field("auto", description=f"one of {', '.join(SCHEDULERS)}, or a scheduler class of diffusers")
    steps: int | None = Field(None, ge=1)
    guidance: float | None = Field(None, ge=0, description="classifier-free guidance; 1 and less draw without it")
    negative_prompt: str = ""
    width: int | None = Field(None, ge=8, multiple_of=8, description="pixels")
    height: int | None = Field(None, ge=8, multiple_of=8, description="pixels")

    @field_validator("scheduler")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in SCHEDULERS and not value.endswith("Scheduler"):
            near = nearest(value, SCHEDULERS)
            raise ValueError(
                f"expected one of {', '.join(SCHEDULERS)}, or a class of diffusers such as EulerDiscreteScheduler"
                + (f"; did you mean {near}?" if near else "")
            )
        return value


def _as_generator(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class GenerateConfig(Config):
    """A generated image set: whose names or captions, drawn by which pipelines, how many of each.

    `source` is a text file of class names (one a line), with `templates` or a CuPL file in `prompts`; or captions:
    .jsonl, .csv, .tsv, a .txt with a caption a line (say `per_caption` then), or an image set, whose captions are drawn
    and whose rows the new ones are paired with.
    """

    method: Literal["generate"] = "generate"
    source: RecipePath
    output: Path
    generators: Annotated[tuple[Annotated[GeneratorSettings, BeforeValidator(_as_generator)], ...], Field(min_length=1)]
    per_class: int | None = Field(None, ge=1, description="class names: pictures of each; 10 if nothing is said")
    per_caption: int | None = Field(None, ge=1, description="captions: pictures of each; 1 if nothing is said")
    templates: str | tuple[str, ...] = "simple"
    prompts: RecipePath | None = Field(None, description="a CuPL file (class name → prompts) instead of templates")
    seed: int = Field(0, ge=0)
    max_redraws: int = Field(3, ge=0, description="new seeds for a blank picture before its row is given up")
    batch_size: int | None = Field(None, ge=1, description="None: by the pictures' size and the device")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps, …")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    picture_format: Literal["png", "webp"] = "png"

    @property
    def of_captions(self) -> bool:
        """Whether the source holds captions, not class names."""
        return self.per_caption is not None or self.source.suffix.lower() in CAPTION_SUFFIXES or self.source.is_dir()

    @property
    def drawing(self) -> dict[str, Any]:
        """The settings that decide the pictures, as JSON-like values: not where they go, nor in how large batches."""
        return self.model_dump(mode="json", exclude={"output", "batch_size", "device"})

    @model_validator(mode="after")
    def _one_kind_of_source(self) -> GenerateConfig:
        if self.per_class is not None and self.per_caption is not None:
            raise ValueError("per_class is for class names and per_caption for captions; give one of them")
        if self.per_class is not None and self.of_captions:
            raise ValueError(f"{self.source} holds captions, which have no classes to count in; give per_caption")
        if self.of_captions and self.prompts is not None:
            raise ValueError("prompts turns class names into texts, and captions are texts already; leave it out")
        return self
