"""The ways to fine-tune that are timed against each other. Each runs in a process of its own and returns a `Timing`.

    ours          gen2real's RegFT: `prepare`, then `fine_tune`, as `gen2real train` does
    plain         (a) a plain PyTorch loop, as the authors' code has it: `DataLoader`, Pillow in every epoch
    transformers  (b) `transformers.Trainer` on the model and the data set of (a)
    paired        ours, and after each of its blocks of updates as many bare ones on tensors already in memory

All have the same model, batch size, loss (cross entropy, variance and covariance) and optimiser (AdamW, norm clipped
at 1). (a) and (b) load the image tower with stock transformers and do not touch gen2real's code.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from stage import CLASSES
from torch import Tensor, nn

LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM, VARIANCE, COVARIANCE = 1e-5, 0.1, 1.0, 0.16, 0.02
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CROP_SCALE, CROP_RATIO = (0.9, 1.0), (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Job:
    """What every arm is told."""

    model: Path
    pictures: Path
    run: Path
    device: str
    precision: str
    batch_size: int
    warmup: int
    steps: int
    workers: int
    threads: int
    block: int
    seed: int

    def prepare(self) -> torch.device:
        """Settings of the process, before anything is loaded."""
        if self.device == "cpu":
            os.environ["ACCELERATE_USE_CPU"] = "true"
        os.environ["HF_HUB_OFFLINE"] = "1"
        if "fork" in multiprocessing.get_all_start_methods():
            # This process was spawned, and its loader processes would be too, which is not what users have.
            multiprocessing.set_start_method("fork", force=True)
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)
        return torch.device(self.device)


@dataclass
class Timing:
    """Seconds of each measured update (or block of updates, divided by their number), and CPU seconds an update.

    The CPU seconds are the process's own, threads included; loader processes, which (a) and (b) have, are left out.
    """

    updates: list[float] = field(default_factory=list)
    cpu_seconds: float = 0.0
    bare_updates: list[float] = field(default_factory=list)
    peak_mib: float = 0.0


class Enough(Exception):
    """All updates that were asked for are measured."""


class Clock:
    """`tick()` after each update. Those of the warm-up are left out; a device is waited for at a block's ends only."""

    def __init__(self, job: Job, device: torch.device, between_blocks: Callable[[], None] | None = None) -> None:
        self._job, self._device, self._between = job, device, between_blocks
        self._done, self._began, self._cpu, self._cpu_began = 0, 0.0, 0.0, 0.0
        self.updates: list[float] = []

    def tick(self) -> bool:
        """True once everything is measured."""
        self._done += 1
        measured = self._done - self._job.warmup
        if measured < 0 or measured % self._job.block:
            return False
        wait_for(self._device)
        if measured > 0:
            self.updates.append((time.perf_counter() - self._began) / self._job.block)
            self._cpu += time.process_time() - self._cpu_began
        if measured < self._job.steps:
            if self._between is not None:
                self._between()
            self._began, self._cpu_began = time.perf_counter(), time.process_time()
        return measured >= self._job.steps

    def timing(self) -> Timing:
        """What was measured; the peak is the device's on a GPU, the process's else."""
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated() / 2**20
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return Timing(self.updates, self._cpu / self._job.steps, peak_mib=peak)


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def ours(job: Job, between_blocks: Callable[[], None] | None = None) -> Timing:
    """RegFT as a recipe runs it. The clock hangs on the run folder's log, which is written after every update."""
    from gen2real.methods import regft
    from gen2real.training.run_folder import RunFolder

    clock = Clock(job, job.prepare(), between_blocks)

    class Clocked(RunFolder):
        def log(self, row: Mapping[str, Any]) -> None:
            super().log(row)
            if clock.tick():
                raise Enough

    config = recipe(job)
    with contextlib.suppress(Enough):
        regft.prepare(config).fine_tune(Clocked(job.run, config), quiet=True)
    return clock.timing()


def paired(job: Job) -> Timing:
    """Ours, and in its pauses a bare step of a second copy of the same model: forward, loss, backward, AdamW."""
    from gen2real.losses import variance_covariance
    from gen2real.methods import regft

    device = job.prepare()
    tuning = regft.prepare(recipe(job))
    side = tuning.encoder.preprocess.size
    model = tuning.classifier(tuning.state()).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    pixels = torch.randn(job.batch_size, 3, side, side, device=device)
    labels = torch.randint(len(CLASSES), (job.batch_size,), device=device)
    bare: list[float] = []

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=job.precision == "bfloat16"):
            logits, features = model(pixels)
        spread = variance_covariance(features.float())
        loss = F.cross_entropy(logits, labels) + VARIANCE * spread.variance + COVARIANCE * spread.covariance
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()

    def block() -> None:
        if not bare:
            step()
        wait_for(device)
        began = time.perf_counter()
        for _ in range(job.block):
            step()
        wait_for(device)
        bare.append((time.perf_counter() - began) / job.block)

    timing = ours(job, block)
    timing.bare_updates = bare
    return timing


def plain(job: Job) -> Timing:
    """(a) What the authors' code does at each update, on stock classes of torch and transformers."""
    device = job.prepare()
    clock = Clock(job, device)
    model = StockClassifier(job.model).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    loader = torch.utils.data.DataLoader(
        PillowPictures(job.pictures, model.image_size), job.batch_size, shuffle=True, num_workers=job.workers
    )
    for pixels, labels in endless(loader):
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=job.precision == "bfloat16"):
            logits, features = model(pixels.to(device))
        stock_loss(logits, features, labels.to(device)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        if clock.tick():
            break
    return clock.timing()


def transformers(job: Job) -> Timing:
    """(b) `transformers.Trainer` with its own defaults: fused AdamW, its own loader, bf16 where asked."""
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    clock = Clock(job, job.prepare())
    model = StockClassifier(job.model)

    class Clocked(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = clock.tick()

    class WithLoss(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            outputs = model(inputs["pixels"])
            loss = stock_loss(*outputs, inputs["labels"])
            return (loss, outputs) if return_outputs else loss

    arguments = TrainingArguments(
        output_dir=str(job.run),
        per_device_train_batch_size=job.batch_size,
        max_steps=10**6,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=CLIP_NORM,
        bf16=job.precision == "bfloat16",
        use_cpu=job.device == "cpu",
        dataloader_num_workers=job.workers,
        dataloader_pin_memory=job.device != "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=job.seed,
    )
    pictures = PillowPictures(job.pictures, model.image_size, named=True)
    trainer = WithLoss(model, arguments, train_dataset=pictures, callbacks=[Clocked()])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.timing()


ARMS: dict[str, Callable[[Job], Timing]] = {
    "ours": ours,
    "plain": plain,
    "transformers": transformers,
    "paired": paired,
}


def recipe(job: Job) -> Any:
    """A RegFT recipe of these sizes; its end is never reached."""
    from gen2real.config import parse_config
    from gen2real.methods.settings import RegFTConfig

    return parse_config(
        RegFTConfig,
        {
            "output": str(job.run),
            "encoder": {"name": str(job.model)},
            "data": {"generated": [str(job.pictures)], "holdout": 0},
            "optimizer": {"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "clip_norm": CLIP_NORM},
            "loss": {"variance": VARIANCE, "covariance": COVARIANCE},
            "training": {
                "steps": 10**6,
                "batch_size": job.batch_size,
                "precision": job.precision,
                "log_every": 1,
                "checkpoint_every": 10**6,
            },
            "seed": job.seed,
        },
        source="the benchmark",
    )


class StockClassifier(nn.Module):
    """CLIP's image tower as transformers loads it, and a linear head on the normalised embedding."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import CLIPModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        clip = CLIPModel.from_pretrained(folder, dtype=torch.float32)
        self.image_size = int(clip.config.vision_config.image_size)
        self.vision, self.projection = clip.vision_model, clip.visual_projection
        self.head = nn.Linear(clip.config.projection_dim, len(CLASSES))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.projection(self.vision(pixel_values=pixels).pooler_output)
        return self.head(F.normalize(features, dim=-1)), features


def stock_loss(logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy + 0.16·V + 0.02·K, written out."""
    z = features.float() - features.float().mean(dim=0)
    variance = F.relu(1 - torch.sqrt(z.var(dim=0) + 1e-7)).mean()
    c = z.T @ z / (len(z) - 1)
    covariance = (c - torch.diag(c.diagonal())).pow(2).sum() / (c.numel() - len(c))
    return F.cross_entropy(logits.float(), labels) + VARIANCE * variance + COVARIANCE * covariance


class PillowPictures(torch.utils.data.Dataset[Any]):
    """Decode, random resized crop (90–100 % of the area, bicubic), float, normalise: Pillow and torch, every epoch."""

    def __init__(self, root: Path, size: int, *, named: bool = False) -> None:
        from gen2real.imagesets import ImageSet

        image_set = ImageSet.read(root)
        self._paths, self._labels = [str(path) for path in image_set.paths], image_set.labels.tolist()
        self._size, self._named = size, named
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self._paths[index]) as file:
            picture = file.convert("RGB")
        left, top, width, height = _crop(*picture.size)
        picture = picture.crop((left, top, left + width, top + height))
        picture = picture.resize((self._size, self._size), Image.Resampling.BICUBIC)
        values = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
        pixels = (values.float().div(255) - self._mean) / self._std
        return {"pixels": pixels, "labels": self._labels[index]} if self._named else (pixels, self._labels[index])


def _crop(width: int, height: int) -> tuple[int, int, int, int]:
    for _ in range(10):
        area = width * height * float(torch.empty(()).uniform_(*CROP_SCALE))
        ratio = float(torch.empty(()).uniform_(*np.log(CROP_RATIO)).exp())
        across, down = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < across <= width and 0 < down <= height:
            left, top = (int(torch.randint(room + 1, ())) for room in (width - across, height - down))
            return left, top, across, down
    return 0, 0, width, height


def endless(loader: torch.utils.data.DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from loader


def memory_over_epochs(job: Job, cache: str, epochs: int) -> list[float]:
    """MiB that our process holds at the end of each epoch."""
    from gen2real.methods import regft
    from gen2real.training.run_folder import RunFolder

    job.prepare()
    base = recipe(job)
    config = base.model_copy(
        update={
            "data": base.data.model_copy(update={"cache": cache}),
            "training": base.training.model_copy(update={"steps": None, "epochs": epochs}),
        }
    )
    tuning = regft.prepare(config)
    an_epoch = tuning.data.sampler(job.batch_size, job.seed).steps_per_epoch
    held: list[float] = []

    class Watched(RunFolder):
        def log(self, row: Mapping[str, Any]) -> None:
            if row["step"] % an_epoch == 0:
                held.append(resident_mib())

    tuning.fine_tune(Watched(job.run, config), quiet=True)
    return held


def resident_mib() -> float:
    """What this process holds in memory now; where the system cannot say, the most it ever held."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
