"""Train vision-language models on generated images so that they work on real ones.

The public names are listed in `__all__` and imported when first asked for, so that `import gen2real` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gen2real.config import Config as Config
    from gen2real.config import load_recipe as load_recipe
    from gen2real.errors import Gen2RealError as Gen2RealError
    from gen2real.imagesets import ImageSet as ImageSet

__version__ = "0.1.0"

_EXPORTS = {
    "Config": "gen2real.config",
    "Gen2RealError": "gen2real.errors",
    "ImageSet": "gen2real.imagesets",
    "load_recipe": "gen2real.config",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
