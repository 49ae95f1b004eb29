"""The bar tells speed and time left of this session, counted from where the run stands."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from gen2real import progress as module
from gen2real.progress import WorkProgress


class Clock:
    """Time that passes when told."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def test_without_a_terminal_a_line_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with WorkProgress("encoder", start=0, total=10, unit="updates", pictures=8, quiet=False, interval=30) as bar:
        for done in range(1, 11):
            clock.now += 10.0
            bar.update(done, "loss 0.5000")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "encoder: 4/10 updates, 0.8 pictures/s, loss 0.5000, 60 s left",
        "encoder: 8/10 updates, 0.8 pictures/s, loss 0.5000, 20 s left",
        "encoder: 10/10 updates, 0.8 pictures/s, loss 0.5000, 0 s left",
    ]


def test_after_a_resume_only_this_sessions_updates_make_the_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with WorkProgress("encoder", start=900, total=1000, unit="updates", pictures=64, quiet=False, interval=0.5) as bar:
        clock.now += 2.0
        bar.update(901, "loss 1.2500")
    assert capsys.readouterr().err == "encoder: 901/1000 updates, 32.0 pictures/s, loss 1.2500, 198 s left\n"


def test_quiet_is_quiet(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with WorkProgress("encoder", start=0, total=1, unit="updates", pictures=8, quiet=True, interval=0) as bar:
        clock.now += 1
        bar.update(1, "loss 0.5000")
    assert capsys.readouterr() == ("", "")


def test_in_a_terminal_the_bar_begins_where_the_run_stands(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()

    def terminal(**settings: Any) -> Console:
        return Console(file=screen, force_terminal=True, width=140, quiet=settings["quiet"], color_system=None)

    monkeypatch.setattr(module, "Console", terminal)
    with WorkProgress("encoder", start=900, total=1000, unit="updates", pictures=64, quiet=False) as bar:
        clock.now += 2.0
        bar.update(950, "loss 1.2500")
        tasks = bar._bar.tasks
        assert (tasks[0].completed, tasks[0].total) == (950, 1000)
        bar._bar.refresh()
    shown = screen.getvalue()
    assert "900/1000" in shown
    assert "950/1000" in shown
    assert "1,600.0 pictures/s  loss 1.2500" in shown
    assert "updates," not in shown, "a terminal gets the bar, not the lines"


def test_pictures_are_the_unit_where_nothing_else_is_said(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with WorkProgress("drawing", start=90, total=100, quiet=False) as bar:
        clock.now += 40.0
        bar.update(94)
    assert capsys.readouterr().err == "drawing: 94/100 pictures, 0.1 pictures/s, 60 s left\n"


def test_the_bar_is_put_away_when_training_fails(clock: Clock) -> None:
    bar = WorkProgress("encoder", start=0, total=2, unit="updates", pictures=8, quiet=False)
    with pytest.raises(ArithmeticError), bar:
        raise ArithmeticError
    assert not bar._bar.live.is_started
