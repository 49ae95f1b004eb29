"""What a run found: one JSON summary, and each picture's answer for paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gen2real.errors import RecipeError
from gen2real.files import read_json, read_tensors, write_json, write_tensors


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder with its `result.json`, whatever it was judged by."""

    folder: Path
    summary: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The result of a finished run. Raises: RecipeError where the run has not ended."""
        path = folder / "result.json"
        if not path.exists():
            raise RecipeError(f"{folder} holds no result.json: the run has not ended. Run its recipe again.")
        return cls(folder, read_json(path))

    @property
    def readings(self) -> dict[str, Any]:
        """Name → what was found: of a classifier {alpha, generated, real}, else {meaning, measures, details}."""
        return dict(self.summary["readings"])

    def plane(self) -> dict[str, Tensor]:
        """Features on a plane that all of these share: `generated.<end>`, `real.<end>` [n 2], end: zero_shot, tuned.

        `generated.rows`, `real.rows`: which pictures, in the order of the sets. `explained` [2]: shares of the
        variance. Empty where there were no real pictures. No end `tuned` where no image tower was trained.
        """
        path = self.folder / "map.safetensors"
        return read_tensors(path) if path.exists() else {}


@dataclass(frozen=True)
class Result(FinishedRun):
    """A classifier's finished run. Readings are named ways to use the one training that was done.

    zero_shot, tuned           alpha 0 and 1
    blend                      the fixed alpha of the recipe
    blend_generated            alpha chosen on held-out generated pictures
    output_ensemble            logits of zero_shot and tuned mixed with the fixed alpha, weights left apart
    oracle                     the alpha that is best on the real labels: a bound, never a result
    transductive_…             the same with statistics of the unlabelled real pictures
    alpha=0.3                  any alpha of the sweep; in `answers` and `correct` only
    """

    @classmethod
    def write(
        cls,
        folder: Path,
        summary: Mapping[str, Any],
        answers: Mapping[str, Tensor],
        changed: Mapping[str, Tensor],
        plane: Mapping[str, Tensor],
    ) -> Result:
        """Writes `answers`, `tuned` and `map.safetensors` and, last, `result.json`: with it the run has ended."""
        write_tensors(folder / "answers.safetensors", answers)
        write_tensors(folder / "tuned.safetensors", changed)
        if plane:
            write_tensors(folder / "map.safetensors", plane)
        write_json(folder / "result.json", summary)
        return cls.read(folder)

    @cached_property
    def answers(self) -> dict[str, Tensor]:
        """`real.<reading>`, `generated.<reading>`: [N K] class indices, best first; `real`, `generated`: labels [N]."""
        return read_tensors(self.folder / "answers.safetensors")

    def changed_weights(self) -> dict[str, Tensor]:
        """The tuned classifier's entries that differ from the zero-shot one's."""
        return read_tensors(self.folder / "tuned.safetensors")

    def correct(self, reading: str, on: str = "real") -> npt.NDArray[np.bool_]:
        """Bool [N]: whether each picture's first answer is its label, in the set's order.

        Raises: RecipeError for a reading the run does not have.
        """
        key = f"{on}.{reading}"
        if key not in self.answers:
            known = sorted(name.removeprefix(f"{on}.") for name in self.answers if name.startswith(f"{on}."))
            raise RecipeError(
                f"{self.folder} has no reading {reading!r} on {on} pictures; it has: {', '.join(known) or 'none'}."
            )
        return (self.answers[key][:, 0] == self.answers[on]).numpy()


def best_answers(logits: Tensor, k: int = 5) -> Tensor:
    """[N min(K, C)] int32 class indices, best first; equal logits rank by class index."""
    order = torch.argsort(logits, dim=1, descending=True, stable=True)
    return order[:, :k].to(torch.int32).contiguous()
