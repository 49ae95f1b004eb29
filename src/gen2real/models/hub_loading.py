"""Loading from the hub or a folder in its layout: safetensors only, and errors that say what to type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gen2real.errors import ModelError
from gen2real.files import refuse_pickle


def explained(name: str, load: Any, **options: Any) -> Any:
    """What `load(name, **options)` gives, a `from_pretrained` say. Raises: ModelError for whatever goes wrong there."""
    try:
        return load(name, **options)
    except ImportError as error:
        raise ModelError(f"{name} needs a package that is not installed: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        words = str(error)
        if "safetensors" in words and "does not appear to have a file" in words:
            raise ModelError(f"{name} has no safetensors weights. {_NO_PICKLES}") from error
        raise ModelError(
            f"{name} could not be loaded: {words.strip()}\nIf it is a folder, check that it holds config.json, "
            "model.safetensors, its tokenizer and, where it reads pictures, preprocessor_config.json; if it is a hub "
            "name, check the spelling and the connection, or download it once and give the folder."
        ) from error


def whole_model(
    name: str,
    model_class: Any,
    *,
    revision: str | None,
    dtype: torch.dtype = torch.float32,
    may_lack: str | None = None,
) -> Any:
    """A model of transformers, from safetensors, every tensor its own. Call it within `without_progress_bars`.

    may_lack: how the names of tensors begin that are never used, so that a checkpoint may be without them.

    Raises: ModelError for what cannot be loaded, is a pickle, or lacks tensors.
    """
    if Path(name).is_dir():
        refuse_pickled_checkpoint(Path(name))
    model, report = explained(
        name,
        model_class.from_pretrained,
        revision=revision,
        use_safetensors=True,
        dtype=dtype,
        output_loading_info=True,
    )
    missing = [key for key in report["missing_keys"] if may_lack is None or not key.startswith(may_lack)]
    if incomplete := sorted(missing):
        raise ModelError(
            f"the checkpoint {name} lacks {len(incomplete)} tensors of its model "
            f"({', '.join(map(str, incomplete[:5]))} …); they would be random numbers. Get the whole checkpoint."
        )
    for parameter in model.parameters():
        # A tensor mapped from a safetensors file starts at any byte, and matrix products of the same numbers then
        # differ in the last bit from those of a copy of the model.
        parameter.data = parameter.data.clone()
    return model


def refuse_pickled_checkpoint(folder: Path) -> None:
    """Raises ModelError for a folder whose only weights are pickles."""
    if any(folder.glob("*.safetensors")):
        return
    for pickled in sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]):
        refuse_pickle(pickled)
        raise ModelError(f"{pickled} is not safetensors. {_NO_PICKLES}")


_NO_PICKLES = (
    "gen2real reads safetensors and JSON only, because opening a pickle runs whatever program its maker put in it. "
    "Convert it once where you trust it: "
    'safetensors.torch.save_file(torch.load(path, weights_only=True), "model.safetensors").'
)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Without transformers' own progress bars: one bar a command is enough."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
