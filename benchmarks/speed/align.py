"""Updates a second of GMAIL's alignment: ours, with what f_r says kept, and both encoders run in every update.

    python benchmarks/speed/align.py --threads 1 --out benchmarks/speed/results/align-cpu.json      # ViT-B/32
    python benchmarks/speed/align.py --model kit --batch-size 256                                   # the kit's CLIP
    python benchmarks/speed/align.py --model tiny --batch-size 8                                    # does it run?

    ours     `gmail.prepare`, then its `train`, as `gen2real train` does; the real pictures were encoded before
    plain    transformers' `CLIPModel` twice, peft's LoRA on one (rank 4; q, k, v, o), the other under `no_grad`, the
             hub's image processor on both pictures of a pair, equation 1, norm clipped at 1, AdamW

Both have the same weights, pictures, batch size, precision and threads. Each is timed whole and again on one batch that
is decoded already ("encoders only"). Every arm runs in a process of its own and they take turns; medians are compared.
CPU seconds are the steadier figure on a machine that others use; all loading is done in the process itself.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from arms import Clock, Enough, Job, Timing
from finetune import in_a_process, machine, save
from PIL import Image
from stage import SHAPES, make_model, make_pictures
from torch import Tensor, nn

RANK, ALPHA, RATE, DECAY, TEMPERATURE = 4, 8, 1e-4, 0.01, 0.07
ARMS = ("ours", "plain", "ours, encoders only", "plain, encoders only")


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, writes the JSON."""
    options = _options(argv)
    command = " ".join(["python", "benchmarks/speed/align.py", *sys.argv[1:]])
    report: dict[str, Any] = {"machine": {**machine(options), "command": command}, "rounds": []}
    report["options"] = {key: value for key, value in vars(options).items() if key != "out"}
    with tempfile.TemporaryDirectory() as made:
        room = Path(made)
        os.environ["GEN2REAL_CACHE"] = str(room / "cache")
        model = _kit_clip() if options.model == "kit" else make_model(room / "model", options.model, options.seed)
        make_pairs(room, options.pictures, 64 if options.model == "kit" else 224, options.seed)
        for number in range(options.rounds):
            for arm in ARMS:
                load = round(os.getloadavg()[0], 2)
                names = ("device", "precision", "batch_size", "warmup", "steps", "threads", "seed")
                wanted = {name: getattr(options, name) for name in names} | {"workers": 0, "block": 1}
                job = Job(model=model, pictures=room, run=room / f"{number}-{arm}", **wanted)
                timing = in_a_process(ours if arm.startswith("ours") else plain, job, arm.endswith("only"))
                report["rounds"].append({"round": number, "arm": arm, "load_before": load} | asdict(timing))
                print(_line(report["rounds"][-1]), flush=True)
                save(report, options.out)
    report["summary"] = summary(report)
    for name, value in report["summary"].items():
        print(f"{name}: {value}")
    save(report, options.out)


def ours(job: Job, encoders_only: bool) -> Timing:
    """The recipe's run. The clock hangs on the run folder's log, which is written after every update."""
    from gen2real.config import parse_config
    from gen2real.methods.gmail import algorithm as gmail
    from gen2real.methods.gmail.settings import GMAILConfig
    from gen2real.training.run_folder import RunFolder

    clock = Clock(job, job.prepare())

    class Clocked(RunFolder):
        def log(self, row: Mapping[str, Any]) -> None:
            super().log(row)
            if clock.tick():
                raise Enough

    values = {
        "method": "gmail",
        "output": str(job.run),
        "encoder": {"name": str(job.model)},
        "data": {
            "generated": [str(job.pictures / "generated" / "pairs.parquet")],
            "real": str(job.pictures / "real" / "pairs.parquet"),
            "holdout": 0,
        },
        "loss": "align",
        "lora": {"rank": RANK, "alpha": ALPHA},
        "optimizer": {"lr": RATE, "weight_decay": DECAY, "clip_norm": 1.0},
        "training": {
            "steps": 10**6,
            "batch_size": job.batch_size,
            "precision": job.precision,
            "log_every": 1,
            "checkpoint_every": 10**6,
        },
        "seed": job.seed,
    }
    config = parse_config(GMAILConfig, values, source="the benchmark")
    if encoders_only:
        gmail.AlignmentBatches = _one_batch()  # type: ignore[misc, assignment]
    with contextlib.suppress(Enough):
        gmail.prepare(config).train(Clocked(job.run, config), quiet=True)
    return clock.timing()


def _one_batch() -> type:
    from gen2real.methods.gmail.data import AlignmentBatches

    class OneBatch(AlignmentBatches):
        def __call__(self, numbers: range) -> Iterator[Any]:
            first = next(iter(super().__call__(range(1))))
            return (first for _ in numbers)

    return OneBatch


def plain(job: Job, encoders_only: bool) -> Timing:
    """Both encoders in every update, on stock classes of transformers and peft."""
    from gen2real.imagesets import ImageSet

    device = job.prepare()
    clock = Clock(job, device)
    real, generated, processor = _stock(job.model)
    real, generated = real.to(device), generated.to(device)
    trained = [parameter for parameter in generated.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    paths = [ImageSet.read(job.pictures / side / "pairs.parquet").paths for side in ("generated", "real")]

    def load(rows: list[int]) -> list[Tensor]:
        sides = [[Image.open(own[row]).convert("RGB") for row in rows] for own in paths]
        return [processor(images=side, return_tensors="pt")["pixel_values"] for side in sides]

    order = torch.randperm(len(paths[0])).tolist()
    batches = [order[start : start + job.batch_size] for start in range(0, len(order), job.batch_size)]
    batches = [rows for rows in batches if len(rows) == job.batch_size]
    pixels = load(batches[0])
    for number in range(10**6):
        if not encoders_only:
            pixels = load(batches[number % len(batches)])
        with torch.autocast(device.type, torch.bfloat16, enabled=job.precision == "bfloat16"):
            with torch.no_grad():
                targets = real(pixels[1].to(device))
            features = generated(pixels[0].to(device))
        logits = F.normalize(features.float(), dim=-1) @ F.normalize(targets.float(), dim=-1).T / TEMPERATURE
        F.cross_entropy(logits, torch.arange(len(logits), device=device)).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if clock.tick():
            break
    return clock.timing()


class _Tower(nn.Module):
    """Pixels → projected embeddings."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.vision, self.projection = clip.vision_model, clip.visual_projection

    def forward(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self.projection(self.vision(pixel_values=pixels).pooler_output)
        return embeddings


def _stock(folder: Path) -> tuple[nn.Module, nn.Module, Any]:
    from peft import LoraConfig, get_peft_model
    from transformers import CLIPImageProcessorPil, CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    real = _Tower(CLIPModel.from_pretrained(folder, dtype=torch.float32)).eval().requires_grad_(False)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"])
    generated = get_peft_model(copy.deepcopy(real), lora).train()  # type: ignore[arg-type]
    return real, generated, CLIPImageProcessorPil.from_pretrained(folder)


def make_pairs(room: Path, count: int, side: int, seed: int) -> None:
    """Generated pictures and as many real ones; a generated one names the real one of its number."""
    from gen2real.imagesets import ImageSet

    for place, name in enumerate(("real", "generated")):
        root = make_pictures(room / name, count, f"png-{side}", seed + place)  # type: ignore[arg-type]
        whole = ImageSet.read(root)
        rows = [{**row, "origin": name, "pair_id": row["id"] if place else None} for row in whole.rows()]
        ImageSet.write(root, rows, whole.classes, name="pairs.parquet")


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Medians over all rounds, and how many times the plain updates ours makes."""
    found: dict[str, Any] = {}
    for arm in ARMS:
        rows = [row for row in report["rounds"] if row["arm"] == arm]
        seconds = median(second for row in rows for second in row["updates"])
        found[arm] = {
            "updates_per_second": 1 / seconds,
            "cpu_seconds_per_update": median(row["cpu_seconds"] for row in rows),
            "peak_mib": max(row["peak_mib"] for row in rows),
        }
    for own, other in (ARMS[:2], ARMS[2:]):
        one, two = found[own], found[other]
        found[f"times the updates a second of {other}"] = one["updates_per_second"] / two["updates_per_second"]
        ratio = two["cpu_seconds_per_update"] / one["cpu_seconds_per_update"]
        found[f"the same by CPU seconds, {other}"] = ratio
    return found


def _kit_clip() -> Path:
    from gen2real import kit

    return Path(kit.folder("clip"))


def _line(row: dict[str, Any]) -> str:
    seconds = median(row["updates"])
    return f"  round {row['round'] + 1}  {row['arm']:<22} {1 / seconds:8.3f} updates/s {row['cpu_seconds']:8.2f} CPU s"


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*sorted(SHAPES), "kit"], default="vit-b-32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16", help="of every arm")
    parser.add_argument("--pictures", type=int, default=256, help="pairs")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3, help="measured updates an arm and round")
    parser.add_argument("--warmup", type=int, default=1, help="updates before that")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's, in every arm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file with every sample")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
