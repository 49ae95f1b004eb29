"""A run's folder: the recipe as resolved, versions, metrics, checkpoints, results."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gen2real.config import Config, differing_keys, dump, to_json
from gen2real.errors import RecipeError
from gen2real.files import append_line, read_json, remove_leftovers, write_json, write_text

_PACKAGES = ("gen2real", "torch", "transformers", "accelerate", "peft", "safetensors", "pillow", "pyarrow", "numpy")


def environment() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


class RunFolder:
    """Opens a run's folder for one recipe; a folder of another recipe is refused with the keys that differ.

    `recipe.yaml` resolved, complete (`recipe.json` the same for programs); `environment.json` versions;
    `metrics.jsonl` a line a logged step; `checkpoints/`; `result.json` once the run is done.
    """

    def __init__(self, path: Path, config: Config, *, writer: bool = True) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        # `output` says where the folder lies, not what the run is: a folder that was moved still resumes.
        self._settings = {key: value for key, value in to_json(config).items() if key != "output"}
        if writer and path.is_dir():
            remove_leftovers(path)
            if self.finished:
                # A kill may come between the result and the removal of what led to it.
                shutil.rmtree(self.checkpoints, ignore_errors=True)
        known = path / "recipe.json"
        # A run that ended at its first mistake, a mistyped path say, has nothing to lose: the recipe is written anew.
        begun = self.metrics.exists() or self.checkpoints.exists() or self.result.exists()
        if known.exists() and begun:
            before = {key: value for key, value in read_json(known).items() if key != "output"}
            changes = differing_keys(before, self._settings)
            if changes:
                listed = "\n".join(f"  {change}" for change in changes)
                raise RecipeError(
                    f"{path} holds a run of another recipe. What differs:\n{listed}\n"
                    f"Give this one a folder of its own (--set output=FOLDER), or remove {path} to start over."
                )
        elif writer:
            path.mkdir(parents=True, exist_ok=True)
            write_text(path / "recipe.yaml", dump(config))
            write_json(path / "environment.json", environment())
            write_json(known, to_json(config))

    @property
    def finished(self) -> bool:
        """Whether the run has written its result."""
        return self.result.exists()

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends one line to `metrics.jsonl`."""
        append_line(self.metrics, json.dumps(dict(row), allow_nan=False))

    def forget_after(self, stage: str, step: int) -> None:
        """Drops metric lines of updates that a resumed `stage` is about to do again, and a line torn by a kill."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if row["stage"] != stage or row["step"] <= step:
                kept.append(line)
        write_text(self.metrics, "".join(f"{line}\n" for line in kept))
