"""Memory: how much was used, and the allocator's habits where they cost a training on the CPU its time."""

from __future__ import annotations

import ctypes
import resource
import sys

import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""glibc's names for mallopt, malloc.h."""


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed for the next update instead of handing it back to the system.

    By default every large activation is mapped anew, zeroed page by page and unmapped, at each update: half a million
    page faults for three updates of a small network. The process then holds what one update needs at its highest point.

    Returns: whether it took effect; False where the C library is another one.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))


def peak_memory() -> tuple[float, str]:
    """The most bytes this process has held, and where: "GPU" (torch's own) where there is one, else "main" memory."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()), "GPU"
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit), "main"
