"""Augmented pictures by update number, from one or several sources; what goes with a picture is the method's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from gen2real.imagesets.loading import Pictures, prefetch
from gen2real.imagesets.sampling import EpochSampler
from gen2real.imagesets.seeds import row_generator
from gen2real.training.distributed import share
from gen2real.training.trainer import Part

B = TypeVar("B", bound=Part)


class SourceBatches(ABC, Generic[B]):
    """Each row's random numbers are seeded by its place in the whole batch, so neither the number of processes nor that
    of accumulation steps changes what is seen."""

    def __init__(
        self, pictures: Sequence[Pictures], sampler: EpochSampler, *, seed: int, parts: int, workers: int
    ) -> None:
        self._pictures, self._sampler = pictures, sampler
        self._seed, self._parts, self._workers = seed, parts, workers

    def __call__(self, numbers: range) -> Iterator[tuple[B, ...]]:
        return prefetch(self._make, numbers, workers=self._workers)

    @abstractmethod
    def _batch(
        self, pixels: Tensor, own: Sequence[tuple[int, int]], generators: Sequence[torch.Generator], rows: int
    ) -> B:
        """One process's part.

        Args:
            pixels: uint8 [n 3 S S], or one picture all the same where the process has no row: models run on it.
            own: (source, index) of its n rows. generators: one a row, to draw from. rows: of all processes.
        """

    def _make(self, number: int) -> tuple[B, ...]:
        rows = list(enumerate(self._sampler.batch(number)))
        size = -(-len(rows) // self._parts)
        return tuple(self._part(number, rows[i : i + size]) for i in range(0, len(rows), size))

    def _part(self, number: int, rows: list[tuple[int, tuple[int, int]]]) -> B:
        own = share(rows)
        generators = [row_generator(self._seed, number, place) for place, _ in own or rows[:1]]
        pixels = [
            self._pictures[source].training([index], generator)
            for generator, (_, (source, index)) in zip(generators, own or rows[:1], strict=True)
        ]
        return self._batch(torch.cat(pixels), [row for _, row in own], generators[: len(own)], len(rows))
