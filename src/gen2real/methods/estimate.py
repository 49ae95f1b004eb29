"""What a run will cost, before anything is spent: a few real updates are timed, the rest is arithmetic."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gen2real.config import Config
from gen2real.errors import RecipeError
from gen2real.evaluation.features import encode_pictures
from gen2real.imagesets import ImageSet
from gen2real.methods import METHODS
from gen2real.methods.classification_data import ClassificationData
from gen2real.methods.settings import ClassificationConfig, RegFTConfig
from gen2real.training.memory import peak_memory
from gen2real.training.run_folder import RunFolder

_UPDATES = 3
_PICTURES = 512


@dataclass(frozen=True)
class Estimate:
    """What a run takes. `encoded` counts the times that a picture goes through the image encoder outside of updates:
    for cached features, and for measuring every alpha. `hours` is all of it; memory is the peak of the timed updates;
    disk holds the checkpoints and the model folder.
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

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        return {"version": 1, **asdict(self)}

    def text(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.pictures:,} pictures to train on, {self.held_out:,} held out",
            f"{self.updates:,} updates at {self.seconds_per_update:.3f} s ({self.timed_updates} timed), "
            f"{self.encoded:,} pictures encoded for features and for measuring at {self.seconds_per_encoded:.4f} s: "
            f"{self.hours:.2f} h",
            f"{self.memory_gb:.1f} GB of {self.memory_of} memory at the peak of the timed updates",
            f"{self.disk_gb:.2f} GB of disk; {self.disk_free_gb:.1f} GB are free",
        ]
        if self.disk_gb > self.disk_free_gb:
            lines.append("The disk is too small for this run: free some space, or set another output.")
        return "\n".join(lines)


def estimate(config: Config) -> Estimate:
    """Runs the first updates of a recipe on a part of its pictures, in a temporary folder.

    Of the evaluation set, class names and picture hashes are looked at and rows are counted; it is not measured on.

    Raises: what loading and training raise, so a recipe that cannot run says so here.
    """
    if not isinstance(config, ClassificationConfig):
        raise RecipeError("--dry-run estimates a training, and this recipe has none")
    with tempfile.TemporaryDirectory(prefix="gen2real-dry-run-") as name, _own_cache(Path(name) / "cache"):
        short = _shortened(config, Path(name))
        folder = RunFolder(short.output, short)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        rehearsal = import_module(METHODS[config.method]).prepare(short)
        start = time.perf_counter()
        part = rehearsal.data.sources[0].pictures
        encode_pictures(rehearsal.encoder.vision, part)
        seconds_per_encoded = (time.perf_counter() - start) / len(part)
        rehearsal.fine_tune(folder, quiet=True)
        rows = [json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]
        checkpoint = sum(file.stat().st_size for file in folder.checkpoints.rglob("*.safetensors"))
    seconds = [row["seconds"] for row in rows if row["stage"] == rows[-1]["stage"]]
    per_update = (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1) if len(seconds) > 1 else seconds[0]
    data = ClassificationData(config.data, rehearsal.encoder.preprocess, seed=config.seed)
    updates = config.training.total_steps(data.sampler(config.training.batch_size, config.seed).steps_per_epoch)
    encoded = _encoded(config, data, frozen=rehearsal.frozen_encoder)
    model = sum(value.nbytes for value in rehearsal.encoder.state_dict().values()) if config.save_model else 0
    peak, of = peak_memory()
    return Estimate(
        pictures=sum(len(one.pictures) for one in data.sources),
        held_out=sum(len(one.pictures) for one in data.held_out),
        updates=updates,
        seconds_per_update=per_update,
        encoded=encoded,
        seconds_per_encoded=seconds_per_encoded,
        hours=(per_update * updates + seconds_per_encoded * encoded) / 3600,
        memory_gb=peak / 1e9,
        memory_of=of,
        disk_gb=(checkpoint * (config.training.keep_checkpoints + 1) + model) / 1e9,
        disk_free_gb=shutil.disk_usage(_existing(config.output)).free / 1e9,
        timed_updates=len(seconds),
    )


def _shortened(config: ClassificationConfig, folder: Path) -> ClassificationConfig:
    """The recipe for a few updates on a part of each generated set, spread over its classes."""
    sources = []
    for place, source in enumerate(config.data.generated):
        whole = ImageSet.read(source.path).kept()
        rows = np.linspace(0, len(whole) - 1, min(len(whole), _PICTURES)).astype(np.int64)
        part = whole.select(np.unique(rows))
        absolute = [str(path.absolute()) for path in part.paths]
        table = part.table.set_column(part.table.schema.get_field_index("path"), "path", [absolute])
        ImageSet.write(folder / f"part-{place}", table, whole.classes)
        sources.append(source.model_copy(update={"path": folder / f"part-{place}"}))
    changes: dict[str, Any] = {
        "output": folder / "run",
        "data": config.data.model_copy(update={"generated": tuple(sources)}),
        "training": config.training.model_copy(
            update={"steps": _UPDATES, "log_every": 1, "checkpoint_every": _UPDATES, "keep_checkpoints": 1}
        ),
    }
    if isinstance(config, RegFTConfig) and config.head_first is not None:
        changes["head_first"] = config.head_first.model_copy(update={"epochs": 1})
    return config.model_copy(update=changes)


def _encoded(config: ClassificationConfig, data: ClassificationData, *, frozen: bool) -> int:
    """How many times a picture is encoded outside of updates; features that are cached already are counted too."""
    pictures = sum(len(one.pictures) for one in data.sources)
    cached = frozen or config.centering == "generated"
    if isinstance(config, RegFTConfig):
        cached |= config.head_first is not None or config.loss.target_std == "zero_shot"
    measured = sum(len(one.pictures) for one in data.measured_on[0])
    if config.data.evaluation is not None:
        measured += len(ImageSet.read(config.data.evaluation).kept())
    alphas = 1 if frozen else len({0.0, 1.0, config.ensemble.alpha, *config.ensemble.sweep})
    return cached * pictures * config.data.views + alphas * measured


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
