"""Make the kit's checkpoints from nothing. The same command again goes on where it stopped."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
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
        Literal["all", "clip", "scorer", "decoder", "multimodal", "autoencoder", "generator"],
        Parameter(help="what to train"),
    ] = "all",
    work: Annotated[Path, Parameter(help="where pictures and checkpoints of the trainings lie")] = Path("build/kit"),
    out: Annotated[Path, Parameter(help="where the finished folders go")] = CHECKPOINTS,
    seed: Annotated[int, Parameter(help="another seed, other weights")] = 0,
    jobs: Annotated[int, Parameter(help="processor cores to use")] = 2,
) -> None:
    """Renders `web`, trains CLIP and autoencoder side by side, then scorer and language model, then the multimodal
    model, then the denoiser.

    The finished folders are copied to `out`.
    """
    torch.set_num_threads(1)
    config = BuildConfig(output=work, seed=seed)
    if stage != "all":
        _train(stage, config, jobs)
        return
    from gen2real.kit.build.corpus import masks, pictures

    began = time.monotonic()
    pictures(config, jobs=jobs)
    masks(config, jobs=jobs)
    module = ["-m", "gen2real.kit.build", "--work", str(work), "--seed", str(seed), "--jobs", str(jobs), "--stage"]
    pairs = [
        [[sys.executable, *module, name] for name in two]
        for two in (("clip", "autoencoder"), ("scorer", "decoder"), ("multimodal",))
    ]
    # One process a core, or the one that a GPU needs.
    processes = 1 if torch.cuda.is_available() else jobs
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    _run(*(pairs if jobs > 1 else [[command] for pair in pairs for command in pair]))
    _run([[sys.executable, *launcher, *module, "generator"]])
    for name in ("clip", "scorer", "decoder", "multimodal", "generator"):
        shutil.copytree(work / name, out / name, dirs_exist_ok=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 1e6:.1f} MB, {(time.monotonic() - began) / 60:.0f} min", file=sys.stderr)


def _train(
    stage: Literal["clip", "scorer", "decoder", "multimodal", "autoencoder", "generator"],
    config: BuildConfig,
    jobs: int,
) -> None:
    if stage == "clip" or stage == "scorer":
        from gen2real.kit.build.clip import build_clip

        build_clip(config, name=stage, jobs=jobs)
    elif stage == "decoder":
        from gen2real.kit.build.decoder import build_decoder

        build_decoder(config)
    elif stage == "multimodal":
        from gen2real.kit.build.multimodal import build_multimodal

        build_multimodal(config, jobs=jobs)
    elif stage == "autoencoder":
        from gen2real.kit.build.autoencoder import latents

        latents(config, jobs=jobs)
    else:
        from gen2real.kit.build.generator import build_generator

        build_generator(config, jobs=jobs)


def _run(*steps: Sequence[Sequence[str]]) -> None:
    """One step after the other; the commands of a step at the same time."""
    for step in steps:
        running = [subprocess.Popen(command) for command in step]
        failed = [command[-1] for command, process in zip(step, running, strict=True) if process.wait()]
        if failed:
            sys.exit(f"{' and '.join(failed)} did not finish; the same command again goes on.")


if __name__ == "__main__":
    app()
