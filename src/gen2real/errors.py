"""The exceptions of gen2real. Each message says what was given, what was expected and what to type.

Gen2RealError
 ├── RecipeError          (ValueError)       a recipe or an override does not fit its method
 ├── ImageSetError        (ValueError)       a manifest, an importer's source or a label does not fit
 │    └── UnreadablePictures                 pictures that do not decode, all of them listed
 ├── ModelError           (ValueError)       a model folder, an encoder or a state dict does not fit
 ├── GenerationError      (RuntimeError)     pictures cannot be drawn here, or not as they were
 ├── CheckpointError      (RuntimeError)     a checkpoint is torn, foreign, or cannot be written
 ├── NonFiniteLoss        (ArithmeticError)  a loss was NaN or infinite; the update was not made
 └── MissingDependency    (ImportError)      an optional package is needed for what was asked
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class Gen2RealError(Exception):
    """Whatever gen2real raises on purpose."""


class RecipeError(Gen2RealError, ValueError):
    """A recipe or an override does not fit its method."""


class ImageSetError(Gen2RealError, ValueError):
    """A manifest, an importer's source or a label does not fit."""


@dataclass(frozen=True)
class Offender:
    """One picture that could not be read, and why."""

    path: Path
    reason: str


class UnreadablePictures(ImageSetError):
    """Pictures that do not decode; `offenders` lists every one of them."""

    def __init__(self, offenders: Sequence[Offender]) -> None:
        self.offenders = tuple(offenders)
        shown = "\n".join(f"  {offender.path}: {offender.reason}" for offender in self.offenders[:20])
        more = len(self.offenders) - 20
        tail = f"\n  … and {more} more" if more > 0 else ""
        super().__init__(
            f"{len(self.offenders)} picture(s) cannot be read:\n{shown}{tail}\n"
            'Mend or remove them, or leave them out: on_unreadable="skip" (--on-unreadable skip; for a recipe '
            "--set data.on_unreadable=skip)."
        )


class ModelError(Gen2RealError, ValueError):
    """A model folder, an encoder or a state dict does not fit."""


class GenerationError(Gen2RealError, RuntimeError):
    """Pictures cannot be drawn here, or not as they were."""


class CheckpointError(Gen2RealError, RuntimeError):
    """A checkpoint is torn, foreign, or cannot be written."""


class NonFiniteLoss(Gen2RealError, ArithmeticError):
    """A loss was NaN or infinite; the update was not made."""


class MissingDependency(Gen2RealError, ImportError):
    """An optional package is needed for what was asked."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}. Install it with: pip install 'gen2real[{extra}]'")
