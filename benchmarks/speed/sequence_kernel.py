"""The global alignment kernel and soft-DTW: ours and tslearn's, on the same sequences, in one run.

    pip install tslearn
    taskset -c 0 python benchmarks/speed/sequence_kernel.py --out benchmarks/speed/results/sequence-kernel.json

Sequences of unit vectors in float64. The arms take turns; the least of the rounds is compared, by the clock and by the
process's CPU time, for other work on the machine only ever adds to either.

    kernel      all pairs of B sequences of L slices: features in, matrix of self-normalised kernels out.
                tslearn: `cdist_gak`. Ours: a matrix product, `global_alignment_kernel`, K / √(K K)
    recursion   the same without the distances, which are given: `global_alignment_kernel`; tslearn has no such door
    soft-dtw    P pairs of N × N: sequences in, loss and its gradient in one side out. tslearn: `SoftDTWLossPyTorch`
    soft-dtw of costs    the same from squared distances that are given, and times 30, beyond the range of exp:
                         tslearn's own autograd function under its loss

The kernels must be equal to 1e-10. tslearn's loss keeps its tables in float32, so losses are compared as that allows.
`--device cuda` puts ours on the GPU; tslearn's stays on the CPU.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KERNELS = [(64, 5), (256, 10)]
SOFT = [(32, 64), (128, 64), (32, 128)]
BLOCK = 32


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, writes the JSON."""
    options = _options(argv)
    # numba reads it at its import.
    os.environ["NUMBA_NUM_THREADS"] = str(options.threads)
    import torch
    from finetune import machine, save

    from gen2real.training.memory import keep_freed_memory

    torch.set_num_threads(options.threads)
    # Both arms live in this process, so tslearn's has it too.
    keep_freed_memory()
    command = " ".join(["python", "benchmarks/speed/sequence_kernel.py", *sys.argv[1:]])
    report: dict[str, Any] = {"machine": {**machine(options), "command": command, "tslearn": _version()}, "rows": []}
    for make in (*kernels(options), *soft_dtws(options)):
        name, ours, theirs = make()
        row = compare(name, ours, theirs, options)
        report["rows"].append(row)
        print(_line(row), flush=True)
        save(report, options.out)


def kernels(options: argparse.Namespace) -> list[Callable[[], tuple[dict[str, Any], Any, Any]]]:
    """The sizes of the kernel: what each is called, our arm, tslearn's."""
    return [
        lambda size=size, dim=dim, given=given: _kernel(*size, dim, given, options)  # type: ignore[misc]
        for size in KERNELS
        for dim, given in ((options.dim, False), (64, False), (64, True))
    ]


def _kernel(
    count: int, length: int, dim: int, given: bool, options: argparse.Namespace
) -> tuple[dict[str, Any], Any, Any]:
    import torch
    from tslearn.metrics import cdist_gak

    from gen2real.losses import global_alignment_kernel

    features = _sequences(count, length, dim, options.seed)
    name = {"what": "recursion" if given else "kernel", "sequences": count, "length": length, "dim": dim}
    # tslearn's σ is the same for all pairs; ours is bandwidth · √length where all are of one length.
    bandwidth = 1 / math.sqrt(length)
    there = features.to(options.device)
    numbers = features.numpy()
    if not given:
        return name, lambda: all_pairs(there, bandwidth), lambda: torch.from_numpy(cdist_gak(numbers, sigma=1.0))
    one, other = torch.triu_indices(count, count).tolist()
    distance = torch.cdist(there[one], there[other]).square()
    lengths = torch.full((len(one), 2), length, device=options.device)
    return name, lambda: global_alignment_kernel(distance, lengths, bandwidth=bandwidth, normalize="none"), None


def all_pairs(features: Any, bandwidth: float) -> Any:
    """[B B] kernels of sequences [B L D] of one length, each divided by the root of both with themselves."""
    import torch

    from gen2real.losses import global_alignment_kernel

    count, length, dim = features.shape
    slices = features.transpose(0, 1).contiguous()
    squared = slices.square().sum(dim=2)
    kernel = features.new_empty(count, count)
    for begin in range(0, count, BLOCK):
        # A block of sequences with themselves and all after them: K is symmetric.
        block, later = slices[:, begin : begin + BLOCK], slices[:, begin:]
        own, others = block.shape[1], later.shape[1]
        product = torch.addmm(
            squared[:, begin:].reshape(1, -1), block.reshape(-1, dim), later.reshape(-1, dim).T, alpha=-2
        )
        # |a|² + |b|² − 2ab, the pairs side by side in memory
        pairs = product.view(length, own, length, others).transpose(1, 2)
        distance = torch.add(pairs, squared[:, None, begin : begin + BLOCK, None], out=features.new_empty(pairs.shape))
        lengths = torch.full((own * others, 2), length, device=features.device)
        found = global_alignment_kernel(
            distance.view(length, length, -1).permute(2, 0, 1), lengths, bandwidth=bandwidth, normalize="none"
        ).view(own, others)
        kernel[begin : begin + BLOCK, begin:] = found
        kernel[begin:, begin : begin + BLOCK] = found.T
    root = kernel.diagonal().sqrt()
    return kernel.div_(root[:, None]).div_(root)


def soft_dtws(options: argparse.Namespace) -> list[Callable[[], tuple[dict[str, Any], Any, Any]]]:
    """The sizes of soft-DTW, from sequences and from costs."""
    forms = (("sequences", 1.0), ("costs", 1.0), ("costs", 30.0))
    return [
        lambda size=size, form=form, scale=scale: _soft_dtw(*size, form, scale, options)  # type: ignore[misc]
        for size in SOFT
        for form, scale in forms
    ]


def _soft_dtw(
    pairs: int, length: int, form: str, scale: float, options: argparse.Namespace
) -> tuple[dict[str, Any], Any, Any]:
    import torch
    from tslearn.metrics import SoftDTWLossPyTorch
    from tslearn.metrics.soft_dtw_loss_pytorch import _SoftDTWLossPyTorch

    from gen2real.losses import soft_dtw

    left, right = (_sequences(pairs, length, 64, options.seed + side) for side in (0, 1))
    here = left if form == "sequences" else scale * torch.cdist(left, right).square()
    there = right.to(options.device)
    lengths = torch.full((pairs, 2), length, device=options.device)

    def ours() -> Any:
        leaf = here.to(options.device, copy=True).requires_grad_()
        cost = leaf
        if form == "sequences":
            product = leaf @ there.transpose(1, 2)
            cost = leaf.square().sum(dim=2)[:, :, None] + there.square().sum(dim=2)[:, None] - 2 * product
        loss = soft_dtw(cost, lengths)
        loss.sum().backward()
        return loss.detach(), leaf.grad

    def theirs() -> Any:
        leaf = here.clone().requires_grad_()
        # Its function writes into the costs: they must not be a leaf.
        loss = SoftDTWLossPyTorch()(leaf, right) if form == "sequences" else _SoftDTWLossPyTorch.apply(1 * leaf, 1.0)
        loss.sum().backward()
        return loss.detach(), leaf.grad

    what = "soft-dtw" if form == "sequences" else f"soft-dtw of costs × {scale:g}"
    return {"what": what, "pairs": pairs, "length": length, "dim": 64}, ours, theirs


def compare(
    name: dict[str, Any], ours: Callable[[], Any], theirs: Callable[[], Any] | None, options: argparse.Namespace
) -> dict[str, Any]:
    """Both arms in turns after one unmeasured round, which compiles and must give equal numbers."""
    row: dict[str, Any] = {**name, "load_before": round(os.getloadavg()[0], 2)}
    found = _numbers(ours())
    if theirs is not None:
        expected = _numbers(theirs())
        row["largest_difference"] = float((found - expected).abs().max())
        # As tslearn has it in float32: relative to the largest number.
        tolerance = 1e-10 if name["what"] == "kernel" else 1e-4 * float(expected.abs().max())
        if not row["largest_difference"] <= tolerance:
            raise SystemExit(f"{name}: the arms differ by {row['largest_difference']:.3g}, more than {tolerance:.3g}")
    samples: dict[str, list[tuple[float, float]]] = {"ours": [], "tslearn": []}
    for _ in range(options.rounds):
        for arm, work in (("ours", ours), ("tslearn", theirs)):
            if work is not None:
                samples[arm].append(_timed(work, options.device if arm == "ours" else "cpu"))
    for arm, both in samples.items():
        if both:
            row[arm] = {"seconds": min(one for one, _ in both), "cpu_seconds": min(one for _, one in both)}
            row[arm]["samples"] = both
    if theirs is not None:
        row["times"] = {key: row["tslearn"][key] / row["ours"][key] for key in ("seconds", "cpu_seconds")}
    return row


def _numbers(found: Any) -> Any:
    import torch

    return torch.cat([part.cpu().flatten() for part in (found if isinstance(found, tuple) else (found,))])


def _timed(work: Callable[[], Any], device: str) -> tuple[float, float]:
    import torch

    began, cpu_began = time.perf_counter(), time.process_time()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, time.process_time() - cpu_began


def _sequences(count: int, length: int, dim: int, seed: int) -> Any:
    """[B L D] unit vectors, those of one sequence about as near to each other as sentences of one topic."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    topic = torch.randn(count, 1, dim, generator=generator, dtype=torch.float64)
    own = torch.randn(count, length, dim, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(topic + 0.6 * own, dim=2)


def _version() -> str:
    from importlib.metadata import version

    return version("tslearn")


def _line(row: dict[str, Any]) -> str:
    size = f"{row.get('sequences', row.get('pairs')):>4} of {row['length']:<4} d {row['dim']:<4}"
    told = f"{row['what']:<24} {size} ours {1e3 * row['ours']['seconds']:8.2f} ms {_cpu(row['ours'])}"
    if "times" in row:
        times = row["times"]
        told += f"   tslearn {1e3 * row['tslearn']['seconds']:9.2f} ms {_cpu(row['tslearn'])}"
        told += f"   × {times['seconds']:.1f}, by CPU × {times['cpu_seconds']:.1f}   ±{row['largest_difference']:.1e}"
    return told


def _cpu(arm: dict[str, Any]) -> str:
    return f"({1e3 * arm['cpu_seconds']:.2f} CPU)"


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=768, help="of a slice's features; 64 is measured too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where ours runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file with every sample")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
