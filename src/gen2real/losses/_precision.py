"""Losses compute in float32 at least, whatever precision surrounds them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def widen(tensor: Tensor) -> Tensor:
    """`tensor` in float32, or as it is where it is float64 already."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def outside_autocast(loss: Callable[P, R]) -> Callable[P, R]:
    """Runs a loss with autocast off: inside it, a matrix product would fall back to bfloat16 unseen."""

    @wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next((value.device.type for value in args if isinstance(value, Tensor)), "cpu")
        with torch.autocast(device_type=device, enabled=False):
            return loss(*args, **kwargs)

    return wrapped
