"""Pictures a second of fine-tuning: our trainer, a plain PyTorch loop, `transformers.Trainer`, and a bare step.

    python benchmarks/speed/finetune.py                      # ViT-B/16, this machine's CPU: 20 minutes on two cores
    python benchmarks/speed/finetune.py --device cuda --batch-size 128 --pictures 4000 --steps 40 --warmup 10 --block 20
    python benchmarks/speed/finetune.py --model tiny         # a minute: does it run at all?

Every arm runs in a fresh process, the arms take turns, and that several times over; what is compared is the median.
`arms.py` says what each arm does, README.md what was measured.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from arms import ARMS, Job, memory_over_epochs
from stage import SHAPES, clip_config, make_model, make_pictures

from gen2real.files import write_json
from gen2real.training.run_folder import environment

RUNS = [
    ("ours", "bfloat16"),
    ("plain", "float32"),
    ("transformers", "float32"),
    ("transformers", "bfloat16"),
    ("ours", "float32"),
    ("paired", "bfloat16"),
]
# Dense bfloat16 TFLOP/s as the maker states them, by a part of the device's name.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "RTX 4090": 165, "A10G": 70}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints the table, writes the JSON."""
    options = _options(argv)
    report: dict[str, Any] = {"machine": machine(options), "options": vars(options).copy(), "rounds": []}
    del report["options"]["out"]
    report["gigaflop_a_picture"] = flop_a_picture(options.model) / 1e9
    with tempfile.TemporaryDirectory() as made:
        room = Path(made)
        model = make_model(room / "model", options.model, options.seed)
        pictures = make_pictures(room / "pictures", options.pictures, options.kind, options.seed)

        def job(name: str, precision: str = "float32", model: Path = model, **changes: Any) -> Job:
            wanted = {key: getattr(options, key) for key in ("device", "batch_size", "warmup", "steps", "workers")}
            wanted |= {key: getattr(options, key) for key in ("threads", "block", "seed")} | changes
            return Job(model=model, pictures=pictures, run=room / name, precision=precision, **wanted)

        for number in range(options.rounds):
            for arm, precision in RUNS:
                load = os.getloadavg()[0]
                timing = in_a_process(ARMS[arm], job(f"{number}-{arm}-{precision}", precision))
                row = {"round": number, "arm": arm, "precision": precision, "load_before": round(load, 2)}
                report["rounds"].append(row | asdict(timing))
                rate = options.batch_size / median(timing.updates)
                print(f"  round {number + 1}  {arm:<12} {precision:<8} {rate:8.2f} pictures/s", flush=True)
                save(report, options.out)
        report["memory_mib"] = {}
        if options.epochs:
            small = make_model(room / "small", "tiny" if options.model == "tiny" else "small", options.seed)
            for cache in ("none", "memory"):
                report["memory_mib"][cache] = in_a_process(
                    memory_over_epochs, job(f"memory-{cache}", model=small, batch_size=16), cache, options.epochs
                )
    report |= summary(report, options)
    print(table(report))
    save(report, options.out)
    return report


def save(report: dict[str, Any], out: Path | None) -> None:
    """What is known so far; a run that is stopped leaves its samples."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, report)


def in_a_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Its result from a fresh interpreter: no arm inherits another's memory, threads or settings."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def summary(report: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Medians over all rounds, and what is asked of them."""
    arms: dict[str, dict[str, float]] = {}
    for arm, precision in RUNS:
        rows = [row for row in report["rounds"] if (row["arm"], row["precision"]) == (arm, precision)]
        rate = options.batch_size / median(second for row in rows for second in row["updates"])
        arms[f"{arm}-{precision}"] = {
            "pictures_per_second": rate,
            "cpu_seconds_per_picture": median(row["cpu_seconds"] for row in rows) / options.batch_size,
            "teraflop_per_second": rate * report["gigaflop_a_picture"] / 1e3,
            "peak_mib": max(row["peak_mib"] for row in rows),
        }
    peak = options.peak_tflops or next((tflops for name, tflops in PEAKS.items() if name in _gpu_name(options)), None)
    if peak is not None:
        for one in arms.values():
            one["share_of_peak"] = one["teraflop_per_second"] / peak
    first, second = arms["ours-bfloat16"], arms["plain-float32"]
    pairs = [
        own / bare
        for row in report["rounds"]
        if row["arm"] == "paired"
        for own, bare in zip(row["updates"], row["bare_updates"], strict=True)
    ]
    found = {
        "arms": arms,
        "times_the_plain_loop": first["pictures_per_second"] / second["pictures_per_second"],
        "times_the_plain_loop_by_cpu_seconds": second["cpu_seconds_per_picture"] / first["cpu_seconds_per_picture"],
        "times_the_plain_loop_by_round": _by_round(report, options),
        "slower_than_a_bare_step": median(pairs) - 1,
    }
    for cache, held in report["memory_mib"].items():
        found[f"mib_an_epoch_with_cache_{cache}"] = slope(held[len(held) // 2 :])
    return found


def slope(values: list[float]) -> float:
    """The least-squares slope of values over 0, 1, 2, …"""
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    spread = sum((x - middle) ** 2 for x in range(len(values)))
    return sum((x - middle) * (y - mean) for x, y in enumerate(values)) / spread if spread else 0.0


def table(report: dict[str, Any]) -> str:
    """What a person reads."""
    lines = [f"\n{'':<24}{'pictures/s':>12}{'CPU s/picture':>15}{'TFLOP/s':>10}{'of peak':>9}{'peak MiB':>10}"]
    for name, one in report["arms"].items():
        share = f"{one['share_of_peak']:.1%}" if "share_of_peak" in one else "–"
        lines.append(
            f"{name:<24}{one['pictures_per_second']:>12.2f}{one['cpu_seconds_per_picture']:>15.3f}"
            f"{one['teraflop_per_second']:>10.3f}{share:>9}{one['peak_mib']:>10.0f}"
        )
    rounds = ", ".join(f"{ratio:.2f}" for ratio in report["times_the_plain_loop_by_round"])
    lines += [
        "",
        f"ours in bfloat16 against the plain loop in float32: {report['times_the_plain_loop']:.2f} × the pictures a "
        f"second (by round {rounds}); {report['times_the_plain_loop_by_cpu_seconds']:.2f} × by CPU seconds",
        f"ours against a bare step on tensors in memory: {report['slower_than_a_bare_step']:+.1%} time an update",
    ]
    for cache, held in report["memory_mib"].items():
        rise = report[f"mib_an_epoch_with_cache_{cache}"]
        lines.append(
            f"memory, cache={cache}: {rise:+.2f} MiB an epoch over the second half; after each epoch: "
            + " ".join(f"{mib:.0f}" for mib in held)
        )
    return "\n".join(lines)


def flop_a_picture(model: str) -> float:
    """Matrix products of forward and backward for one picture: three times those of forward."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import CLIPModel

    config = clip_config(model)
    side = config.vision_config.image_size
    with torch.device("meta"):
        tower = CLIPModel(config).vision_model
        pixels = torch.empty(1, 3, side, side)
    with FlopCounterMode(display=False) as counter:
        tower(pixel_values=pixels)
    return 3.0 * counter.get_total_flops()


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Where and from what the numbers come."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else [platform.processor()]
    )
    flags = getattr(torch.cpu, "get_capabilities", dict)()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "command": " ".join(["python", "benchmarks/speed/finetune.py", *sys.argv[1:]]),
        "cpu": names[0] if names else "unknown",
        "cores": os.cpu_count(),
        "threads": options.threads,
        "bfloat16_instructions": [name for name in ("avx512_bf16", "amx_bf16") if flags.get(name)],
        "gpu": _gpu_name(options),
        "load_at_start": [round(value, 2) for value in os.getloadavg()],
        "versions": environment(),
    }


def _by_round(report: dict[str, Any], options: argparse.Namespace) -> list[float]:
    def seconds(number: int, arm: str, precision: str) -> float:
        return median(
            next(
                row["updates"]
                for row in report["rounds"]
                if (row["round"], row["arm"], row["precision"]) == (number, arm, precision)
            )
        )

    return [seconds(n, "plain", "float32") / seconds(n, "ours", "bfloat16") for n in range(options.rounds)]


def _commit() -> str:
    here = Path(__file__).parent
    try:
        found = [
            subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "../../src"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found[0] + (" with changes in src" if found[1] else "")


def _gpu_name(options: argparse.Namespace) -> str:
    return torch.cuda.get_device_name() if options.device == "cuda" else ""


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(SHAPES), default="vit-b-16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--kind", choices=("jpeg-512", "png-224"), default="png-224", help="png-224: as the authors store"
    )
    parser.add_argument("--pictures", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3, help="measured updates an arm and round")
    parser.add_argument("--warmup", type=int, default=1, help="updates before that")
    parser.add_argument("--block", type=int, default=1, help="updates timed together; more than 1 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4, help="loader processes of the other arms; the authors have 4")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's, in every arm")
    parser.add_argument("--epochs", type=int, default=12, help="of the memory measurement; 0 leaves it out")
    parser.add_argument("--peak-tflops", type=float, help="the device's dense bfloat16 peak, if it is not known here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file with every sample")
    options = parser.parse_args(argv)
    if options.steps % options.block:
        parser.error(f"--steps {options.steps} is not a multiple of --block {options.block}")
    return options


if __name__ == "__main__":
    main()
