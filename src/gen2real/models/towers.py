"""Two towers of the user's own as a dual encoder: any image module, any text module or function.

In the user's my_towers.py, for `load_dual_encoder("my_towers:build")`:

    def build() -> TwoTowers:
        return TwoTowers(MyVision(), MyText(), Preprocess(size=224), math.log(100))
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.files import read_json, read_tensors, write_json, write_tensors
from gen2real.imagesets.transforms import Preprocess
from gen2real.models.dual_encoder import DualEncoder

TOWERS_FILE = "towers.json"


class TwoTowers(DualEncoder):
    """A dual encoder from an image module and a text module or function.

    Args:
        vision: pixels [N 3 S S] → [N D], not normalised.
        text: list of N strings → [N D], not normalised. Where it is an `nn.Module` its weights are saved too.
        preprocess: how a picture becomes pixels.
        logit_scale: the logarithm of the scale on cosine similarities.
        embedding_dim: D; asked of `text` where None.
        factory: "package.module:function" that makes these towers with no arguments; saving needs it, because a folder
            holds weights and not programs. `load_dual_encoder("package.module:function")` fills it in.
    """

    def __init__(
        self,
        vision: nn.Module,
        text: nn.Module | Callable[[list[str]], Tensor],
        preprocess: Preprocess,
        logit_scale: Tensor | float | int,
        *,
        embedding_dim: int | None = None,
        factory: str | None = None,
        name: str = "two towers",
    ) -> None:
        if embedding_dim is None:
            with torch.no_grad():
                embedding_dim = int(text(["a"]).shape[-1])
        super().__init__(vision, logit_scale, preprocess, embedding_dim, name)
        self.text = text
        self.factory = factory

    def write_files(self, folder: Path, *, vision: nn.Module | None = None) -> None:
        """model.safetensors with the whole state, and towers.json with the factory and the preprocessing.

        Raises: ModelError where the factory is not known.
        """
        if self.factory is None:
            raise ModelError(
                f"{self.name} cannot be saved without knowing how to make it again: put its making into a function "
                'without arguments and pass factory="package.module:function" to TwoTowers.'
            )
        own = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("vision.")}
        tower = {f"vision.{name}": tensor for name, tensor in self._vision_state(vision).items()}
        write_tensors(folder / "model.safetensors", {**own, **tower})
        description = {"version": 1, "factory": self.factory, "preprocess": self.preprocess.to_dict()}
        write_json(folder / TOWERS_FILE, description)

    def _encode_texts(self, texts: list[str]) -> Tensor:
        return self.text(texts)


def call_factory(path: str) -> DualEncoder:
    """The dual encoder that "package.module:function" returns.

    The function must say so (`-> DualEncoder` or a subclass): a model folder from elsewhere names a function, and must
    not be able to have any other one called.

    Raises: ModelError for a module or function that is not there, is not so annotated, or returns something else.
    """
    module_name, _, function_name = path.partition(":")
    try:
        function = getattr(import_module(module_name), function_name)
    except ImportError as error:
        raise ModelError(
            f"{path}: the module {module_name!r} cannot be imported ({error}). Install it, or add its folder: "
            "PYTHONPATH=. gen2real …"
        ) from error
    except AttributeError as error:
        raise ModelError(f"{path}: the module {module_name!r} has no function {function_name!r}.") from error
    if not _returns_dual_encoder(function):
        raise ModelError(
            f"{path} must be a function that says what it returns; write: def {function_name}() -> DualEncoder "
            "(from gen2real.models import DualEncoder, outside of TYPE_CHECKING)."
        )
    encoder = function()
    if not isinstance(encoder, DualEncoder):
        raise ModelError(f"{path} returned {type(encoder).__name__}; it must return a DualEncoder, such as TwoTowers.")
    if isinstance(encoder, TwoTowers):
        encoder.factory = path
    encoder.name = path
    return encoder


def load_towers(folder: Path) -> DualEncoder:
    """The encoder of a folder that `TwoTowers.save` wrote: its factory is called, then the weights are loaded.

    Raises: ModelError where the factory no longer makes towers that the weights fit.
    """
    description = read_json(folder / TOWERS_FILE)
    encoder = call_factory(description["factory"])
    try:
        encoder.load_state_dict(read_tensors(folder / "model.safetensors"))
    except RuntimeError as error:
        raise ModelError(
            f"the weights in {folder} do not fit what {description['factory']} makes now: {error}"
        ) from error
    encoder.preprocess = Preprocess.from_dict(description["preprocess"])
    return encoder


def _returns_dual_encoder(function: Any) -> bool:
    if not inspect.isfunction(function):
        return False
    try:
        returned = typing.get_type_hints(function).get("return")
    except NameError:
        return False
    return isinstance(returned, type) and issubclass(returned, DualEncoder)
