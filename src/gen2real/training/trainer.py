"""The one trainer. It reads like a table of contents and knows no method.

A method gives it models, parameter groups, batches by update number, and a function from batch to named losses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from gen2real.errors import NonFiniteLoss, RecipeError
from gen2real.progress import WorkProgress
from gen2real.training import checkpoint, schedules
from gen2real.training.averaging import Average
from gen2real.training.memory import keep_freed_memory
from gen2real.training.run_folder import RunFolder
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings


class Part(Protocol):
    """One process's share of a part of a batch; `rows` counts those of the part on all processes."""

    @property
    def rows(self) -> int: ...


B = TypeVar("B", bound=Part)
B_in = TypeVar("B_in", contravariant=True)
B_out = TypeVar("B_out", bound=Part, covariant=True)
_MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


class StepFunction(Protocol[B_in]):
    """Named loss terms of one batch: `loss` is trained, the others are logged."""

    def __call__(self, models: Mapping[str, nn.Module], batch: B_in) -> Mapping[str, Tensor]: ...


class BatchSource(Protocol[B_out]):
    """Batches by update number; the same number always gives the same batch, so a resume needs no further state."""

    def __call__(self, numbers: range) -> Iterator[tuple[B_out, ...]]: ...


@dataclass(frozen=True)
class FitReport:
    """What `fit` did. `seconds` counts every session of the run, `resumed_at` is the update this one began after."""

    steps: int
    resumed_at: int
    seconds: float
    pictures_per_second: float


class Trainer(Generic[B]):
    """Trains one or several models in one step.

    Args:
        folder: the run's folder; checkpoints and metrics go there.
        models: by name. Parameters that require a gradient are trained.
        groups: AdamW parameter groups, each with its base `lr`, and with a `schedule` where it has one of its own.
        step: named losses of a batch.
        batches: for a range of update numbers, an iterator over each update's parts (`accumulation` of them). Parts
            weigh as many as they have rows, so that a mean over rows is the whole batch's.
        steps: updates in the whole run.
        averages: running means of weights, by name: updated after each update, saved and restored with the run.
        stage: a name under which this training's checkpoints lie, where a run has several trainings.

    Raises: RecipeError for a precision or tracker that this machine does not have. From `fit`: NonFiniteLoss before
        the update that would have spread it; CheckpointError.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        models: Mapping[str, nn.Module],
        groups: Sequence[dict[str, Any]],
        step: StepFunction[B],
        batches: BatchSource[B],
        steps: int,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
        training: TrainingSettings,
        averages: Mapping[str, Average] | None = None,
        stage: str = "train",
        quiet: bool = False,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self.folder, self.stage, self.quiet, self.steps = folder, stage, quiet, steps
        self._checkpoints: Path = folder.checkpoints / stage
        self._step, self._batches, self._on_step = step, batches, on_step
        self._settings, self._averages = training, dict(averages or {})
        self._clip_norm = optimizer.clip_norm
        # A schedule is no setting of AdamW's, and no part of its state.
        self._schedules: list[ScheduleSettings] = [group.get("schedule") or schedule for group in groups]
        plain_groups = [{key: value for key, value in group.items() if key != "schedule"} for group in groups]
        self._accelerator = accelerator(training, folder.path)
        if self._accelerator.device.type == "cpu":
            keep_freed_memory()
        plain_optimizer = torch.optim.AdamW(
            plain_groups, lr=optimizer.lr, betas=optimizer.betas, eps=optimizer.eps, weight_decay=0.0, fused=True
        )
        self._base_rates = [float(group["lr"]) for group in plain_optimizer.param_groups]
        self._models: dict[str, nn.Module] = {name: self._accelerator.prepare(model) for name, model in models.items()}
        self._optimizer = self._accelerator.prepare(plain_optimizer)
        self._trainable = [parameter for group in plain_optimizer.param_groups for parameter in group["params"]]
        known = {id(parameter) for parameter in self._trainable}
        for name, model in models.items():
            left_out = [key for key, p in model.named_parameters() if p.requires_grad and id(p) not in known]
            assert not left_out, f"parameters of {name!r} require a gradient and are in no group: {left_out[:5]}"

    def fit(self) -> FitReport:
        """Trains to the last update, from the newest whole checkpoint if there is one."""
        start, before, pictures = self._resume()
        began = time.monotonic()
        with WorkProgress(
            self.stage,
            start=start,
            total=self.steps,
            unit="updates",
            pictures=self._settings.batch_size,
            quiet=self._is_quiet,
        ) as progress:
            for number, parts in zip(range(start, self.steps), self._batches(range(start, self.steps)), strict=True):
                rate = self._set_learning_rates(number)
                terms = self._update(number, parts)
                done = number + 1
                pictures += sum(part.rows for part in parts)
                seconds = before + time.monotonic() - began
                progress.update(done, f"loss {terms['loss']:.4f}")
                self._log(done, {**terms, "learning_rate": rate, "seconds": seconds})
                if done % self._settings.checkpoint_every == 0 or done == self.steps:
                    self._save(done, seconds, pictures)
                if self._on_step is not None:
                    self._on_step(done)
        seconds = before + time.monotonic() - began
        # Accelerate's own `end_training` would also part the processes, and another stage may follow.
        for tracker in self._accelerator.trackers:
            tracker.finish()
        for model in self._models.values():
            # A mixed-precision `forward` goes; what is measured afterwards is measured in the weights' precision.
            self._accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        return FitReport(self.steps, start, seconds, pictures / max(seconds, 1e-9))

    def _resume(self) -> tuple[int, float, int]:
        found = checkpoint.restore(self._checkpoints, self._models, self._optimizer.optimizer, self._averages)
        step, extra = found or (0, {"seconds": 0.0, "pictures": 0, "scaler": None})
        if self._accelerator.scaler is not None and extra["scaler"] is not None:
            self._accelerator.scaler.load_state_dict(extra["scaler"])
        if self._accelerator.is_main_process:
            self.folder.forget_after(self.stage, step)
        return step, float(extra["seconds"]), int(extra["pictures"])

    def _set_learning_rates(self, number: int) -> float:
        """Every group's rate of this update; returns that of the first."""
        scales = [
            schedules.factor(
                number,
                self.steps,
                warmup=schedule.warmup(self.steps),
                name=schedule.name,
                restart_steps=schedule.restart_steps,
                restart_multiplier=schedule.restart_multiplier,
            )
            for schedule in self._schedules
        ]
        for group, base, scale in zip(self._optimizer.param_groups, self._base_rates, scales, strict=True):
            group["lr"] = base * scale
        return self._base_rates[0] * scales[0]

    def _update(self, number: int, parts: tuple[B, ...]) -> dict[str, float]:
        """One update from all parts of its batch; returns the parts' mean of each term."""
        sums: dict[str, float] = {}
        rows = sum(part.rows for part in parts)
        for place, part in enumerate(parts):
            with ExitStack() as stack:
                if place + 1 < len(parts):
                    for model in self._models.values():
                        stack.enter_context(self._accelerator.no_sync(model))
                terms = self._step(self._models, part)
                values = {name: float(term.detach()) for name, term in terms.items()}
                self._refuse_non_finite(number, values)
                self._accelerator.backward(terms["loss"] * (part.rows / rows))
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value * (part.rows / rows)
        if self._clip_norm is not None:
            norm = float(self._accelerator.clip_grad_norm_(self._trainable, self._clip_norm))
            # With a gradient scaler (float16) such an update is left out, and the scale lowered.
            if self._accelerator.scaler is None:
                self._refuse_non_finite(number, {"gradient_norm": norm})
            if math.isfinite(norm):
                sums["gradient_norm"] = norm
        self._optimizer.step()
        self._optimizer.zero_grad()
        if not self._optimizer.step_was_skipped:
            for average in self._averages.values():
                average.update()
        return sums

    def _refuse_non_finite(self, number: int, values: Mapping[str, float]) -> None:
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        # Every process must leave together, or the others would wait for ever in their next gather.
        if self._accelerator.num_processes > 1:
            flag = torch.tensor(float(bool(bad)), device=self._accelerator.device)
            torch.distributed.all_reduce(flag)
            stop = bool(flag)
        else:
            stop = bool(bad)
        if stop:
            terms = ", ".join(f"{name}={value}" for name, value in bad.items()) or "on another process"
            raise NonFiniteLoss(
                f"update {number + 1} has a non-finite loss ({terms}); the weights are those before it. "
                f"Lower the learning rate (--set optimizer.lr={self._base_rates[0] / 3:.1g}), train in "
                "--set training.precision=float32, or look for broken pictures in the data."
            )

    def _log(self, done: int, row: Mapping[str, float]) -> None:
        if done % self._settings.log_every and done not in (1, self.steps):
            return
        if self._accelerator.is_main_process:
            self.folder.log({"stage": self.stage, "step": done, **row})
        if self._settings.trackers:
            self._accelerator.log({f"{self.stage}/{name}": value for name, value in row.items()}, step=done)

    def _save(self, done: int, seconds: float, pictures: int) -> None:
        scaler = self._accelerator.scaler
        checkpoint.save(
            self._checkpoints,
            done,
            self._models,
            self._optimizer.optimizer,
            extra={
                "seconds": seconds,
                "pictures": pictures,
                "scaler": None if scaler is None else scaler.state_dict(),
            },
            keep=self._settings.keep_checkpoints,
            averages=self._averages,
        )

    @property
    def _is_quiet(self) -> bool:
        return self.quiet or not self._accelerator.is_main_process


def accelerator(settings: TrainingSettings, folder: Path) -> Accelerator:
    """An `Accelerator` for these settings; a second run in one process may ask for another precision than the first.

    Raises: RecipeError for float16 without a GPU, and for trackers that are not installed.
    """
    if missing := [name for name in settings.trackers if find_spec(name) is None]:
        raise RecipeError(
            f"training.trackers names {', '.join(missing)}, which is not installed. Install it with: "
            f"pip install {' '.join(missing)}, or leave it out; metrics.jsonl is written in any case."
        )
    AcceleratorState._reset_state(reset_partial_state=False)
    made = Accelerator(
        mixed_precision=_MIXED[resolve_precision(settings.precision)],
        log_with=list(settings.trackers) or None,
        project_dir=folder / "trackers",
    )
    if settings.trackers:
        made.init_trackers("gen2real")
    return made


def resolve_precision(name: str) -> str:
    """`auto` is bfloat16 where the device computes it faster than float32, else float32.

    Raises: RecipeError for float16 without a GPU.
    """
    if name == "float16" and not torch.cuda.is_available():
        raise RecipeError("training.precision is float16, which needs a GPU; on a CPU it is float32 or bfloat16.")
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # AVX512 alone does not do: bfloat16 products are then emulated. Older torch cannot tell and stays exact.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"


def parameter_groups(
    modules: Mapping[str, tuple[nn.Module, float]],
    *,
    weight_decay: float,
    decay_norms_and_biases: bool,
    schedules: Mapping[str, ScheduleSettings | None] | None = None,
) -> list[dict[str, Any]]:
    """AdamW groups from modules with their learning rates; only parameters that require a gradient are in them.

    Args:
        modules: name → (module, learning rate). A parameter that two modules share belongs to the first.
        decay_norms_and_biases: False leaves weight decay off vectors and scalars (norms, biases, scales).
        schedules: name → a schedule of its own; the run's for those that have none here.
    """
    groups: list[dict[str, Any]] = []
    seen: set[int] = set()
    for name, (module, rate) in modules.items():
        schedule = (schedules or {}).get(name)
        common: dict[str, Any] = {"lr": rate, **({} if schedule is None else {"schedule": schedule})}
        own = [p for p in module.parameters() if p.requires_grad and id(p) not in seen]
        seen.update(id(parameter) for parameter in own)
        decayed = [p for p in own if decay_norms_and_biases or p.ndim > 1]
        kept = [p for p in own if not decay_norms_and_biases and p.ndim <= 1]
        groups += [{"params": decayed, **common, "weight_decay": weight_decay}] if decayed else []
        groups += [{"params": kept, **common, "weight_decay": 0.0}] if kept else []
    return groups
