"""What is most like a query among many embeddings: exact search by inner product, with faiss where it is installed.

Whoever searches, the answer is the same: candidates are scored again in float64, and equal scores are in the order of
the items. (`pip install "gen2real[faiss]"` makes searches among hundreds of thousands about twice as fast.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gen2real.errors import ModelError

T = TypeVar("T")
# Inner products of unit vectors in float32 are off by less than half of this.
ROUNDING = 1e-5
# Scores that are held at once: 64 MiB.
_CELLS = 1 << 24


@dataclass(frozen=True)
class Found(Generic[T]):
    """What a search found. score: its inner product with the query; the cosine where both have unit length."""

    item: T
    score: float


class Index(Generic[T]):
    """Items that are searched by their embeddings, exactly.

    Args:
        embeddings: [N D], unit length, finite. items: N of them.
        by: what searches; auto: faiss where it is installed.

    Raises: ModelError for other numbers of embeddings than of items, none at all, values that are not finite, and for
        faiss where it is missing.
    """

    def __init__(
        self, embeddings: Tensor, items: Sequence[T], *, by: Literal["auto", "torch", "faiss"] = "auto"
    ) -> None:
        if embeddings.ndim != 2 or len(embeddings) != len(items) or not len(items):
            raise ModelError(f"an index of {len(items)} items needs as many embeddings; got {list(embeddings.shape)}.")
        self.items = list(items)
        self._rows = _array(embeddings, "the index")
        there = find_spec("faiss") is not None
        if by == "faiss" and not there:
            raise ModelError('faiss is not installed; type: pip install "gen2real[faiss]", or leave it to torch.')
        self._faiss: Any = _flat(self._rows) if by != "torch" and there else None

    def __len__(self) -> int:
        return len(self.items)

    def search(self, queries: Tensor, count: int, *, threshold: float | None = None) -> list[list[Found[T]]]:
        """The `count` items most like each query, the most similar first.

        Args:
            queries: [Q D], unit length.
            threshold: items whose score is less are left out; None: none is.

        Raises: ModelError for another width than the index has, and values that are not finite.
        """
        if queries.ndim != 2 or queries.shape[1] != self._rows.shape[1]:
            raise ModelError(
                f"queries have the shape {list(queries.shape)}; this index holds embeddings of width "
                f"{self._rows.shape[1]}. Both must be made by one model."
            )
        count = min(count, len(self))
        asked = _array(queries, "the queries")
        if count < 1 or not len(asked):
            return [[] for _ in asked]
        told = []
        for query, candidates in zip(asked, self._candidates(asked, count), strict=True):
            # Row by row: a matrix product rounds equal rows unequally, by where they stand.
            scores = (self._rows[candidates].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
            best = np.lexsort((candidates, -scores))[:count]
            told.append(
                [
                    Found(self.items[candidates[place]], float(scores[place]))
                    for place in best
                    if threshold is None or scores[place] >= threshold
                ]
            )
        return told

    def _candidates(self, asked: npt.NDArray[np.float32], count: int) -> list[npt.NDArray[np.int64]]:
        """For each query, rows of the index with the `count` best among them, whatever float32 rounds."""
        if count == len(self):
            return [np.arange(count)] * len(asked)
        # One more than asked for: where it is clearly worse than the last, no other belongs among them.
        scores, rows = self._nearest(asked, count + 1)
        found: list[npt.NDArray[np.int64]] = [row[:count] for row in rows]
        for place in np.flatnonzero(scores[:, count - 1] - scores[:, count] <= ROUNDING):
            found[place] = np.flatnonzero(self._rows @ asked[place] >= scores[place, count - 1] - ROUNDING)
        return found

    def _nearest(
        self, asked: npt.NDArray[np.float32], count: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Scores and rows [Q count], the best first, as float32 has them."""
        if self._faiss is not None:
            scores, rows = self._faiss.search(asked, count)
            return scores, rows.astype(np.int64)
        block = max(1, _CELLS // len(self))
        every = torch.from_numpy(self._rows).T
        parts = [
            (torch.from_numpy(asked[start : start + block]) @ every).topk(count)
            for start in range(0, len(asked), block)
        ]
        return torch.cat([one.values for one in parts]).numpy(), torch.cat([one.indices for one in parts]).numpy()


def _flat(rows: npt.NDArray[np.float32]) -> Any:
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index


def _array(embeddings: Tensor, what: str) -> npt.NDArray[np.float32]:
    if not bool(torch.isfinite(embeddings).all()):
        raise ModelError(f"embeddings of {what} hold NaN or infinity; the model's weights or its precision are broken.")
    return np.ascontiguousarray(embeddings.detach().cpu().float().numpy())
