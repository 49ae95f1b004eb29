"""The dynamic program over alignments that the global alignment kernel and soft-DTW share, and their number.

An alignment of n places with m is a way from (1, 1) to (n, m) in steps (1, 0), (0, 1), (1, 1). A cell of the program
needs its left, upper and upper left neighbours, so one anti-diagonal's cells are computed at once, for many pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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


def portions(table: Float[Tensor, "p n m"], lengths: Int[Tensor, "p 2"]) -> Iterator[tuple[Tensor, Tensor]]:
    """Some pairs at a time, so that many long ones need no more memory than their own tables."""
    # On a CPU few enough for its cache, and so many that a diagonal is work enough for one operation.
    cells = 1 << 19 if table.device.type == "cpu" else 1 << 26
    pairs = max(1, cells // max(1, table.shape[1] * table.shape[2]))
    yield from zip(table.split(pairs), lengths.split(pairs), strict=True)


def side_by_side(table: Float[Tensor, "p n m"]) -> Float[Tensor, "n m p"]:
    """The pairs side by side in memory, so that an operation on a diagonal goes over rows of them."""
    _, n, m = table.shape
    beside = table.permute(1, 2, 0)
    # As a matrix: torch transposes those in blocks, three times as fast as tables.
    return beside if beside.stride(2) == 1 else table.flatten(1).t().contiguous().view(n, m, -1)


def last_places(lengths: Int[Tensor, "p 2"]) -> tuple[Tensor, Tensor, Tensor]:
    """Indices of each pair's last cell in a table [N M P]."""
    return lengths[:, 0] - 1, lengths[:, 1] - 1, torch.arange(len(lengths), device=lengths.device)


class Sums:
    """Sums, over the alignments that end in a cell, of the product of the cells' factors along the alignment.

    `cells` [N M P] takes the factors, and holds the sums after `accumulate`; logarithms of both with `in_logs`. A cell
    has no part in those before it: what lies beyond a pair's lengths may be anything.
    """

    def __init__(self, n: int, m: int, pairs: int, like: Tensor, *, in_logs: bool) -> None:
        # Before the first places there is nothing, but the one cell from which every alignment comes.
        nothing, start = (-math.inf, 0) if in_logs else (0, 1)
        table = like.new_empty(n + 1, m + 1, pairs)
        table[0] = nothing
        table[:, 0] = nothing
        table[0, 0] = start
        self.cells = table[1:, 1:]
        self._before = table[1:, :-1], table[:-1, 1:], table[:-1, :-1]
        self._in_logs = in_logs

    def accumulate(self) -> None:
        """F_ij = factor_ij · (F_left + F_up + F_corner), for all cells."""
        # It saves a quarter of the time of small operations, and thousands of them are all there is.
        with torch.inference_mode():
            diagonals = zip(*(anti_diagonals(table) for table in (self.cells, *self._before)), strict=True)
            for own, left, up, corner in diagonals:
                if self._in_logs:
                    before = torch.logaddexp(left, up)
                    own.add_(torch.logaddexp(before, corner, out=before))
                else:
                    own.mul_(torch.add(left, up).add_(corner))


def anti_diagonals(table: Float[Tensor, "n m p"]) -> list[Tensor]:
    """Views [k P] of the table's cells (i, d − i) in order of i, for d = 0 … n + m − 2."""
    n, m, pairs = table.shape
    row, column, own = table.stride()
    begin = table.storage_offset()
    # The first cells lie along the first row and then down the last column.
    turn = begin + (m - 1) * column
    starts = [*range(begin, turn, column), *range(turn, turn + n * row, row)]
    cells = [min(d + 1, n, m, n + m - 1 - d) for d in range(n + m - 1)]
    steps = (row - column, own)
    return [table.as_strided((k, pairs), steps, start) for k, start in zip(cells, starts, strict=True)]


def countable(n: int, m: int, dtype: torch.dtype, *, least: float = 0.0, largest: float = 0.0) -> bool:
    """Whether `dtype` holds Σ_π exp(−Σ C), over the alignments up to any cell, for costs from `least` to `largest`.

    With costs of 0 that is the number of alignments.
    """
    log_range = -math.log(torch.finfo(dtype).tiny)
    # D(n, m) < (1 + √2)^(n + m); an alignment has fewer than n + m cells, and the shortest has max(n, m).
    most = (n + m) * (math.log(1 + math.sqrt(2)) - min(least, 0.0))
    return most < log_range and max(n, m) * largest < log_range


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
