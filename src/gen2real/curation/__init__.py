"""Which pictures of a set are worth training on: scores, near-duplicates, leakage, safety. Nothing is deleted.

settings.py  what can be asked for; imports nothing heavy
curating.py  from settings to another manifest beside the same pictures
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gen2real.curation.curating import Curation as Curation
    from gen2real.curation.curating import curate as curate
    from gen2real.curation.settings import CurateConfig as CurateConfig

_WHERE = {"CurateConfig": "settings", "Curation": "curating", "curate": "curating"}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
