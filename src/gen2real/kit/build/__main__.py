"""Make the kit's checkpoints from nothing. The same command again goes on where it stopped."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import torch
from cyclopts import App, Parameter

from gen2real.kit.build.settings import BuildConfig

app = App(
    name="python -m gen2real.kit.build", help=__doc__, help_format="plaintext", default_parameter=Parameter(negative=())
)
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


@app.default
def build(
    *,
    stage: Annotated[
        Literal["all", "clip", "scorer", "autoencoder", "generator"], Parameter(help="what to train")
    ] = "all",
    work: Annotated[Path, Parameter(help="where pictures and checkpoints of the trainings lie")] = Path("build/kit"),
    out: Annotated[Path, Parameter(help="where the finished folders go")] = CHECKPOINTS,
    seed: Annotated[int, Parameter(help="another seed, other weights")] = 0,
    jobs: Annotated[int, Parameter(help="processor cores to use")] = 2,
) -> None:
    """Renders `web`, trains CLIP and autoencoder side by side, then the denoiser, and copies the folders to `out`."""
    torch.set_num_threads(jobs if stage == "generator" else 1)
    config = BuildConfig(output=work, seed=seed)
    began = time.monotonic()
    if stage == "all":
        from gen2real.kit.build.corpus import pictures

        pictures(config, jobs=jobs)
        _side_by_side(["clip", "autoencoder"], sys.argv[1:], jobs)
        _side_by_side(["scorer"], sys.argv[1:], jobs)
        _side_by_side(["generator"], sys.argv[1:], jobs)
        for name in ("clip", "scorer", "generator"):
            shutil.copytree(work / name, out / name, dirs_exist_ok=True)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        print(f"{out}: {size / 1e6:.1f} MB, {(time.monotonic() - began) / 60:.0f} min", file=sys.stderr)
        return
    if stage == "clip" or stage == "scorer":
        from gen2real.kit.build.clip import build_clip

        build_clip(config, name=stage, jobs=jobs)
    elif stage == "autoencoder":
        from gen2real.kit.build.autoencoder import latents

        latents(config, jobs=jobs)
    else:
        from gen2real.kit.build.generator import build_generator

        build_generator(config, jobs=jobs)


def _side_by_side(stages: list[str], arguments: list[str], jobs: int) -> None:
    """Each stage in a process of its own, as many at a time as there are cores."""
    commands = [[sys.executable, "-m", "gen2real.kit.build", *arguments, "--stage", stage] for stage in stages]
    if jobs == 1:
        for command in commands:
            subprocess.run(command, check=True)
        return
    running = [subprocess.Popen(command) for command in commands]
    codes = [process.wait() for process in running]
    if any(codes):
        sys.exit(f"{', '.join(stage for stage, code in zip(stages, codes, strict=True) if code)} did not finish.")


if __name__ == "__main__":
    app()
