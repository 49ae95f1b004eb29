"""Updates a second of UniDiff: one joint update, and a CLIP update and a diffusion update made separately.

    python benchmarks/speed/joint.py --threads 1 --out benchmarks/speed/results/joint-cpu.json     # the kit's shapes
    python benchmarks/speed/joint.py --model sd15 --device cuda --precision bfloat16 --batch-size 16
    python benchmarks/speed/joint.py --batch-size 8 --pictures 16 --rounds 1 --steps 1             # does it run?

    ours            `unidiff.prepare`, then its `train`, as `gen2real train` does: all three losses, RSC by features;
                    latents were encoded before, and with `--text frozen` what the text tower says as well
    plain CLIP      transformers' `CLIPModel` on pixels and ids, symmetric cross entropy, norm clipped at 1, AdamW
    plain diffusion diffusers' `AutoencoderKL` on pixels, the text tower on ids, `UNet2DConditionModel`, the squared
                    error, norm clipped at 1, AdamW

All have the same weights, pictures, batch size, precision and threads, and no running mean of weights. The plain
updates have their pixels and ids in memory, decoded already; ours loads as it always does. Every arm runs in a process
of its own and they take turns; medians are compared. The mark: ours takes at most 0.85 of the two others together.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from arms import Clock, Enough, Job, Timing
from finetune import PEAKS, in_a_process, machine, save
from joint_models import kit_models, make_pictures, sd15_models
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

RATE, DECAY = 1e-5, 0.01
ARMS = ("ours", "plain CLIP", "plain diffusion")
MARK = 0.85


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, writes the JSON."""
    options = _options(argv)
    command = " ".join(["python", "benchmarks/speed/joint.py", *sys.argv[1:]])
    report: dict[str, Any] = {"machine": {**machine(options), "command": command}, "rounds": []}
    report["options"] = {key: value for key, value in vars(options).items() if key != "out"}
    with tempfile.TemporaryDirectory() as made:
        room = Path(made)
        os.environ["GEN2REAL_CACHE"] = str(room / "cache")
        (sd15_models if options.model == "sd15" else kit_models)(room, options.seed)
        make_pictures(room / "pictures", options.pictures, 512 if options.model == "sd15" else 64)
        flop = {arm: _measured(arm, options, room, "flop", flop=True).updates[0] for arm in ARMS}
        for number in range(options.rounds):
            for arm in ARMS:
                load = round(os.getloadavg()[0], 2)
                timing = _measured(arm, options, room, str(number))
                report["rounds"].append({"round": number, "arm": arm, "load_before": load} | asdict(timing))
                seconds = median(timing.updates)
                print(f"  round {number + 1}  {arm:<16} {seconds:8.3f} s an update", flush=True)
                save(report, options.out)
    report["summary"] = summary(report, flop, options)
    for name, value in report["summary"].items():
        print(f"{name}: {value}")
    save(report, options.out)


def _measured(arm: str, options: argparse.Namespace, room: Path, turn: str, *, flop: bool = False) -> Timing:
    wanted = {name: getattr(options, name) for name in ("device", "precision", "batch_size", "threads", "seed")}
    steps = {"warmup": 1, "steps": 1} if flop else {"warmup": options.warmup, "steps": options.steps}
    job = Job(model=room, pictures=room / "pictures", run=room / f"{turn}-{arm}", workers=0, block=1, **steps, **wanted)
    work = {"ours": ours, "plain CLIP": plain_clip, "plain diffusion": plain_diffusion}[arm]
    timing: Timing = in_a_process(work, job, options.text, flop)
    return timing


class _Counted(Clock):
    """Counts the operations of the one update after the warm-up, in place of its seconds."""

    def __init__(self, job: Job, device: torch.device) -> None:
        super().__init__(job, device)
        self._counter = FlopCounterMode(display=False)

    def tick(self) -> bool:
        self._done += 1
        if self._done == 1:
            self._counter.__enter__()
            return False
        self._counter.__exit__(None, None, None)
        self.updates.append(float(self._counter.get_total_flops()))
        return True


def ours(job: Job, text: str, flop: bool) -> Timing:
    """The recipe's run. The clock hangs on the run folder's log, which is written after every update."""
    from gen2real.config import parse_config
    from gen2real.methods.unidiff import algorithm as unidiff
    from gen2real.methods.unidiff.settings import UniDiffConfig
    from gen2real.training.run_folder import RunFolder

    clock = (_Counted if flop else Clock)(job, job.prepare())

    class Clocked(RunFolder):
        def log(self, row: Mapping[str, Any]) -> None:
            super().log(row)
            if clock.tick():
                raise Enough

    values = {
        "method": "unidiff",
        "output": str(job.run),
        "models": {"clip": str(job.model / "clip"), "generator": str(job.model / "generator")},
        "data": {"pictures": str(job.pictures), "holdout": 0, "views": 1},
        "text": {"mode": text},
        "synthesis": {"ema": None},
        "conflict": {"log_every": None},
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
    config = parse_config(UniDiffConfig, values, source="the benchmark")
    with contextlib.suppress(Enough):
        unidiff.prepare(config).train(Clocked(job.run, config), quiet=True)
    return clock.timing()


def plain_clip(job: Job, text: str, flop: bool) -> Timing:
    """CLIP's own loss, both towers; a frozen text tower is run without a graph."""
    from transformers import CLIPModel

    device = job.prepare()
    clip = CLIPModel.from_pretrained(job.model / "clip", dtype=torch.float32).to(device).train()
    if text == "frozen":
        clip.text_model.requires_grad_(False)
        clip.text_projection.requires_grad_(False)
    pixels, ids = _batch(job, clip.config.vision_config.image_size, device)

    def loss() -> Tensor:
        image = F.normalize(clip.visual_projection(clip.vision_model(pixel_values=pixels).pooler_output), dim=-1)
        with torch.set_grad_enabled(text == "full"):
            told = F.normalize(clip.text_projection(clip.text_model(input_ids=ids).pooler_output), dim=-1)
        logits = clip.logit_scale.exp() * image @ told.T
        own = torch.arange(len(logits), device=device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    return _trained(job, device, loss, [clip], flop)


def plain_diffusion(job: Job, text: str, flop: bool) -> Timing:
    """The denoiser's own loss; pixels are encoded and captions read in every update."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    device = job.prepare()
    folder = job.model / "generator"
    vae = AutoencoderKL.from_pretrained(folder / "vae").to(device).eval().requires_grad_(False)
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").to(device).train()
    reader = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).to(device)
    reader.train(text == "full").requires_grad_(text == "full")
    scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
    pixels, ids = _batch(job, vae.config.sample_size, device)

    def loss() -> Tensor:
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        times = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), device=device)
        with torch.set_grad_enabled(text == "full"):
            states = reader(input_ids=ids).last_hidden_state
        said = unet(scheduler.add_noise(latents, noise, times), times, encoder_hidden_states=states).sample
        foreseen = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(latents, noise, times) if foreseen else noise
        return F.mse_loss(said.float(), target.float())

    return _trained(job, device, loss, [unet, reader], flop)


def _batch(job: Job, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """One batch, normalised pixels and ids, in memory."""
    import numpy as np
    from PIL import Image
    from transformers import CLIPTokenizer

    from gen2real.imagesets import ImageSet

    found = ImageSet.read(job.pictures).select(list(range(job.batch_size)))
    pictures = [np.array(Image.open(path).convert("RGB").resize((side, side))) for path in found.paths]
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    tokenizer = CLIPTokenizer.from_pretrained(job.model / "generator" / "tokenizer")
    ids = tokenizer([own[0] for own in found.captions], padding="max_length", truncation=True, return_tensors="pt")
    return pixels.to(device), ids["input_ids"].to(device)


def _trained(job: Job, device: torch.device, loss: Callable[[], Tensor], parts: list[nn.Module], flop: bool) -> Timing:
    clock = (_Counted if flop else Clock)(job, device)
    trained = [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    while True:
        with torch.autocast(device.type, torch.bfloat16, enabled=job.precision == "bfloat16"):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if clock.tick():
            return clock.timing()


def summary(report: dict[str, Any], flop: Mapping[str, float], options: argparse.Namespace) -> dict[str, Any]:
    """Medians over all rounds; ours as a share of the two others together; teraflop, and share of the device's peak."""
    found: dict[str, Any] = {}
    peak = next((own for name, own in PEAKS.items() if name in report["machine"]["gpu"]), None)
    for arm in ARMS:
        rows = [row for row in report["rounds"] if row["arm"] == arm]
        seconds = median(second for row in rows for second in row["updates"])
        found[arm] = {
            "seconds_per_update": seconds,
            "updates_per_second": 1 / seconds,
            "cpu_seconds_per_update": median(row["cpu_seconds"] for row in rows),
            "peak_mib": max(row["peak_mib"] for row in rows),
            "teraflop_per_update": flop[arm] / 1e12,
            "teraflop_per_second": flop[arm] / 1e12 / seconds,
        }
        if peak is not None and options.device == "cuda":
            found[arm]["share_of_peak"] = found[arm]["teraflop_per_second"] / peak
    for key, name in (("seconds_per_update", "seconds"), ("cpu_seconds_per_update", "CPU seconds")):
        separate = sum(found[arm][key] for arm in ARMS[1:])
        found[f"ours / separate, {name}"] = found["ours"][key] / separate
    found["within the mark"] = found["ours / separate, seconds"] <= MARK
    return found


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("kit", "sd15"), default="kit", help="sd15: ViT-L/14, random weights")
    parser.add_argument("--text", choices=("full", "frozen"), default="full", help="the text tower, in every arm")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="of every arm")
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4, help="measured updates an arm and round")
    parser.add_argument("--warmup", type=int, default=2, help="updates before that")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch's, in every arm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file with every sample")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
