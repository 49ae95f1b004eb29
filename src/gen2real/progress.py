"""What a person sees while work goes on: a bar with pictures per second and the time left, also after a resume."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class WorkProgress:
    """A bar over units of work. Speed and time left come from this session's only; the count includes earlier ones.

    Where the error stream is not a terminal, a line is printed every `interval` seconds instead.

    start, total: units done before, and in all. unit: their name. pictures: how many there are in one of them.
    """

    def __init__(
        self,
        title: str,
        *,
        start: int,
        total: int,
        unit: str = "pictures",
        pictures: int = 1,
        quiet: bool,
        interval: float = 30.0,
    ) -> None:
        self._title, self._start, self._total = title, start, total
        self._unit, self._pictures = unit, pictures
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
        self._task = self._bar.add_task(title, total=total, completed=start, speed="")

    def __enter__(self) -> Self:
        self._began = self._told = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, done: int, note: str = "") -> None:
        """After unit number `done`; `note` is what else there is to say, such as the loss."""
        now = time.monotonic()
        rate = (done - self._start) * self._pictures / max(now - self._began, 1e-9)
        self._bar.update(self._task, completed=done, speed=f"{rate:,.1f} pictures/s  {note}".rstrip())
        if self._plain is not None and (now - self._told > self._interval or done == self._total):
            left = (self._total - done) * self._pictures / max(rate, 1e-9)
            self._told = now
            self._plain.print(
                f"{self._title}: {done}/{self._total} {self._unit}, {rate:,.1f} pictures/s, "
                f"{note}{', ' if note else ''}{left:,.0f} s left",
                highlight=False,
            )
