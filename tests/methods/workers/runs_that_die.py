"""Runs recipes in processes of their own, killed where told: `python runs_that_die.py CONFIG DIE CONFIG DIE …`.

CONFIG is a file with a recipe's values. DIE is `never`, or WHERE:N for the N-th time that the run comes to WHERE:

    update      an update of the trainer, before it is made
    tensors     a file of tensors, when half of it is written
    rename      the moment before a finished file or folder gets its name
    renamed     the moment after
    remove      the removal of an old checkpoint, after its first file

The processes are forks, so that torch is imported once, and diffusers where a recipe needs it. A line says how each one
ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.dataset  # noqa: F401
import torch

# Imported before the forks, or each of them would; the methods too, in `main`.
from peft.tuners.lora import LoraLayer  # noqa: F401
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, CLIPModel, CLIPTokenizer  # noqa: F401
from transformers.models.clip import image_processing_pil_clip, modeling_clip  # noqa: F401

from gen2real import files, methods
from gen2real.config import parse_config
from gen2real.models import transformers_encoders  # noqa: F401
from gen2real.training import checkpoint
from gen2real.training.trainer import Trainer


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(where: str, number: int) -> None:
    """Arranges that this process is killed the `number`-th time it comes to `where`."""
    seen = []

    def comes_here() -> bool:
        seen.append(1)
        return len(seen) == number

    def before(function: Callable[..., Any], harm: Callable[..., Any] = lambda *_: None) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if comes_here():
                harm(*arguments)
                kill()
            return function(*arguments, **named)

        return wrapped

    def half_written(path: Path, *_: Any) -> None:
        (path.parent / f".{path.name}.torn.partial{path.suffix}").write_bytes(b"\x10\0\0\0\0\0\0\0{half")

    def half_removed(path: Path, *_: Any) -> None:
        if path.is_dir() and path.name.startswith("step-"):
            next(path.iterdir()).unlink()

    if where == "update":
        Trainer._update = before(Trainer._update)  # type: ignore[method-assign]
    elif where == "tensors":
        checkpoint.write_tensors = before(files.write_tensors, half_written)
    elif where == "rename":
        os.replace = before(os.replace)
    elif where == "renamed":
        replace = os.replace

        def renamed(*arguments: Any) -> None:
            replace(*arguments)
            if comes_here():
                kill()

        os.replace = renamed
    elif where == "remove":
        rmtree = shutil.rmtree

        def remove(path: Any, *arguments: Any, **named: Any) -> None:
            if Path(path).name.startswith("step-") and comes_here():
                half_removed(Path(path))
                kill()
            rmtree(path, *arguments, **named)

        shutil.rmtree = remove  # type: ignore[assignment]
    else:
        raise ValueError(where)


def main() -> None:
    """Runs every recipe in turn."""
    torch.set_num_threads(1)
    Image.init()
    for values in map(files.read_json, map(Path, sys.argv[1::2])):
        module = import_module(methods.METHODS[values["method"]])
        if values["method"] == "unidiff" and "diffusers.pipelines.stable_diffusion" not in sys.modules:
            # Its libraries import what they load when they first load it.
            module.prepare(parse_config(methods.CONFIGS["unidiff"], values, source="recipe"))
    for path, die in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        child = os.fork()
        if child == 0:
            values = files.read_json(Path(path))
            if die != "never":
                where, _, number = die.partition(":")
                die_at(where, int(number))
            methods.run(parse_config(methods.CONFIGS[values["method"]], values, source=path), quiet=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ended = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        print(f"{path} {die} {ended}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
