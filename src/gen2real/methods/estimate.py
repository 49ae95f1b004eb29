"""What a run will cost, before anything is spent: a few real updates are timed, the rest is arithmetic."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from gen2real.config import Config
from gen2real.errors import RecipeError
from gen2real.methods import METHODS
from gen2real.methods.settings import ClassificationConfig
from gen2real.training.run_folder import RunFolder

_TIMED = 3


@dataclass(frozen=True)
class Estimate:
    """Pictures of one epoch, the peak of memory in the timed updates, disk for checkpoints and the model folder."""

    pictures: int
    held_out: int
    updates: int
    seconds_per_update: float
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
            f"{self.updates:,} updates at {self.seconds_per_update:.2f} s ({self.timed_updates} timed): "
            f"{self.hours:.2f} h",
            f"{self.memory_gb:.1f} GB of {self.memory_of} memory at the peak of the timed updates",
            f"{self.disk_gb:.2f} GB of disk; {self.disk_free_gb:.1f} GB are free",
        ]
        if self.disk_gb > self.disk_free_gb:
            lines.append("The disk is too small for this run: free some space, or set another output.")
        return "\n".join(lines)


def estimate(config: Config) -> Estimate:
    """Runs the first updates of a recipe in a temporary folder; the evaluation set is not touched.

    Raises: what loading and training raise, so a recipe that cannot run says so here.
    """
    if not isinstance(config, ClassificationConfig):
        raise RecipeError("--dry-run estimates a training, and this recipe has none")
    module = import_module(METHODS[config.method])
    with tempfile.TemporaryDirectory(prefix="gen2real-dry-run-") as name:
        short = config.model_copy(
            update={
                "output": Path(name),
                "training": config.training.model_copy(
                    update={"steps": _TIMED, "log_every": 1, "checkpoint_every": _TIMED, "keep_checkpoints": 1}
                ),
            }
        )
        folder = RunFolder(Path(name), short)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        rehearsal = module.prepare(short)
        rehearsal.fine_tune(folder, quiet=True)
        rows = [json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]
        checkpoint = sum(file.stat().st_size for file in Path(name).rglob("*.safetensors"))
    seconds = [row["seconds"] for row in rows if row["stage"] == rows[-1]["stage"]]
    per_update = (seconds[-1] - seconds[0]) / max(len(seconds) - 1, 1) if len(seconds) > 1 else seconds[0]
    data, training = rehearsal.data, config.training
    updates = training.total_steps(data.sampler(training.batch_size, config.seed).steps_per_epoch)
    model = sum(value.nbytes for value in rehearsal.encoder.state_dict().values()) if config.save_model else 0
    peak, of = _peak_memory()
    return Estimate(
        pictures=sum(len(one.pictures) for one in data.sources),
        held_out=sum(len(one.pictures) for one in data.held_out),
        updates=updates,
        seconds_per_update=per_update,
        hours=per_update * updates / 3600,
        memory_gb=peak / 1e9,
        memory_of=of,
        disk_gb=(checkpoint * (training.keep_checkpoints + 1) + model) / 1e9,
        disk_free_gb=shutil.disk_usage(_existing(config.output)).free / 1e9,
        timed_updates=len(seconds),
    )


def _peak_memory() -> tuple[float, str]:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()), "GPU"
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit), "main"


def _existing(path: Path) -> Path:
    whole = path.absolute()
    return next(folder for folder in (whole, *whole.parents) if folder.exists())
