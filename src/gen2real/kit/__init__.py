"""The kit: a small world of toys and tiny checkpoints trained on it, so that everything runs offline in minutes.

It is a demonstration and a test bench, not evidence: evidence comes from real pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gen2real.errors import ModelError

CheckpointName = Literal["clip", "scorer", "decoder", "generator", "multimodal"]

_CHECKPOINTS = Path(__file__).parent / "checkpoints"


def folder(name: CheckpointName) -> Path:
    """The folder of a checkpoint that comes with the package, in the hub's layout.

    Raises: ModelError where it is not there, as in a checkout whose checkpoints were not built.
    """
    path = _CHECKPOINTS / name
    if not path.is_dir():
        raise ModelError(f"the kit's {name!r} is not in {_CHECKPOINTS}. Build it with: python -m gen2real.kit.build")
    return path


__all__ = ["CheckpointName", "folder"]
