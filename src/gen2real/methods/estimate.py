"""What a run will cost, before anything is spent: a few real updates are timed, the rest is arithmetic."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from gen2real.errors import RecipeError
from gen2real.methods import METHODS
from gen2real.methods.rehearsal import Rehearsal, Work
from gen2real.training.memory import peak_memory
from gen2real.training.run_folder import RunFolder
from gen2real.training.state_memory import StateMemory

_UPDATES = 3


@dataclass(frozen=True)
class Estimate:
    """What a run takes. `encoded` counts the times that a picture goes through the image encoder outside of updates:
    for cached features, and for measuring every alpha. `further` is work of other kinds, such as pictures drawn: what,
    how many, seconds each. `hours` is all of it; memory is the peak of what was timed, `states` what of it are
    weights, gradients and the optimiser's, where the method can tell; disk holds the checkpoints and the model folder.
    """

    pictures: int
    held_out: int
    updates: int
    seconds_per_update: float
    encoded: int
    seconds_per_encoded: float
    hours: float
    memory_gb: float
    memory_of: str
    disk_gb: float
    disk_free_gb: float
    timed_updates: int
    further: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    states: StateMemory | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable, `further` and `states` are there where the method has some."""
        known = {name: value for name, value in asdict(self).items() if name not in ("further", "states")}
        further = {"further": dict(self.further)} if self.further else {}
        states = {} if self.states is None else {"states": self.states.to_json()}
        return {"version": 1, **known, **further, **states}

    def text(self) -> str:
        """A few lines for people."""
        further = self.further.values()
        lines = [
            f"{self.pictures:,} pictures to train on, {self.held_out:,} held out",
            f"{self.updates:,} updates at {self.seconds_per_update:.3f} s ({self.timed_updates} timed), "
            f"{self.encoded:,} pictures encoded for features and for measuring at {self.seconds_per_encoded:.4f} s"
            + "".join(f", {one['count']:,} {one['what']} at {one['seconds_each']:.3f} s" for one in further)
            + f": {self.hours:.2f} h",
            f"{self.memory_gb:.1f} GB of {self.memory_of} memory at the peak of what was timed",
            *([] if self.states is None else [self.states.text()]),
            f"{self.disk_gb:.2f} GB of disk; {self.disk_free_gb:.1f} GB are free",
        ]
        if self.disk_gb > self.disk_free_gb:
            lines.append("The disk is too small for this run: free some space, or set another output.")
        return "\n".join(lines)


def estimate(config: Any) -> Estimate:
    """Runs the first updates of a recipe on a part of its pictures, in a temporary folder.

    Raises: RecipeError for a recipe without a training; what loading and training raise, so a recipe that cannot run
        says so here.
    """
    rehearse = getattr(import_module(METHODS[config.method]), "rehearse", None) if config.method in METHODS else None
    if rehearse is None:
        raise RecipeError("--dry-run estimates a training, and this recipe has none")
    with tempfile.TemporaryDirectory(prefix="gen2real-dry-run-") as name, _own_cache(Path(name) / "cache"):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        rehearsal: Rehearsal = rehearse(config, Path(name), _UPDATES)
        folder = RunFolder(rehearsal.config.output, rehearsal.config)
        start = time.perf_counter()
        encoded = rehearsal.encode()
        seconds_per_encoded = (time.perf_counter() - start) / max(encoded, 1)
        each = {name: _seconds_each(work) for name, work in rehearsal.before.items()}
        rehearsal.tune(folder)
        each |= {name: _seconds_each(work) for name, work in rehearsal.after.items()}
        rows = [json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]
        checkpoint = sum(file.stat().st_size for file in folder.checkpoints.rglob("*.safetensors"))
    seconds = [row["seconds"] for row in rows if row["stage"] == rows[-1]["stage"]]
    per_update = (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1) if len(seconds) > 1 else seconds[0]
    counts = rehearsal.counts()
    peak, of = peak_memory()
    works = {**rehearsal.before, **rehearsal.after}
    further: dict[str, dict[str, Any]] = {
        name: {"what": works[name].what, "count": count, "seconds_each": each[name]}
        for name, count in counts.further.items()
        if count
    }
    seconds_further = sum(one["count"] * one["seconds_each"] for one in further.values())
    return Estimate(
        pictures=counts.pictures,
        held_out=counts.held_out,
        updates=counts.updates,
        seconds_per_update=per_update,
        encoded=counts.encoded,
        seconds_per_encoded=seconds_per_encoded,
        hours=(per_update * counts.updates + seconds_per_encoded * counts.encoded + seconds_further) / 3600,
        memory_gb=peak / 1e9,
        memory_of=of,
        disk_gb=(checkpoint * (config.training.keep_checkpoints + 1) + counts.model_bytes) / 1e9,
        disk_free_gb=shutil.disk_usage(_existing(config.output)).free / 1e9,
        timed_updates=len(seconds),
        further=further,
        states=rehearsal.states,
    )


def _seconds_each(work: Work) -> float:
    start = time.perf_counter()
    return 0.0 if (done := work.some()) == 0 else (time.perf_counter() - start) / done


@contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """Features of a rehearsal are not kept."""
    before = os.environ.get("GEN2REAL_CACHE")
    os.environ["GEN2REAL_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["GEN2REAL_CACHE"]
        else:
            os.environ["GEN2REAL_CACHE"] = before


def _existing(path: Path) -> Path:
    whole = path.absolute()
    return next(folder for folder in (whole, *whole.parents) if folder.exists())
