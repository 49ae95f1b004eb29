"""Draws one set in a piece and one with kills: `python killed_generations.py WHOLE.json KILLED.json KILLS`.

The processes are forks, so that torch is imported once. Each of the KILLS first ones is killed with -9 some pictures
after its start, at a moment that nobody chose: while it loads, draws, writes a picture, or writes its line. The last
one lives. A line says how each one ended and how many pictures were finished then.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from gen2real.files import read_json
from gen2real.generation import GenerateConfig, generate
from gen2real.generation.drawing import Painter
from gen2real.generation.generators import load_generator


def finished(output: Path) -> int:
    """Whole lines in all journals."""
    return sum(path.read_bytes().count(b"\n") for path in output.glob("generation/journal/*.jsonl"))


def start(config: GenerateConfig) -> int:
    """A process that generates."""
    child = os.fork()
    if child == 0:
        try:
            generate(config, quiet=True)
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)  # noqa: T201
            os._exit(1)
        os._exit(0)
    return child


def ended(child: int) -> str:
    """How a process ended."""
    _, status = os.waitpid(child, 0)
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def main() -> None:
    """Both sets."""
    torch.set_num_threads(1)
    whole, killed = (GenerateConfig.model_validate(read_json(Path(path))) for path in sys.argv[1:3])
    # What a first drawing imports, the forks have already.
    Painter(load_generator(whole.generators[0], device="cpu", dtype="float32")).draw(["one"], [1])
    print("whole", ended(start(whole)), flush=True)  # noqa: T201
    chance = random.Random(20261101)
    for _ in range(int(sys.argv[3])):
        child = start(killed)
        goal = finished(killed.output) + chance.randrange(5)
        deadline = time.monotonic() + 60
        while finished(killed.output) < goal and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.02)
        os.kill(child, signal.SIGKILL)
        print("killed", ended(child), finished(killed.output), flush=True)  # noqa: T201
    print("killed", ended(start(killed)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
