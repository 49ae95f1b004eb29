"""Which of many things are near each other? Exact searches on hashes and on features, and what hangs together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

Index = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint64]
CANDIDATES = 2_000_000
ROUNDING = 1e-6


class Pairs(NamedTuple):
    """Near pairs: `first` and `second` are int64 [P], row numbers; `value` [P] is their Hamming distance or cosine."""

    first: Index
    second: Index
    value: npt.NDArray[Any]


def hamming_pairs(first: Codes, second: Codes | None = None, *, radius: int) -> Iterator[Pairs]:
    """Every pair of 64-bit codes that differ in at most `radius` bits, each once, block after block.

    first: uint64 [N]. second: uint64 [M]; None: pairs (i, j), i < j, within `first`.

    Exact. The bits are cut into radius + 1 bands; two codes within the radius agree in one band at least (there are
    more bands than differing bits), so only codes that share a band's value are compared: about (radius + 1)·N·M /
    2^(64 / (radius + 1)) comparisons where codes are spread evenly (Manku, Jain and Das Sarma 2007 call it tables).
    Equal codes are all compared with each other: give `numpy.unique` of them where there are many.

    Raises: ValueError for a radius outside 0…32.
    """
    if not 0 <= radius <= 32:
        raise ValueError(f"radius counts bits of 64 that may differ; expected 0…32, got {radius}")
    other = first if second is None else second
    edges = np.linspace(0, 64, radius + 2).round().astype(int)
    bands = [_band(low, high) for low, high in pairwise(edges.tolist())]
    for number, band in enumerate(bands):
        key, other_key = first & band, other & band
        order = np.argsort(other_key, kind="stable")
        ordered = other_key[order]
        low = np.searchsorted(ordered, key, side="left")
        count = np.searchsorted(ordered, key, side="right") - low
        for rows in _chunks(count):
            i = np.repeat(rows, count[rows])
            before = np.cumsum(count[rows]) - count[rows]
            j = order[np.arange(len(i)) + np.repeat(low[rows] - before, count[rows])]
            if second is None:
                i, j = i[i < j], j[i < j]
            differing = first[i] ^ other[j]
            distance = np.bitwise_count(differing).astype(np.int64)
            near = distance <= radius
            # A pair that agrees in several bands belongs to the first of them.
            for earlier in bands[:number]:
                near &= (differing & earlier) != 0
            if near.any():
                yield Pairs(i[near], j[near], distance[near])


def cosine_pairs(
    features: Tensor, threshold: float, *, groups: Index | None = None, block: int = 1024
) -> Iterator[Pairs]:
    """Every pair (i, j), i < j, of rows of `features` [N D] whose cosine is at least `threshold`, block after block.

    groups: int64 [N]; only rows of one group are compared. block: rows compared with all others at a time, which
        bounds the memory at block · N cosines. Exact up to float32: a cosine a millionth below the threshold counts.
    """
    unit = normalize(features.detach().float(), dim=-1)
    groups = np.zeros(len(unit), dtype=np.int64) if groups is None else groups
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=groups[order][:1] - 1))
    for members in np.split(order, starts[1:]):
        rows = unit[torch.from_numpy(members)]
        for start in range(0, len(rows), block):
            cosine = rows[start : start + block] @ rows[start:].T
            near = torch.triu(cosine >= threshold - ROUNDING, diagonal=1).nonzero()
            if len(near):
                i, j = near[:, 0].numpy(), near[:, 1].numpy()
                value = cosine[near[:, 0], near[:, 1]].numpy().astype(np.float64)
                yield Pairs(members[start + i], members[start + j], value)


def nearest_cosine(queries: Tensor, references: Tensor, *, block: int = 1024) -> tuple[Index, npt.NDArray[np.float64]]:
    """For each row of `queries` [N D]: which row of `references` [M D] has the highest cosine (the first of equals),
    int64 [N], and that cosine, float64 [N]. Exact, `block` rows at a time.

    Raises: ValueError where there are no references.
    """
    if not len(references):
        raise ValueError("there are no references to be near to")
    unit, others = normalize(queries.detach().float(), dim=-1), normalize(references.detach().float(), dim=-1)
    index, value = np.zeros(len(unit), dtype=np.int64), np.zeros(len(unit), dtype=np.float64)
    for start in range(0, len(unit), block):
        cosine = unit[start : start + block] @ others.T
        best = cosine.argmax(dim=1)
        index[start : start + block] = best.numpy()
        value[start : start + block] = cosine.gather(1, best[:, None])[:, 0].numpy()
    return index, value


def connected(count: int, pairs: Iterable[tuple[Index, Index]]) -> Index:
    """Int64 [count]: for each of `count` things the smallest number of those it hangs together with, itself included.

    pairs: blocks of (first, second), int64 arrays of equal length; a pair joins what both of it hang together with.
    Union-find on whole arrays: each root is hooked onto the smallest root it meets, then paths are halved.
    """
    root = np.arange(count, dtype=np.int64)
    for first, second in pairs:
        while True:
            one, other = root[first], root[second]
            if (one == other).all():
                break
            np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
            while not np.array_equal(shorter := root[root], root):
                root = shorter
    return root


def _band(low: int, high: int) -> np.uint64:
    return np.uint64(((1 << (high - low)) - 1) << low)


def _chunks(count: Index) -> Iterator[Index]:
    """Row numbers in runs of at most CANDIDATES comparisons, or of one row."""
    total = np.cumsum(count)
    start = 0
    while start < len(count):
        before = total[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(total, before + CANDIDATES, side="right")))
        if total[end - 1] > before:
            yield np.arange(start, end)
        start = end
