"""A judge of drawn pictures: a small convolutional network that learnt kinds and colours from real scenes of `web`.

It shares nothing with the kit's checkpoints: other architecture, other scenes of the split, no text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gen2real.config import Config
from gen2real.files import read_tensors, write_tensors
from gen2real.kit.build.corpus import CorpusBatch, pixels
from gen2real.kit.build.fitting import fit
from gen2real.kit.build.settings import StageSettings
from gen2real.kit.world import COLOURS, KINDS, Scene, render, sample_scene

PAIRS = [(kind, colour) for kind in KINDS for colour in COLOURS]
# The checkpoints see scenes 0 to 39,999 of web train.
FIRST, SCENES = 40_000, 12_000


class JudgeConfig(Config):
    """How long the judge learns."""

    stage: StageSettings = StageSettings(steps=1_000, batch_size=64, lr=2e-3)
    output: Path
    seed: int = 0


class Judge(nn.Module):
    """Pixels [N 3 64 64] → a logit for the presence of each kind–colour pair: [N 144]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 48), (48, 64), (64, 96)):
            layers += [nn.Conv2d(before, after, 3, stride=2 if before == 3 else 1, padding=1)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()] + ([nn.MaxPool2d(2)] if before > 3 else [])
        self.trunk = nn.Sequential(*layers, nn.Conv2d(96, 128, 1), nn.ReLU())
        self.kind, self.colour = nn.Conv2d(128, len(KINDS), 1), nn.Conv2d(128, len(COLOURS), 1)

    def forward(self, seen: Tensor) -> Tensor:
        grid = self.trunk(seen)
        # Kind and colour are judged at each place and then put together, so that a pair is one toy's.
        both = self.kind(grid)[:, :, None] + self.colour(grid)[:, None]
        return both.flatten(3).logsumexp(dim=3).flatten(1) - float(np.log(grid.shape[-1] * grid.shape[-2]))


def presence(scenes: list[Scene]) -> Tensor:
    """[N 144]: which pairs are in each scene."""
    found = torch.zeros(len(scenes), len(PAIRS))
    for row, scene in enumerate(scenes):
        for toy in scene.toys:
            found[row, PAIRS.index((toy.kind, toy.colour))] = 1
    return found


def trained_judge(work: Path) -> Judge:
    """The judge, from `work` if it was trained there before."""
    judge, stored = Judge(), work / "judge.safetensors"
    if stored.exists():
        judge.load_state_dict(read_tensors(stored))
        return judge.eval()
    scenes = [sample_scene("web", "train", FIRST + index) for index in range(SCENES)]
    seen, truth = render(scenes), presence(scenes)
    config = JudgeConfig(output=work / "judge-run")

    def step(models: Mapping[str, nn.Module], batch: CorpusBatch) -> dict[str, Tensor]:
        shown = seen[batch.indices]
        logits = models["judge"](pixels(shown))
        return {"loss": F.binary_cross_entropy_with_logits(logits.float(), truth[batch.indices]) * len(PAIRS)}

    torch.manual_seed(config.seed)
    judge = Judge().train()
    fit(config.output, config, config.stage, {"judge": judge}, step, scenes=SCENES, seed=config.seed)
    write_tensors(stored, judge.state_dict())
    return judge.eval()


@torch.inference_mode()
def verdicts(judge: Judge, seen: np.ndarray, truth: Tensor) -> dict[str, Tensor]:
    """Bool [N] each: whether the k likeliest kinds (and kind–colour pairs) are the k that are in the picture."""
    logits = torch.cat([judge(pixels(seen[start : start + 256])) for start in range(0, len(seen), 256)])
    by_kind = logits.reshape(len(logits), len(KINDS), len(COLOURS))
    kinds = truth.reshape(by_kind.shape).amax(dim=2)
    return {"kinds": _top_matches(by_kind.amax(dim=2), kinds), "kinds and colours": _top_matches(logits, truth)}


def _top_matches(logits: Tensor, truth: Tensor) -> Tensor:
    counts = truth.sum(dim=1).long()
    order = logits.argsort(dim=1, descending=True)
    rank = torch.arange(logits.shape[1])
    chosen = torch.zeros_like(truth).scatter(1, order, (rank < counts[:, None]).to(truth.dtype))
    return (chosen == truth).all(dim=1)
