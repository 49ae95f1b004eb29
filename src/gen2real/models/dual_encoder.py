"""Dual encoders: an image tower and a text tower that meet in one space, whoever made them.

`load_dual_encoder` finds the adapter for a hub name, a folder, or the user's own function. Everything else in
gen2real knows only the class `DualEncoder`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.files import atomic_folder, digest, digest_tensors, read_json
from gen2real.imagesets.transforms import Preprocess

PREPROCESS_FILE = "preprocess.json"
_MODEL_MARKS = ("gen2real.json", "towers.json", "config.json")
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


class DualEncoder(nn.Module):
    """The contract of every dual encoder; its subclasses say how text is read and how the files look.

    Attributes:
        vision: an `nn.Module`, pixels [N 3 S S] → embeddings [N D], not normalised.
        logit_scale: the logarithm of the scale on cosine similarities (as in CLIP), a parameter without dimensions.
        preprocess: how a picture becomes pixels.
        embedding_dim: D.
        name: where it came from, for people.
    """

    vision: nn.Module
    logit_scale: nn.Parameter

    def __init__(
        self,
        vision: nn.Module,
        logit_scale: Tensor | float | int,
        preprocess: Preprocess,
        embedding_dim: int,
        name: str,
    ) -> None:
        super().__init__()
        self.vision = vision
        self.logit_scale = nn.Parameter(torch.as_tensor(logit_scale, dtype=torch.float32).detach().reshape(()).clone())
        self.preprocess = preprocess
        self.embedding_dim = embedding_dim
        self.name = name

    def encode_image(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        """Embeddings of preprocessed pictures, not normalised."""
        return self.vision(pixels)

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> Float[Tensor, "n dim"]:
        """Embeddings of texts, not normalised, on the text tower's device; a text is cut at the model's length.

        Raises: ModelError for a bare string, which would be read letter by letter.
        """
        if isinstance(texts, str):
            raise ModelError(f"encode_text takes a list of strings; got the string {texts!r}. Write [{texts!r}].")
        batches = [self._encode_texts(list(texts[i : i + batch_size])) for i in range(0, len(texts), batch_size)]
        return torch.cat(batches) if batches else self.logit_scale.new_zeros(0, self.embedding_dim)

    def vision_linear_names(self) -> list[str]:
        """The names inside `vision` that LoRA adapts unless told otherwise."""
        from gen2real.models.adapters import default_targets

        return default_targets(self.vision)

    def gradient_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory: activations are computed again in the backward pass. Outputs do not change.

        Raises: ModelError where neither tower knows how.
        """
        switches = [checkpointing_switch(module, enable) for module in self.modules()]
        found = [switch for switch in switches if switch is not None]
        if not found:
            raise ModelError(
                f"{self.name} has no module with gradient_checkpointing_enable(); give your own tower that method and "
                "gradient_checkpointing_disable(), or train without gradient checkpointing."
            )
        for switch in found:
            switch()

    def fingerprint(self) -> str:
        """A hash of weights, architecture and preprocessing: equal content, equal string, wherever it lies."""
        return digest(digest_tensors(self.state_dict()), self.preprocess.to_dict(), self._architecture())

    def save(self, folder: str | Path, *, vision: nn.Module | None = None) -> None:
        """Writes the encoder's folder in one step; `load_dual_encoder(folder)` reads it back bit for bit.

        Args:
            folder: new, empty, or an older model folder, which is replaced.
            vision: an image tower to write in place of the encoder's own, with the same state-dict keys.

        Raises: ModelError where `folder` holds something other than a model, or where `vision` has other keys or
            shapes (LoRA layers that were not merged, say).
        """
        refuse_to_replace(Path(folder))
        with atomic_folder(Path(folder)) as partial:
            self.write_files(partial, vision=vision)

    def write_files(self, folder: Path, *, vision: nn.Module | None = None) -> None:
        """Writes the encoder's files into an existing folder; `save` is this, made atomic."""
        raise NotImplementedError

    def _encode_texts(self, texts: list[str]) -> Tensor:
        raise NotImplementedError

    def _architecture(self) -> Any:
        return repr(self)

    def _vision_state(self, vision: nn.Module | None) -> dict[str, Tensor]:
        """The state of the tower to be written, checked against the encoder's own."""
        expected = {name: tuple(tensor.shape) for name, tensor in self.vision.state_dict().items()}
        state = (self.vision if vision is None else vision).state_dict()
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if any(".lora_" in name for name in found):
            raise ModelError("the image tower holds LoRA layers; call merge_lora(vision) before it is saved.")
        if differing := sorted({name for name, _ in expected.items() ^ found.items()}):
            raise ModelError(
                f"the image tower does not fit the encoder {self.name}; these tensors differ in name or shape: "
                + ", ".join(differing[:20])
                + (f" and {len(differing) - 20} more" if len(differing) > 20 else "")
            )
        return state


def load_dual_encoder(name_or_folder: str | Path, *, revision: str | None = None) -> DualEncoder:
    """The dual encoder at a hub name ("openai/clip-vit-base-patch16"), in a folder, or from the user's function.

    Hub layouts: CLIP, SigLIP and SigLIP 2, fixed or NaFlex. "package.module:function" calls the function, which
    returns a `DualEncoder` (see `TwoTowers`) and says so: `def function() -> DualEncoder`. Weights are loaded as
    float32 and the encoder is in evaluation mode.

    Args:
        revision: a branch, tag or commit of a hub repository.

    Raises: ModelError, with what to type, for a folder that is not there or not a model, a model type without an
        adapter, a checkpoint that is a pickle, and weights that lack tensors of the model.
    """
    name, folder = str(name_or_folder), Path(name_or_folder).expanduser()
    if not folder.exists() and _IMPORT_PATH.fullmatch(name):
        from gen2real.models.towers import call_factory

        return call_factory(name).eval()
    folder = model_inside(folder)
    name = str(folder) if folder.exists() else name
    if revision is not None and folder.exists():
        warnings.warn(f"revision={revision!r} is ignored: {name} is a folder, not a hub repository.", stacklevel=2)
        revision = None
    if (folder / "towers.json").is_file():
        from gen2real.models.towers import load_towers

        return load_towers(folder).eval()
    if folder.exists() and not (folder / "config.json").is_file():
        raise ModelError(f"{name} is not a model folder: it has no config.json and no towers.json. {_WHAT_TO_TYPE}")
    if not folder.exists() and not is_hub_name(name):
        raise ModelError(f"there is no folder {name}. {_WHAT_TO_TYPE}")
    from gen2real.models.transformers_encoders import load_transformers

    return load_transformers(name if not folder.exists() else str(folder), revision=revision).eval()


def model_inside(folder: Path) -> Path:
    """The model folder that a path means: `folder/model` where `folder` is a run's, else the path itself.

    A run's folder stands for its model in every command, be it a classifier's or an aligned encoder's.
    """
    is_run = (folder / "recipe.json").is_file() and not any((folder / name).is_file() for name in _MODEL_MARKS)
    return folder / "model" if is_run and (folder / "model").is_dir() else folder


def is_hub_name(name: str | Path) -> bool:
    """Whether a name can only be a repository's on the hub: it is written like one, and no folder is called so."""
    return _HUB_NAME.fullmatch(str(name)) is not None and not Path(name).exists()


def stored_preprocess(folder: Path) -> Preprocess | None:
    """The preprocessing that a gen2real folder states outright, where the hub's own files cannot say it."""
    path = folder / PREPROCESS_FILE
    return Preprocess.from_dict(read_json(path)) if path.is_file() else None


def refuse_to_replace(folder: Path) -> None:
    """Raises ModelError where writing a model to `folder` would destroy something that is not a model."""
    if folder.is_file():
        raise ModelError(f"{folder} is a file; give a folder for the model.")
    if folder.is_dir() and any(folder.iterdir()) and not any((folder / name).is_file() for name in _MODEL_MARKS):
        raise ModelError(f"{folder} is not empty and holds no model, so it is not replaced; give a new folder.")


def checkpointing_switch(module: nn.Module, enable: bool) -> Callable[..., Any] | None:
    """A module's own method that turns gradient checkpointing on or off; None where it has none."""
    # transformers renamed the method within version 5; the older name warns there.
    for prefix in ("activation", "gradient"):
        switch = getattr(module, f"{prefix}_checkpointing_{'enable' if enable else 'disable'}", None)
        if callable(switch):
            return switch
    return None


_WHAT_TO_TYPE = (
    'Give a folder that transformers can load, a hub name such as "openai/clip-vit-base-patch16" or '
    '"google/siglip2-base-patch16-224", or "package.module:function" for your own towers.'
)
