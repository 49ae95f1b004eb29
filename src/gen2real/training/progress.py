"""What a person sees while a run trains: a bar with pictures per second and the time left, also after a resume."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class TrainingProgress:
    """A bar over updates. Speed and time left come from this session's updates only; the count includes earlier ones.

    Where the error stream is not a terminal, a line is printed every `interval` seconds instead.
    """

    def __init__(
        self, title: str, *, start: int, steps: int, pictures: int, quiet: bool, interval: float = 30.0
    ) -> None:
        self._title, self._start, self._steps, self._pictures = title, start, steps, pictures
        console = Console(stderr=True, quiet=quiet)
        self._plain = None if quiet or console.is_terminal else console
        self._interval = interval
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=steps, completed=start, speed="")

    def __enter__(self) -> Self:
        self._began = self._told = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, done: int, loss: float) -> None:
        """After update number `done`, whose loss was `loss`."""
        now = time.monotonic()
        rate = (done - self._start) * self._pictures / max(now - self._began, 1e-9)
        self._bar.update(self._task, completed=done, speed=f"{rate:,.1f} pictures/s  loss {loss:.4f}")
        if self._plain is not None and (now - self._told > self._interval or done == self._steps):
            left = (self._steps - done) * self._pictures / max(rate, 1e-9)
            self._told = now
            self._plain.print(
                f"{self._title}: {done}/{self._steps} updates, {rate:,.1f} pictures/s, "
                f"loss {loss:.4f}, {left:,.0f} s left",
                highlight=False,
            )
