"""What a generation will cost, before anything is spent: a few denoising steps are timed, the rest is arithmetic."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from gen2real.generation.drawing import Painter
from gen2real.generation.generating import batch_size_of, bytes_of_a_picture, free_bytes
from gen2real.generation.generators import load_generator
from gen2real.generation.plan import make_plan, ordered, seed_of
from gen2real.generation.settings import GenerateConfig
from gen2real.generation.writer import SetWriter
from gen2real.training.memory import peak_memory

_FEW, _MORE = 1, 3


@dataclass(frozen=True)
class Part:
    """One generator's part. seconds_per_picture: its steps, encoding its prompt, decoding; of one timed batch."""

    generator: str
    pictures: int
    scheduler: str
    steps: int
    width: int
    height: int
    batch_size: int
    device: str
    dtype: str
    seconds_per_step: float
    seconds_per_picture: float


@dataclass(frozen=True)
class Estimate:
    """What is left of a generation: `pictures` of `planned` in all, `hours` on one device such as this one."""

    planned: int
    pictures: int
    hours: float
    memory_gb: float
    memory_of: str
    disk_gb: float
    disk_free_gb: float
    parts: tuple[Part, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        return {"version": 1, **asdict(self)}

    def text(self) -> str:
        """A few lines for people."""
        before = self.planned - self.pictures
        lines = [f"{self.pictures:,} pictures to draw" + (f", {before:,} are there already" if before else "")]
        for part in self.parts:
            lines.append(
                f"{part.generator}: {part.pictures:,} of {part.width} × {part.height} in {part.steps} steps of "
                f"{part.scheduler}, {part.seconds_per_picture:.2f} s each in batches of {part.batch_size} "
                f"({part.device}, {part.dtype})"
            )
        lines += [
            f"{self.hours:.2f} h on one such device",
            f"{self.memory_gb:.1f} GB of {self.memory_of} memory",
            f"{self.disk_gb:.2f} GB of disk; {self.disk_free_gb:.1f} GB are free",
        ]
        if self.disk_gb > self.disk_free_gb:
            lines.append("The disk is too small for this set: free some space, or choose another folder.")
        return "\n".join(lines)


def estimate(config: GenerateConfig) -> Estimate:
    """Draws one batch with each generator in one step and in three, and writes nothing.

    Raises: what `generate` raises, but for a short disk, which is said in the estimate.
    """
    plan = make_plan(config)
    writer = SetWriter(config, plan)
    done = {one.id for one in plan.pictures} if writer.finished else set(writer.done())
    left = [one for one in plan.pictures if one.id not in done]
    parts, size = [], 0
    for place, settings in enumerate(config.generators):
        todo = ordered(one for one in left if one.generator == place)
        if not todo:
            continue
        generator = load_generator(settings, device=config.device, dtype=config.dtype)
        painter = Painter(generator)
        batch = todo[: batch_size_of(config, generator)]
        prompts, seeds = [one.prompt for one in batch], [seed_of(config.seed, one.id) for one in batch]

        def seconds(steps: int) -> float:
            start = time.perf_counter()
            painter.draw(prompts, seeds, steps=steps)  # noqa: B023
            return time.perf_counter() - start

        # The first one also encodes the prompts and warms up.
        first, few, more = seconds(_FEW), seconds(_FEW), seconds(_MORE)
        step = max(more - few, 0.0) / (_MORE - _FEW)
        different = len({one.prompt for one in todo})
        encoding = max(first - few, 0.0) / len(set(prompts)) * different
        whole = max(few - _FEW * step, 0.0) + generator.steps * step
        size += len(todo) * bytes_of_a_picture(config, generator)
        parts.append(
            Part(
                generator=generator.name,
                pictures=len(todo),
                scheduler=generator.scheduler,
                steps=generator.steps,
                width=generator.width,
                height=generator.height,
                batch_size=len(batch),
                device=str(generator.device),
                dtype=generator.dtype,
                seconds_per_step=step / len(batch),
                seconds_per_picture=whole / len(batch) + encoding / len(todo),
            )
        )
    peak, of = peak_memory()
    return Estimate(
        planned=len(plan.pictures),
        pictures=len(left),
        hours=sum(part.pictures * part.seconds_per_picture for part in parts) / 3600,
        memory_gb=peak / 1e9,
        memory_of=of,
        disk_gb=size / 1e9,
        disk_free_gb=free_bytes(config) / 1e9,
        parts=tuple(parts),
    )
