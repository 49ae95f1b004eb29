"""Which pictures of a set are worth training on: scores, near-duplicates, leakage, safety. Nothing is deleted.

settings.py  what can be asked for; imports nothing heavy
curating.py  from settings to another manifest beside the same pictures
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gen2real.late import late

if TYPE_CHECKING:
    from gen2real.curation.curating import Curation as Curation
    from gen2real.curation.curating import curate as curate
    from gen2real.curation.settings import CurateConfig as CurateConfig

_WHERE = {"CurateConfig": "settings", "Curation": "curating", "curate": "curating"}

__all__ = sorted(_WHERE)
__getattr__, __dir__ = late(__name__, _WHERE)
