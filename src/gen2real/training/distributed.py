"""What several processes owe each other: whole batches for losses that compare pictures."""

from __future__ import annotations

import os
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    """Processes in this run; 1 where there is no process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's place; 0 in a run of one. Known before the processes have met, from what torchrun says."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ.get("RANK", "0"))


def share(items: list[T]) -> list[T]:
    """This process's contiguous part of a batch that all processes know. Parts differ by one item at most."""
    count, place = world_size(), rank()
    return items[len(items) * place // count : len(items) * (place + 1) // count]


class _Gather(torch.autograd.Function):
    """All rows of all processes, in rank order; the gradient of every process's loss flows back to the rows' owner."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor) -> Tensor:
        counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(world_size())]
        dist.all_gather(counts, torch.tensor([len(rows)], dtype=torch.long, device=rows.device))
        sizes = [int(count) for count in counts]
        # All parts travel at one size, the largest; the fill is cut off again.
        padded = torch.zeros(max(sizes), *rows.shape[1:], dtype=rows.dtype, device=rows.device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        ctx.sizes = sizes  # type: ignore[attr-defined]
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        sizes: list[int] = ctx.sizes  # type: ignore[attr-defined]
        start = sum(sizes[: rank()])
        return total[start : start + sizes[rank()]]


def gather(rows: Tensor) -> Tensor:
    """[n …] of this process → [N …] of all, in rank order, with gradient. Without a process group: `rows` itself.

    Each process then computes the same loss on the whole batch. DistributedDataParallel averages the parameters'
    gradients over processes, which undoes the sum that this function's backward makes: the update equals one process's.
    """
    return rows if world_size() == 1 else _Gather.apply(rows)


def wait_for_all() -> None:
    """Returns when every process has come here; at once where there is no process group."""
    if world_size() > 1:
        dist.barrier()
