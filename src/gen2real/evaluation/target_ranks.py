"""Searches for one thing each among pictures: at which rank it is found, and what was found instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import ModelError
from gen2real.evaluation.retrieval import RECALLS_AT, TIE
from gen2real.files import sha256_of

# Scores that are held at once: 64 MiB.
_CELLS = 1 << 24


@dataclass(frozen=True, eq=False)
class Search:
    """What Q queries found.

    ranks: int64 [Q], of each one's target; 1 is first. Ties count against the model. gallery: int64 [Q], among how
    many. first: int64 [Q], the gallery's row that was found first.
    """

    ranks: npt.NDArray[np.int64]
    gallery: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]

    def recalls(self, before: str = "") -> dict[str, npt.NDArray[np.float64]]:
        """`<before>_recall@k` → [Q], 1 where the target is among the first k."""
        names = {k: f"{before}_recall@{k}" if before else f"recall@{k}" for k in RECALLS_AT}
        return {name: (self.ranks <= k).astype(np.float64) for k, name in names.items()}

    def told(self) -> dict[str, Any]:
        """What is no mean, and what chance alone would find."""
        chance = {f"recall@{k}": float(np.minimum(1.0, k / self.gallery).mean()) for k in RECALLS_AT}
        return {"median_rank": float(np.median(self.ranks)), "gallery": float(self.gallery.mean()), "chance": chance}


def search(
    queries: Float[Tensor, "q d"],
    gallery: Float[Tensor, "g d"],
    targets: Sequence[int],
    *,
    without: Sequence[Sequence[int]] | None = None,
) -> Search:
    """Ranks of Q targets among G gallery entries, by cosine.

    A rank counts what scores above the target or as high (within `TIE`), so a model that gives one vector for
    everything finds nothing.

    Args:
        targets: each query's row of the gallery.
        without: for each query, rows of the gallery that it does not search; its target is never left out.

    Raises: ModelError for features that are not finite.
    """
    for name, features in (("queries", queries), ("pictures", gallery)):
        if not bool(torch.isfinite(features).all()):
            raise ModelError(f"embeddings of {name} hold NaN or infinity; the model's weights are broken.")
    asked, places = normalize(queries.detach().float(), dim=1), normalize(gallery.detach().float(), dim=1)
    hidden: Sequence[Sequence[int]] = without if without is not None else [()] * len(asked)
    left_out = [sorted(set(rows) - {target}) for rows, target in zip(hidden, targets, strict=True)]
    ranks: list[Tensor] = []
    first: list[Tensor] = []
    block = max(1, _CELLS // len(places))
    for start in range(0, len(asked), block):
        scores = asked[start : start + block] @ places.T
        for row, rows in enumerate(left_out[start : start + block]):
            scores[row, rows] = -torch.inf
        own = torch.as_tensor(targets[start : start + block], device=scores.device)[:, None]
        first.append(scores.argmax(dim=1).cpu())
        above = scores >= scores.gather(1, own) - TIE
        # The target itself is as high as the bar, so the count starts at 1.
        ranks.append(above.sum(dim=1).cpu())
    searched = len(places) - np.array([len(rows) for rows in left_out], dtype=np.int64)
    return Search(torch.cat(ranks).numpy(), searched, torch.cat(first).numpy())


@dataclass(frozen=True)
class Gallery:
    """Pictures that differ in content, in the order in which they came first. rows: file → its row."""

    pictures: tuple[Path, ...]
    rows: Mapping[Path, int]

    @classmethod
    def of(cls, pictures: Sequence[Path]) -> Gallery:
        """Each content once, byte for byte: a copy under another name would be an error of its original."""
        files = list(dict.fromkeys(pictures))
        contents = [sha256_of(file) for file in files]
        kept = {content: place for place, content in reversed(list(enumerate(contents)))}
        places = {place: row for row, place in enumerate(sorted(kept.values()))}
        return cls(
            tuple(files[place] for place in places),
            {file: places[kept[content]] for file, content in zip(files, contents, strict=True)},
        )
