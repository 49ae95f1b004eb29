"""What a method offers to `gen2real train --dry-run`: a few real updates to be timed, and the counts of the whole run.

A method's module has `rehearse(config, folder, updates) -> Rehearsal`; `estimate.py` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gen2real.config import Config
from gen2real.imagesets import ImageSet
from gen2real.training.run_folder import RunFolder
from gen2real.training.settings import TrainingSettings
from gen2real.training.state_memory import StateMemory

C = TypeVar("C", bound=Config)

MOST_PICTURES = 512


@dataclass(frozen=True)
class Counts:
    """Of the whole run. encoded: how many times a picture goes through an encoder outside of updates, for cached
    features and for measuring. model_bytes: of the model folder, 0 where none is saved. further: by the name of a
    `Work`, how often it is done."""

    pictures: int
    held_out: int
    updates: int
    encoded: int
    model_bytes: int
    further: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """Work of another kind than updates and encoding. what: in the plural, for people. some: does a part of it and says
    of how many."""

    what: str
    some: Callable[[], int]


@dataclass(frozen=True)
class Rehearsal:
    """A run on a part of its pictures, ready for its first update.

    config: as shortened; its output is a temporary folder. encode: sends some pictures through the encoder and says how
    many. tune: makes the updates. counts: of the run as it was asked for. before, after: further work that is done
    before the updates, or after them, by name. states: what is in memory besides activations.
    """

    config: Any
    encode: Callable[[], int]
    tune: Callable[[RunFolder], object]
    counts: Callable[[], Counts]
    before: Mapping[str, Work] = field(default_factory=dict)
    after: Mapping[str, Work] = field(default_factory=dict)
    states: StateMemory | None = None


def part_of(path: Path, folder: Path, *, most: int | None = None) -> Path:
    """An image set of at most `most` pictures of the one at `path`, spread over all of it, in a new folder."""
    whole = ImageSet.read(path).kept()
    rows = np.linspace(0, len(whole) - 1, min(len(whole), most or MOST_PICTURES)).astype(np.int64)
    return write_part(whole, np.unique(rows).tolist(), folder)


def write_part(whole: ImageSet, rows: list[int], folder: Path) -> Path:
    """Some rows of an image set as one of its own; the pictures stay where they are."""
    part = whole.select(rows)
    absolute = [str(path.absolute()) for path in part.paths]
    table = part.table.set_column(part.table.schema.get_field_index("path"), "path", [absolute])
    ImageSet.write(folder, table, whole.classes)
    return folder


def short_training(training: TrainingSettings, updates: int) -> TrainingSettings:
    """A few updates, each of them logged, and one checkpoint."""
    return training.model_copy(
        update={"steps": updates, "log_every": 1, "checkpoint_every": updates, "keep_checkpoints": 1}
    )
