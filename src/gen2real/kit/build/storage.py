"""Weights on disk take half the bytes; configs say float32, so that stock libraries compute in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gen2real.files import read_json, write_json


def save_half(model: Any, folder: Path) -> None:
    """`save_pretrained` with weights in float16. Loading gives float32 again, in transformers and in diffusers.

    transformers takes the precision that the config names and diffusers float32; neither that of the file.
    """
    model.float().save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        halved = {
            name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()
        }
        save_file(halved, path, metadata={"format": "pt"})
    config = folder / "config.json"
    values = read_json(config)
    if "dtype" in values:
        write_json(config, {**values, "dtype": str(torch.float32).removeprefix("torch.")})
