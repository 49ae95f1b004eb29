"""Whole alignments on tiny pairs, in a second each: real pictures of colours, and two drawn from each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from small_runs import at_keys
from torch import Tensor, nn

from gen2real import methods
from gen2real.config import parse_config
from gen2real.files import sha256_of
from gen2real.imagesets import ImageSet, Preprocess
from gen2real.imagesets.manifest import ClassName
from gen2real.methods.gmail import algorithm as gmail
from gen2real.methods.measured import Measured
from gen2real.models import TwoTowers
from tiny import tiny_clip, tiny_siglip

REAL = 10
DRAWN = 2
_WORDS = ["red", "green", "blue", "pink", "grey", "teal", "plum", "rust", "sand", "jade"]


@dataclass(frozen=True)
class Pairs:
    """Where everything lies. `generated` holds one row that names nobody and one whose partner is elsewhere."""

    clip: Path
    siglip: Path
    generated: Path
    real: Path
    evaluation: Path
    cache: Path


def pairs_in(root: Path) -> Pairs:
    """Makes the world: 10 real pictures and 20 drawn ones, 8 pictures to measure on."""
    random = np.random.default_rng(0)
    colours = random.integers(40, 215, (REAL, 3))
    _set(root / "real", "real", [(f"r{n}", None, colours[n] * 0.8, n) for n in range(REAL)], random)
    drawn = [(f"g{n}-{k}", f"r{n}", 255 - colours[n] * 0.7, n) for n in range(REAL) for k in range(DRAWN)]
    lost = [("lost", None, colours[0], 0), ("astray", "r99", colours[0], 0)]
    _set(root / "generated", "generated", drawn + lost, random)
    _set(root / "evaluation", "real", [(f"e{n}", None, colours[n] * 0.9, n) for n in range(8)], random)
    return Pairs(
        clip=tiny_clip(root / "clip"),
        siglip=tiny_siglip(root / "siglip"),
        generated=root / "generated",
        real=root / "real",
        evaluation=root / "evaluation",
        cache=root / "cache",
    )


def _set(
    root: Path, origin: str, pictures: list[tuple[str, str | None, Any, int]], random: np.random.Generator
) -> None:
    rows = []
    for name, partner, colour, number in pictures:
        pixels = np.clip(np.asarray(colour) + random.normal(0, 25, (36, 36, 3)), 0, 255).astype(np.uint8)
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        short = f"a {_WORDS[number]} square"
        captions = [f"drawn {_WORDS[number]}"] if origin == "generated" else [short, f"{short}. It is quite plain"]
        rows.append(
            {
                "id": name,
                "path": path.name,
                "origin": origin,
                "label": "warm" if number % 2 else "cold",
                "captions": captions,
                "pair_id": partner,
                "sha256": sha256_of(path),
            }
        )
    ImageSet.write(root, rows, [ClassName("warm", "warm"), ClassName("cold", "cold")])


def config(pairs: Pairs, folder: Path, **changes: Any) -> Any:
    """Three updates of 6 pictures; a double underscore in `changes` goes into a section."""
    values: dict[str, Any] = {
        "method": "gmail",
        "output": str(folder),
        "encoder": {"name": str(pairs.clip)},
        "data": {
            "generated": [str(pairs.generated)],
            "real": str(pairs.real),
            "evaluation": str(pairs.evaluation),
            "holdout": 0.2,
        },
        "optimizer": {"lr": 1e-2},
        "training": {"steps": 3, "batch_size": 6, "log_every": 1, "checkpoint_every": 2},
    }
    return parse_config(methods.CONFIGS["gmail"], at_keys(values, changes), source="recipe")


def align(pairs: Pairs, folder: Path, **changes: Any) -> Measured:
    """A run from recipe to result."""
    result = methods.run(config(pairs, folder, **changes), quiet=True)
    assert isinstance(result, Measured)
    return result


def named(pairs: Pairs, encoder: str) -> str:
    """What a recipe calls one of the world's encoders, or another by its name."""
    return str(getattr(pairs, encoder, encoder))


def pixels(alignment: gmail.Alignment, count: int = 3) -> Tensor:
    """Preprocessed noise [N 3 S S] of the size that the towers see."""
    size = alignment.data.preprocess.size
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


class Letters(nn.Module):
    """A text tower: the mean of letters' embeddings, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.EmbeddingBag(128, 9), nn.Linear(9, 6)

    def forward(self, texts: list[str]) -> Tensor:
        bags = [self.embedding(torch.tensor([[ord(letter) % 128 for letter in text or " "]]))[0] for text in texts]
        return self.linear(torch.stack(bags))


def _vision() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 6),
    )


def towers() -> TwoTowers:
    """Towers of the user's own, as "paired_runs:towers"."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return TwoTowers(_vision(), Letters(), Preprocess(size=16), math.log(20))


def towers_with_a_function() -> TwoTowers:
    """The same with a text tower that is no module."""
    return TwoTowers(_vision(), lambda texts: torch.ones(len(texts), 6), Preprocess(size=16), 1.0, embedding_dim=6)
