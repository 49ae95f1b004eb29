"""Retrieval over 100,000 pictures and 100,000 texts of 512 dimensions: seconds and memory, ours and the plain ways.

    taskset -c 0 python benchmarks/speed/retrieval.py --threads 1 --out benchmarks/speed/results/retrieval.json

Random directions with planted positives (picture i and text i; a positive's cosine is drawn so that recall at 1 is
neither 0 nor 1). Every arm runs in a process of its own, whose peak over the two feature matrices is what it needed:

    ours     `gen2real.evaluation.retrieval_metrics`: both directions, intervals included
    chunks   `topk(10)` of 256 queries at a time against the whole gallery, first one direction and then the other
    matrix   all N × M cosines at once, then `topk(10)` of rows and of columns; at sizes where that fits

All three must find the same recalls, or the benchmark ends with an error.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from finetune import in_a_process, machine, save
from torch import Tensor
from torch.nn.functional import normalize

RECALLS_AT = (1, 5, 10)
CHUNK = 256


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, writes the JSON."""
    options = _options(argv)
    command = " ".join(["python", "benchmarks/speed/retrieval.py", *sys.argv[1:]])
    report: dict[str, Any] = {
        "machine": {**machine(options), "command": command},
        "options": vars(options).copy(),
        "rounds": [],
    }
    report["options"] = {key: value for key, value in report["options"].items() if key != "out"}
    runs = [("ours", options.count, threads) for threads in options.threads]
    runs += [("chunks", options.count, options.threads[0])]
    runs += [(arm, options.matrix, options.threads[0]) for arm in ("ours", "chunks", "matrix")]
    for number in range(options.rounds):
        for arm, count, threads in runs:
            load = round(os.getloadavg()[0], 2)
            found = in_a_process(timed, arm, count, options.dim, threads, options.seed)
            report["rounds"].append(
                {"round": number, "arm": arm, "count": count, "threads": threads, "load_before": load} | found
            )
            print(_line(report["rounds"][-1]), flush=True)
            save(report, options.out)
    for count in {count for _, count, _ in runs}:
        recalls = {str(row["recalls"]) for row in report["rounds"] if row["count"] == count}
        if len(recalls) != 1:
            raise SystemExit(f"the arms disagree on {count} pictures: {recalls}")
    report["summary"] = [summary(report, *run) for run in runs]
    save(report, options.out)


def timed(arm: str, count: int, dim: int, threads: int, seed: int) -> dict[str, Any]:
    """One arm's seconds, CPU seconds, peak MiB over its inputs, and the six recalls."""
    torch.set_num_threads(threads)
    image, text = planted(count, dim, seed)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from what made the inputs
    before = _memory("VmRSS")
    began, cpu_began = time.perf_counter(), time.process_time()
    recalls = ARMS[arm](image, text)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib_over_inputs": _memory("VmHWM") - before,
        "inputs_mib": 2 * image.nbytes / 2**20,
        "recalls": [round(share, 9) for share in recalls],
    }


def planted(count: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit vectors: texts at random, picture i nearer to text i by as much as a draw from 0 … 0.4 says."""
    generator = torch.Generator().manual_seed(seed)
    text = normalize(torch.randn(count, dim, generator=generator), dim=1)
    image = normalize(torch.randn(count, dim, generator=generator), dim=1)
    image.lerp_(text, 0.4 * torch.rand(count, 1, generator=generator))
    return image.div_(image.norm(dim=1, keepdim=True)), text


def ours(image: Tensor, text: Tensor) -> list[float]:
    """What `gen2real evaluate` and every method's retrieval calls."""
    from gen2real.evaluation import retrieval_metrics

    pairs = torch.arange(len(image))[:, None].repeat(1, 2)
    found = retrieval_metrics(image, text, pairs)
    return [one.recall[k].mean for one in (found.image_to_text, found.text_to_image) for k in RECALLS_AT]


def chunks(image: Tensor, text: Tensor) -> list[float]:
    """A block of queries at a time."""
    recalls = []
    for query, gallery in ((image, text), (text, image)):
        own = torch.arange(len(query))[:, None]
        blocks = query.split(CHUNK)
        first = torch.cat([(block @ gallery.T).topk(RECALLS_AT[-1], dim=1).indices for block in blocks])
        recalls += [_recall(first, own, k) for k in RECALLS_AT]
    return recalls


def matrix(image: Tensor, text: Tensor) -> list[float]:
    """All cosines at once."""
    scores = image @ text.T
    own = torch.arange(len(image))[:, None]
    first = [table.topk(RECALLS_AT[-1], dim=1).indices for table in (scores, scores.T)]
    return [_recall(found, own, k) for found in first for k in RECALLS_AT]


ARMS = {"ours": ours, "chunks": chunks, "matrix": matrix}


def summary(report: dict[str, Any], arm: str, count: int, threads: int) -> dict[str, Any]:
    """An arm's medians over the rounds."""
    rows = [row for row in report["rounds"] if (row["arm"], row["count"], row["threads"]) == (arm, count, threads)]
    names = ("seconds", "cpu_seconds", "peak_mib_over_inputs")
    return {"arm": arm, "count": count, "threads": threads} | {
        name: median(row[name] for row in rows) for name in names
    }


def _recall(first: Tensor, own: Tensor, k: int) -> float:
    return float((first[:, :k] == own).any(dim=1).double().mean())


def _memory(line: str) -> float:
    """MiB that this process holds (VmRSS) or has held at most (VmHWM); Linux."""
    status = Path("/proc/self/status").read_text()
    return next(int(own.split()[1]) for own in status.splitlines() if own.startswith(line)) / 1024


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['arm']:<7} {row['count']:>7} × {row['count']:<7} {row['threads']} threads {row['seconds']:8.1f} s "
        f"{row['cpu_seconds']:8.1f} CPU s {row['peak_mib_over_inputs']:8.0f} MiB over {row['inputs_mib']:.0f} of inputs"
    )


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="pictures, and as many texts")
    parser.add_argument("--matrix", type=int, default=20_000, help="the size at which the whole matrix is held too")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="ours runs with each, the plain ways with the first"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file with every sample")
    parser.set_defaults(device="cpu")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
