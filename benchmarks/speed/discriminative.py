"""What Sugar's discriminative part adds to an update of plain fine-tuning.

    taskset -c 0 python benchmarks/speed/discriminative.py --out benchmarks/speed/results/discriminative-kit.json
    taskset -c 0 python benchmarks/speed/discriminative.py --model small --batch-size 8 --updates 8
    python benchmarks/speed/discriminative.py --model llava-7b --device cuda --batch-size 16 --updates 20

    generative        α = 0: plain fine-tuning. No head, no teachers, nothing is read
    both              α = 1, triple distances (the kit's scorer for pictures, its CLIP for texts and across): read-outs
                      of the one forward pass, labels, both losses
    both, gradients   the same with `log_every: 1`: the norms of both gradients are measured in every update

All are whole runs of `method: sugar` (`sugar.prepare`, then `tune`), with making batches, and every arm has the same
samples in the same update. What the teachers see is kept on the disk before an update is made, and is not counted.
Each arm runs in a thread of its own and they take turns, an update each; other work on the machine meets all of them,
and the ratio is the median over turns. Batches are made ahead in an arm's own turn. The mark: both takes at most 1.10
of generative.

`parts` are measured by themselves afterwards, on one batch: the labels, and head and loss from hidden states, forward
and backward. They are small beside the noise of whole updates.

kit: the kit's LLaVA; kit-shapes: the same with random weights. small: 12 layers of 512 over the kit's image tower.
llava-7b: LLaVA-1.5-7B's shapes in bfloat16 with activations computed again, one model an arm; needs a GPU. The latter
two have random weights too. All learn from stories of the kit, about six pictures and six sentences each.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from arms import Enough, wait_for
from discriminative_models import SHAPES, kit_processor, random_llava, write_world
from finetune import machine, save
from torch.optim.optimizer import register_optimizer_step_post_hook

ARMS: dict[str, dict[str, Any]] = {
    "generative": {"weight": 0.0, "log_every": 10**6},
    "both": {"weight": 1.0, "log_every": 10**6},
    "both, gradients": {"weight": 1.0, "log_every": 1},
}
MARK = 1.10
UNITS = ("seconds", "cpu_seconds")


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, writes the JSON."""
    options = _options(argv)
    if options.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(options.threads)
    command = " ".join(["python", "benchmarks/speed/discriminative.py", *sys.argv[1:]])
    report: dict[str, Any] = {"machine": {**machine(options), "command": command}, "rounds": []}
    report["options"] = {key: value for key, value in vars(options).items() if key not in ("out", "folder")}
    with tempfile.TemporaryDirectory() as made, patch.dict(os.environ, GEN2REAL_CACHE=f"{made}/cache"):
        room = Path(made)
        stories = write_world(room, options.stories)
        arms = [Arm(name, _tuning(name, options, room, stories), options) for name in ARMS]
        with _after_each_update():
            _take_turns(arms, report, options)
        report["parts"] = parts(arms[1].tuning, options)
    report["summary"] = summary(report)
    for name, value in {**report["summary"], "parts": report["parts"]}.items():
        print(f"{name}: {value}")
    save(report, options.out)


def _take_turns(arms: list[Arm], report: dict[str, Any], options: argparse.Namespace) -> None:
    try:
        for number in range(options.warmup + options.updates):
            # Who goes first changes, so that what one leaves behind meets each of the others.
            order = arms[number % len(arms) :] + arms[: number % len(arms)]
            load = round(os.getloadavg()[0], 2)
            turns = {arm.name: arm.turn() for arm in order}
            if number < options.warmup:
                continue
            report["rounds"].append({"load_before": load, "arms": turns})
            told = "   ".join(f"{arm.name} {turns[arm.name]['cpu_seconds']:.3f} CPU s" for arm in arms)
            print(f"  update {number + 1}   {told}", flush=True)
            save(report, options.out)
    finally:
        for arm in arms:
            arm.end()


class Arm(threading.Thread):
    """A run that makes one update in each of its turns."""

    def __init__(self, name: str, tuning: Any, options: argparse.Namespace) -> None:
        super().__init__(name=name, daemon=True)
        self.tuning = tuning
        self._threads, self._device = options.threads, torch.device(options.device)
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._ended, self._began = False, (0.0, 0.0)
        self._error: BaseException | None = None
        self._took: dict[str, float] = {}

    def turn(self) -> dict[str, float]:
        """Seconds of an update, by the clock and of all the process's threads."""
        if not self.is_alive():
            self.start()
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error
        return self._took

    def end(self) -> None:
        """Leaves the run; what it was making is finished."""
        self._ended = True
        if self.is_alive():
            self._go.release()
            self.join()

    def run(self) -> None:
        """The whole run, up to `end`."""
        from gen2real.training.run_folder import RunFolder

        config = self.tuning.config
        # A thread's own, for torch.
        torch.set_num_threads(self._threads)
        try:
            self._wait()
            with contextlib.suppress(Enough):
                self.tuning.tune(RunFolder(config.output, config), quiet=True)
        except BaseException as error:  # told in `turn`
            self._error = error
            self._done.release()

    def updated(self) -> None:
        """After an update: its time, and nothing until the next turn."""
        wait_for(self._device)
        took = (time.perf_counter() - self._began[0], time.process_time() - self._began[1])
        self._took = dict(zip(UNITS, took, strict=True))
        self._done.release()
        self._wait()

    def _wait(self) -> None:
        self._go.acquire()
        if self._ended:
            raise Enough
        self._began = (time.perf_counter(), time.process_time())


@contextlib.contextmanager
def _after_each_update() -> Any:
    def updated(*_: Any) -> None:
        current = threading.current_thread()
        if isinstance(current, Arm):
            current.updated()

    hook = register_optimizer_step_post_hook(updated)
    try:
        yield
    finally:
        hook.remove()


def _tuning(name: str, options: argparse.Namespace, room: Path, stories: Path) -> Any:
    """A run of the arm, ready for its first update."""
    from gen2real import kit
    from gen2real.config import parse_config
    from gen2real.methods.sugar import algorithm as sugar
    from gen2real.methods.sugar.settings import SugarConfig

    folder = options.folder or (kit.folder("multimodal") if options.model == "kit" else None)
    large = options.model == "llava-7b"
    values = {
        "method": "sugar",
        "output": str(room / name.replace(", ", "-")),
        "model": {"name": str(folder or options.model), "dtype": "bfloat16" if large else "float32"},
        "data": {"train": [str(stories)]},
        "teachers": {"joint": str(kit.folder("clip")), "image": str(kit.folder("scorer"))},
        "discriminative": {"weight": ARMS[name]["weight"], "readouts": options.readouts},
        "training": {
            "steps": 10**6,
            "batch_size": options.batch_size,
            "precision": "bfloat16" if large else options.precision,
            "log_every": ARMS[name]["log_every"],
            "checkpoint_every": 10**6,
            "gradient_checkpointing": large,
        },
        "seed": options.seed,
    }
    config = parse_config(SugarConfig, values, source="the benchmark")
    if folder is not None:
        return sugar.prepare(config)
    dtype = torch.bfloat16 if large else torch.float32
    made = random_llava(
        options.model, kit_processor(options.model), dtype=dtype, device=options.device, seed=options.seed
    )
    with patch.object(sugar, "load_multimodal", lambda *_, **__: made):
        return sugar.prepare(config)


def parts(tuning: Any, options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds (seconds on a GPU) of what the discriminative part does, each by itself; the least of five times."""
    from gen2real.losses import structure
    from gen2real.methods.sugar.data import SugarBatches
    from gen2real.methods.sugar.labels import prefix_targets
    from gen2real.models.retrieval_head import read_out

    config, device = tuning.config, torch.device(options.device)
    sampler = tuning.data.sampler(config.training.batch_size, config.seed)
    ((batch,),) = SugarBatches(tuning.data, tuning.model, sampler, config, tuning.features)(range(1))
    batch, head = batch.to(device), tuning.model.head.to(device)
    hidden = torch.randn(*batch.sequences.labels.shape, tuning.model.width, device=device, requires_grad=True)
    prefixes, kernel = batch.prefixes, config.kernel
    assert prefixes is not None

    def labels() -> torch.Tensor:
        return prefix_targets(prefixes.features, prefixes.rows, prefixes.owners, kernel, calibration=None)

    targets = labels()

    def head_and_loss() -> None:
        embeddings = head(read_out(hidden, batch.sequences.spans))
        structure(embeddings @ embeddings.T, targets).backward()

    return {
        "samples": len(batch.sequences.labels),
        "tokens a sample": batch.sequences.labels.shape[1],
        "read-outs": len(targets),
        "labels": _least(labels, device),
        "head and loss": _least(head_and_loss, device),
    }


def _least(work: Callable[[], Any], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    found = []
    for _ in range(6):
        began = clock()
        work()
        wait_for(device)
        found.append(clock() - began)
    return min(found[1:])


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Medians over turns; the ratios are those of the same turn, and so of the same samples."""
    rounds = [one["arms"] for one in report["rounds"]]
    found: dict[str, Any] = {
        arm: {f"{unit}_per_update": median(own[arm][unit] for own in rounds) for unit in UNITS} for arm in ARMS
    }
    for unit in UNITS:
        for name, one, other in (
            ("both / generative", "both", "generative"),
            ("with gradients / both", "both, gradients", "both"),
        ):
            ratios = sorted(own[one][unit] / own[other][unit] for own in rounds)
            quarter = len(ratios) // 4
            found[f"{name}, {unit}"] = {
                "median": median(ratios),
                "middle_half": [ratios[quarter], ratios[len(ratios) - 1 - quarter]],
            }
    spent = report["parts"]["labels"] + report["parts"]["head and loss"]
    unit = "cpu_seconds" if report["options"]["device"] == "cpu" else "seconds"
    found["parts / generative"] = spent / found["generative"][f"{unit}_per_update"]
    found["within the mark"] = found[f"both / generative, {unit}"]["median"] <= MARK
    return found


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("kit", *SHAPES), default="kit")
    parser.add_argument("--folder", type=Path, help="another multimodal model in place of the kit's")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="llava-7b: bfloat16")
    parser.add_argument("--stories", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--readouts", type=int, default=4, help="prefixes read of a sample")
    parser.add_argument("--updates", type=int, default=16, help="measured ones of each arm")
    parser.add_argument("--warmup", type=int, default=2, help="updates before that")
    parser.add_argument("--threads", type=int, default=1, help="torch's, in every arm")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file with every sample")
    options = parser.parse_args(argv)
    if options.folder is not None and options.model != "kit":
        parser.error(f"--folder and --model {options.model} name two models; give one of them.")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here.")
    if options.model == "llava-7b" and options.device == "cpu":
        parser.error("--model llava-7b has three models of 14 GB and needs a GPU: add --device cuda. On a CPU: small.")
    return options


if __name__ == "__main__":
    main()
