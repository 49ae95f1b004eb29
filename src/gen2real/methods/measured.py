"""The result of a run that is judged by measures: numbers that are means of one value a picture.

A classifier's run has answers (`result.py`); every other method has measures: recall of retrieval, CIDEr of captions.
Since each of them is a mean over the same pictures, intervals and paired tests are those of `evaluation.statistics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gen2real.errors import RecipeError
from gen2real.evaluation.statistics import bootstrap_interval
from gen2real.files import read_tensors, write_json, write_tensors
from gen2real.methods.result import FinishedRun

KIND = "measures"


@dataclass(frozen=True)
class Reading:
    """One way to use the training that was done.

    meaning: what it is, for people. values: measure → [N], one value a picture of the evaluation set, whose mean is the
    measure. details: further facts, JSON-like (gallery sizes, counts).
    """

    meaning: str
    values: Mapping[str, npt.NDArray[np.float64]]
    details: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def told(self) -> dict[str, Any]:
        """Plain values, every measure as its interval: how `result.json` has it."""
        measures = {measure: bootstrap_interval(own).to_json() for measure, own in self.values.items()}
        details = {"details": dict(self.details)} if self.details else {}
        return {"meaning": self.meaning, "measures": measures, **details}


def complete(summary: Mapping[str, Any], readings: Mapping[str, Reading], headline: str) -> dict[str, Any]:
    """All of what `result.json` says: `summary`, the readings with their intervals, and which of them counts.

    A model card is written from it before `Measured.write` ends the run.
    """
    told = {name: reading.told for name, reading in readings.items()}
    return {"version": 1, "kind": KIND, **summary, "headline": headline, "readings": told}


def values_of(readings: Mapping[str, Reading]) -> dict[str, npt.NDArray[np.float64]]:
    """`<reading>/<measure>` → [N]."""
    return {
        f"{name}/{measure}": np.asarray(own, dtype=np.float64)
        for name, reading in readings.items()
        for measure, own in reading.values.items()
    }


@dataclass(frozen=True)
class Measured(FinishedRun):
    """A finished run. `summary` is `result.json`, whose `kind` is "measures"."""

    @classmethod
    def write(
        cls,
        folder: Path,
        summary: Mapping[str, Any],
        readings: Mapping[str, Reading],
        *,
        headline: str,
        plane: Mapping[str, Tensor] | None = None,
    ) -> Measured:
        """Writes `values.safetensors`, `map.safetensors` (as `Result.plane`) and, last, `result.json`.

        Args:
            summary: what is known besides the readings: method, seed, encoder, pictures, cost, data, sets, environment.
            headline: the reading that the run is judged by; its recipe named it before anything was measured.
        """
        values = values_of(readings)
        write_tensors(folder / "values.safetensors", {name: torch.from_numpy(own) for name, own in values.items()})
        if plane:
            write_tensors(folder / "map.safetensors", plane)
        write_json(folder / "result.json", complete(summary, readings, headline))
        return cls.read(folder)

    @property
    def headline(self) -> str:
        """The reading that the run is judged by."""
        return str(self.summary["headline"])

    @cached_property
    def all_values(self) -> dict[str, npt.NDArray[np.float64]]:
        """`<reading>/<measure>` → [N]."""
        return {name: own.numpy() for name, own in read_tensors(self.folder / "values.safetensors").items()}

    def measures(self, reading: str) -> Sequence[str]:
        """The measures that a reading has."""
        return list(self.readings[reading]["measures"])

    def values(self, reading: str, measure: str) -> npt.NDArray[np.float64]:
        """[N]: one value a picture, in the evaluation set's order.

        Raises: RecipeError for a reading or a measure that the run does not have.
        """
        key = f"{reading}/{measure}"
        if key not in self.all_values:
            known = ", ".join(sorted(self.all_values)) or "none"
            raise RecipeError(f"{self.folder} has no {measure!r} under the reading {reading!r}; it has: {known}.")
        return self.all_values[key]
