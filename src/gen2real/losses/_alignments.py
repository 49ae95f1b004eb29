"""What the dynamic programs over alignments share: their pairs' lengths, their tables, the number of alignments.

An alignment of n places with m is a way from (1, 1) to (n, m) in steps (1, 0), (0, 1), (1, 1). A cell of such a program
needs its left, upper and upper left neighbours, so one anti-diagonal's cells are computed at once, for many pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def check_lengths(name: str, table: Float[Tensor, "p n m"], lengths: Tensor) -> None:
    """ValueError for lengths that are below 1 or beyond the table, or not one (n, m) a pair."""
    if lengths.shape != (len(table), 2):
        raise ValueError(
            f"lengths has shape {list(lengths.shape)} and {name} {list(table.shape)}; expected one (n, m) a pair, "
            f"[{len(table)}, 2]"
        )
    if len(table) == 0:
        return
    full = list(table.shape[1:])
    shortest, longest = lengths.amin(dim=0).tolist(), lengths.amax(dim=0).tolist()
    if min(shortest) < 1 or longest[0] > full[0] or longest[1] > full[1]:
        raise ValueError(
            f"lengths go from {shortest} to {longest}; expected 1 at least and {full} at most, as {name} has shape "
            f"{list(table.shape)}"
        )


def portions(table: Float[Tensor, "p n m"], lengths: Int[Tensor, "p 2"], cells: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Some pairs at a time: on a CPU as many as have `cells` cells, which a core's cache should hold."""
    if table.device.type != "cpu":
        cells = 1 << 26
    pairs = max(1, cells // max(1, table.shape[1] * table.shape[2]))
    yield from zip(table.split(pairs), lengths.split(pairs), strict=True)


def last_places(lengths: Int[Tensor, "p 2"]) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of each pair's last cell in a table [N M P]."""
    return lengths[:, 0] - 1, lengths[:, 1] - 1, torch.arange(len(lengths), device=lengths.device)


def within(lengths: Int[Tensor, "p 2"], n: int, m: int) -> Bool[Tensor, "n m p"]:
    """Which cells of a table [N M P] are within the lengths."""
    rows = torch.arange(n, device=lengths.device)[:, None] < lengths[:, 0]
    columns = torch.arange(m, device=lengths.device)[:, None] < lengths[:, 1]
    return rows[:, None] & columns[None]


class Table:
    """A table [N + 1, M + 1, P] that begins before the first places, and views of it [N M P].

    `own` are the places' cells; `left`, `up` and `corner` the neighbours from which a step leads to them. Its border
    holds `border`, but for the corner, `start`, from which all alignments come.
    """

    def __init__(self, like: Float[Tensor, "n m p"], *, border: float | int, start: float | int) -> None:
        n, m, pairs = like.shape
        table = like.new_empty(n + 1, m + 1, pairs)
        table[0] = border
        table[:, 0] = border
        table[0, 0] = start
        self.own, self.left, self.up, self.corner = table[1:, 1:], table[1:, :-1], table[:-1, 1:], table[:-1, :-1]


def anti_diagonals(*tables: Float[Tensor, "n m p"]) -> list[tuple[Tensor, ...]]:
    """Each table's anti-diagonals for d = 0 … n + m − 2: views [k P] of its cells (i, d − i) in order of i."""
    return list(zip(*(_anti_diagonals(table) for table in tables), strict=True))


def _anti_diagonals(table: Tensor) -> list[Tensor]:
    n, m, pairs = table.shape
    row, column, own = table.stride()
    views = []
    for d in range(n + m - 1):
        first = max(0, d - m + 1)
        cells = min(d, n - 1) - first + 1
        start = table.storage_offset() + first * row + (d - first) * column
        views.append(table.as_strided((cells, pairs), (row - column, own), start))
    return views


def countable(n: int, m: int, dtype: torch.dtype) -> bool:
    """Whether the number of alignments of n places with m is within `dtype`'s range."""
    # D(n, m) < (1 + √2)^(n + m)
    return (n + m) * math.log(1 + math.sqrt(2)) < math.log(torch.finfo(dtype).max)


@lru_cache(maxsize=8)
def alignments(n: int, m: int) -> Float[Tensor, "n m"]:
    """The number of alignments of i places with j, i = 1 … n, j = 1 … m: Delannoy numbers, in float64.

    1, 3, 13, 63, 321 for i = j = 1 … 5.
    """
    rows = [torch.ones(m, dtype=torch.float64)]
    for _ in range(n - 1):
        # D(i, j) = D(i, j − 1) + [D(i − 1, j) + D(i − 1, j − 1)]: a running sum
        rows.append((rows[-1] + F.pad(rows[-1][:-1], (1, 0))).cumsum(dim=0))
    return torch.stack(rows)


@lru_cache(maxsize=8)
def log_alignments(n: int, m: int) -> Float[Tensor, "n m"]:
    """The logarithm of `alignments`, for any n and m."""
    rows = [torch.zeros(m, dtype=torch.float64)]
    for _ in range(n - 1):
        beside = F.pad(rows[-1][:-1], (1, 0), value=-math.inf)
        rows.append(torch.logaddexp(rows[-1], beside).logcumsumexp(dim=0))
    return torch.stack(rows)
