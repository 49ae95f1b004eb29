"""Which pictures make up which batch: a pure function of seed and step, so that resuming needs no state."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gen2real.errors import ImageSetError

Integers = npt.NDArray[np.int64]


class EpochSampler:
    """Batches of (source, index) from one or several sources.

    sizes: rows in each source.
    weights: None, and an epoch is every row of every source once in random order, the last batch shorter unless
        drop_last. Given, an epoch is as many draws as there are rows, each from a source drawn with these weights; in
        a source no row comes again before all of them came, also across epochs.
    labels: for each source its rows' classes (integers that mean the same in all sources, −1: none). Given, an
        epoch's draws are dealt out so that no batch holds two rows of one class: exactly, wherever a class has fewer
        draws in the epoch than there are batches, and as evenly as possible otherwise.

    Threads may ask at once. One epoch's order is kept: 8 bytes a row.
    Raises: ImageSetError for arguments that leave nothing to draw.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float] | None = None,
        batch_size: int = 128,
        seed: int = 0,
        drop_last: bool = False,
        *,
        labels: Sequence[Sequence[int] | npt.NDArray[np.integer[Any]]] | None = None,
    ) -> None:
        self.sizes = tuple(int(size) for size in sizes)
        self.weights = None if weights is None else tuple(float(weight) for weight in weights)
        self.batch_size, self.seed, self.drop_last = batch_size, seed, drop_last
        _check(self.sizes, self.weights, batch_size, seed, drop_last)
        self._classes = None if labels is None else _class_ids(labels, self.sizes)
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        self._lock = threading.Lock()
        self._epoch = -1
        self._order: Integers = np.empty(0, np.int64)
        self._drawn_before: list[Integers] = [np.zeros(len(self.sizes), np.int64)]

    @property
    def draws_per_epoch(self) -> int:
        """Rows in an epoch; with drop_last a multiple of the batch size."""
        total = sum(self.sizes)
        return total - total % self.batch_size if self.drop_last else total

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return -(-self.draws_per_epoch // self.batch_size)

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to, from 0."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> list[tuple[int, int]]:
        """(source, index in the source) of each row of the batch at `step`, counted from 0 over all epochs.

        Raises: ImageSetError for a negative step.
        """
        if step < 0:
            raise ImageSetError(f"a step is 0 or more; got {step}.")
        epoch, place = divmod(step, self.steps_per_epoch)
        rows = self._order_of(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        sources = np.searchsorted(self._starts, rows, side="right") - 1
        return list(zip(sources.tolist(), (rows - self._starts[sources]).tolist(), strict=True))

    def _order_of(self, epoch: int) -> Integers:
        with self._lock:
            if epoch != self._epoch:
                order = self._everything(epoch) if self.weights is None else self._drawn(epoch)
                order = order[: self.draws_per_epoch]
                if self._classes is not None:
                    random = np.random.default_rng([self.seed, epoch, 2])
                    order = order[_deal(self._classes[order], self.batch_size, random)]
                self._order, self._epoch = order, epoch
            return self._order

    def _everything(self, epoch: int) -> Integers:
        return np.random.default_rng([self.seed, epoch]).permutation(int(self._starts[-1])).astype(np.int64)

    def _drawn(self, epoch: int) -> Integers:
        counts = self._counts(epoch)
        # How far each source has been drawn from in earlier epochs: a short sum, and never a stored position.
        while len(self._drawn_before) <= epoch:
            self._drawn_before.append(self._drawn_before[-1] + self._counts(len(self._drawn_before) - 1))
        before = self._drawn_before[epoch]
        sources = np.repeat(np.arange(len(self.sizes)), counts)
        np.random.default_rng([self.seed, epoch, 1]).shuffle(sources)
        order = np.empty(len(sources), np.int64)
        for source, size in enumerate(self.sizes):
            if counts[source]:
                rows = _passes(self.seed, source, size, int(before[source]), int(counts[source]))
                order[sources == source] = rows + self._starts[source]
        return order

    def _counts(self, epoch: int) -> Integers:
        assert self.weights is not None
        shares = np.asarray(self.weights) / sum(self.weights)
        random = np.random.default_rng([self.seed, epoch, 0])
        return random.multinomial(self.draws_per_epoch, shares).astype(np.int64)


def nested_rows(count: int, most: int, seed: int) -> Integers:
    """Int64, ascending: `most` of the rows 0 … count − 1 by chance, or all. A larger number's contain a smaller's."""
    return np.sort(np.random.default_rng([seed, count]).permutation(count)[:most]).astype(np.int64)


def _passes(seed: int, source: int, size: int, first: int, count: int) -> Integers:
    """Draws number first … first + count − 1 from a source, where every `size` draws are one shuffled pass."""
    first_pass, last_pass = first // size, (first + count - 1) // size
    passes = np.arange(first_pass, last_pass + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        key = _mixed(_mixed(np.uint64(seed % 2**64) + np.uint64(source) * _ODD) + passes * _ODD)
        rank = _mixed(key[:, None] + np.arange(size, dtype=np.uint64)[None, :] * _ODD)
    rows = np.argsort(rank, axis=1, kind="stable").reshape(-1)
    start = first - first_pass * size
    return rows[start : start + count].astype(np.int64)


_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mixed(value: Any) -> Any:
    """SplitMix64's mixer: random-looking 64 bits of a counter, so that any pass can be had without those before it."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _deal(classes: Integers, batch_size: int, random: np.random.Generator) -> Integers:
    """An order of the rows in which each `batch_size` of them have different classes, where that is possible.

    Rows are lined up class by class and dealt out in rounds, one row to every batch in a random order. A class is
    then a run of neighbours, and two of a run meet in a batch only where the run crosses into the next round; that
    round begins with batches that the run has not been to.
    """
    total = len(classes)
    batches = -(-total // batch_size)
    short = total - (batches - 1) * batch_size
    relabelled = random.permutation(int(classes.max()) + 1)[classes]
    line = np.argsort(relabelled, kind="stable")
    runs = relabelled[line]
    batch_of = np.empty(total, np.int64)
    place, before = 0, np.empty(0, np.int64)
    for turn in range(batch_size):
        dealt_to = random.permutation(batches if turn < short else batches - 1)
        if place and len(dealt_to) and runs[place] == runs[place - 1]:
            run = runs[place]
            behind = place - int(np.searchsorted(runs, run, side="left"))
            ahead = int(np.searchsorted(runs, run, side="right")) - place
            been = np.zeros(batches, dtype=bool)
            been[before[max(0, len(before) - behind) :]] = True
            fresh = np.flatnonzero(~been[dealt_to])[:ahead]
            dealt_to = np.concatenate([dealt_to[fresh], np.delete(dealt_to, fresh)])
        batch_of[place : place + len(dealt_to)] = dealt_to
        place, before = place + len(dealt_to), dealt_to
    return line[np.argsort(batch_of[:total], kind="stable")]


def _class_ids(labels: Sequence[Any], sizes: tuple[int, ...]) -> Integers:
    lengths = [len(part) for part in labels]
    if lengths != list(sizes):
        raise ImageSetError(f"labels need one class a row of each source: {list(sizes)} rows, {lengths} labels.")
    flat = np.concatenate([np.asarray(part, dtype=np.int64) for part in labels])
    lone = flat < 0
    flat[lone] = np.arange(lone.sum()) + flat.max(initial=0) + 1
    return np.unique(flat, return_inverse=True)[1].astype(np.int64)


def _check(
    sizes: tuple[int, ...], weights: tuple[float, ...] | None, batch_size: int, seed: int, drop_last: bool
) -> None:
    if batch_size < 1:
        raise ImageSetError(f"batch_size must be at least 1; got {batch_size}.")
    if seed < 0:
        raise ImageSetError(f"seed must be 0 or more; got {seed}.")
    if not sizes or min(sizes) < 0 or sum(sizes) == 0:
        raise ImageSetError(f"there is nothing to draw from: sizes {list(sizes)}. Give at least one source with rows.")
    if drop_last and sum(sizes) < batch_size:
        raise ImageSetError(
            f"drop_last leaves no batch: {sum(sizes)} rows are fewer than batch_size {batch_size}. "
            f"Use batch_size={sum(sizes)} or less, or drop_last=False."
        )
    if weights is None:
        return
    if len(weights) != len(sizes):
        raise ImageSetError(f"give one weight a source: {len(sizes)} sources, {len(weights)} weights.")
    if not all(np.isfinite(weights)) or min(weights) < 0 or sum(weights) == 0:
        raise ImageSetError(f"weights must be finite, 0 or more, and one of them above 0; got {list(weights)}.")
    empty = [source for source, size in enumerate(sizes) if size == 0 and weights[source] > 0]
    if empty:
        raise ImageSetError(f"source(s) {empty} have a weight but no rows. Set their weight to 0.")
