"""Pipelines of diffusers on disk: found in a folder, a run or the hub; loaded from safetensors only, and quietly."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from gen2real.errors import ModelError

INDEX = "model_index.json"


def pipeline_inside(folder: Path) -> Path:
    """The pipeline's folder that a path means: `folder/generator` where a run has put one there, else the path itself.

    A run's folder stands for its generator in every command that asks for one.
    """
    inside = folder / "generator"
    return inside if not (folder / INDEX).is_file() and (inside / INDEX).is_file() else folder


def pipeline_folder(name: str | Path, revision: str | None = None) -> tuple[Path, str | None]:
    """The folder of a pipeline: one on disk, that of a finished run, or a hub repository's in the cache, with its
    commit.

    Raises: ModelError, with what to type, where there is none.
    """
    folder = pipeline_inside(Path(name).expanduser())
    if folder.is_dir():
        if not (folder / INDEX).is_file():
            if (folder / "recipe.json").is_file():
                raise ModelError(
                    f"{folder} is a run that holds no generator: it is of a method that tunes none, it has not ended, "
                    "or it was told save_model: false. Give a finished run of method: unidiff, or a pipeline's folder."
                )
            raise ModelError(
                f"{folder} holds no {INDEX}, so it is no pipeline of diffusers. Save one there with "
                "pipeline.save_pretrained(folder)."
            )
        return folder, None
    pipeline_class = diffusers.DiffusionPipeline
    try:
        cached = Path(pipeline_class.download(str(name), revision=revision, use_safetensors=True))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"there is no folder {name}, and as a hub name it does not load: {_sentence(error)}\n"
            f"Give a folder with a {INDEX}, or the name of a text-to-image pipeline on the hub."
        ) from error
    return cached, cached.name


def load_pipeline(folder: Path, dtype: torch.dtype, name: str) -> Any:
    """The pipeline in a folder, every part in `dtype`. name: what the person gave, for errors.

    Raises: ModelError where it is not whole, has pickles only, or needs a package that is missing.
    """
    pipeline_class = diffusers.DiffusionPipeline
    try:
        with libraries_quiet():
            return pipeline_class.from_pretrained(str(folder), torch_dtype=dtype, use_safetensors=True)
    except ImportError as error:
        raise ModelError(f"{name} needs a package that is not installed: {error}") from error
    except (OSError, ValueError, AttributeError) as error:
        bins = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.bin"))
        hint = (
            f" It has pickles, as {bins[0]}, which gen2real does not open: convert them to safetensors." if bins else ""
        )
        raise ModelError(f"{name} does not load as a pipeline: {_sentence(error)}{hint}") from error


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:400]


@contextmanager
def libraries_quiet() -> Iterator[None]:
    """Keeps diffusers and transformers from talking of themselves: their bars, hints and coming deprecations."""
    both = (diffusers_logging, transformers_logging)
    before = [(one, one.get_verbosity(), one.is_progress_bar_enabled()) for one in both]
    with warnings.catch_warnings():
        for kind in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)
        try:
            for one, _, _ in before:
                one.set_verbosity_error()
                one.disable_progress_bar()
            yield
        finally:
            for one, verbosity, has_bar in before:
                one.set_verbosity(verbosity)
                if has_bar:
                    one.enable_progress_bar()
