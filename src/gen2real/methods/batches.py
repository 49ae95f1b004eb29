"""Batches by update number, from one or several sources; what a row is, and what goes with it, is the method's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from gen2real.imagesets.loading import Pictures, prefetch
from gen2real.imagesets.sampling import EpochSampler
from gen2real.imagesets.seeds import row_generator
from gen2real.training.distributed import share
from gen2real.training.trainer import Part

B = TypeVar("B", bound=Part)


R = TypeVar("R")


class RowBatches(ABC, Generic[R, B]):
    """The rows of an update, cut into accumulation parts. A row is drawn by its place in the whole batch alone, so
    neither the number of processes nor that of parts changes what is learnt."""

    def __init__(self, sampler: EpochSampler, *, seed: int, parts: int, workers: int) -> None:
        self._sampler, self._seed = sampler, seed
        self._parts, self._workers = parts, workers

    def __call__(self, numbers: range) -> Iterator[tuple[B, ...]]:
        return prefetch(self._make, numbers, workers=self._workers)

    @abstractmethod
    def _row(self, number: int, place: int, source: int, index: int) -> R:
        """What the update's row at `place` is: element `index` of a source."""

    @abstractmethod
    def _part(self, rows: list[R], whole: list[R]) -> B:
        """One process's part. rows: of this part on all processes. whole: of the whole update."""

    def _make(self, number: int) -> tuple[B, ...]:
        drawn = enumerate(self._sampler.batch(number))
        whole = [self._row(number, place, source, index) for place, (source, index) in drawn]
        size = -(-len(whole) // self._parts)
        return tuple(self._part(whole[i : i + size], whole) for i in range(0, len(whole), size))


@dataclass(frozen=True)
class PictureRow:
    """A row of `SourceBatches`: the picture `index` of a source, at `place` of the update `number`."""

    number: int
    place: int
    source: int
    index: int


class SourceBatches(RowBatches[PictureRow, B]):
    """Augmented pictures: each row's random numbers are seeded by its place in the whole batch."""

    def __init__(
        self, pictures: Sequence[Pictures], sampler: EpochSampler, *, seed: int, parts: int, workers: int
    ) -> None:
        super().__init__(sampler, seed=seed, parts=parts, workers=workers)
        self._pictures = pictures

    @abstractmethod
    def _batch(
        self, pixels: Tensor, own: Sequence[tuple[int, int]], generators: Sequence[torch.Generator], rows: int
    ) -> B:
        """One process's part.

        Args:
            pixels: uint8 [n 3 S S], or one picture all the same where the process has no row: models run on it.
            own: (source, index) of its n rows. generators: one a row, to draw from. rows: of all processes.
        """

    def _row(self, number: int, place: int, source: int, index: int) -> PictureRow:
        return PictureRow(number, place, source, index)

    def _part(self, rows: list[PictureRow], whole: list[PictureRow]) -> B:
        own = share(rows)
        seen = own or rows[:1]
        generators = [row_generator(self._seed, row.number, row.place) for row in seen]
        pixels = [
            self._pictures[row.source].training([row.index], generator)
            for generator, row in zip(generators, seen, strict=True)
        ]
        drawn = [(row.source, row.index) for row in own]
        return self._batch(torch.cat(pixels), drawn, generators[: len(own)], len(rows))


@dataclass(frozen=True)
class TextShare:
    """What a part of a batch of texts says of its size, so that a loss is the mean over the whole update's tokens.

    own: how many rows count here: a process without rows holds one all the same, as models run on all of them. rows: of
    this part on all processes; all_rows: of the whole update.
    """

    own: int
    rows: int
    all_rows: int

    def token_mean(self, sums: Tensor, all_tokens: int | Tensor) -> Tensor:
        """The mean over the update's tokens, as far as this part goes: the trainer weighs it by rows / all_rows.

        Args:
            sums: over the tokens of each row, of every process. all_tokens: those learnt in the whole update.
        """
        return sums.sum() / all_tokens * (self.all_rows / self.rows)
