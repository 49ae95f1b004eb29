"""Captioned pictures, a tiny CLIP and a tiny Stable Diffusion, and the recipe of a joint run on them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image
from small_runs import at_keys

from gen2real.config import parse_config
from gen2real.files import sha256_of
from gen2real.imagesets import ImageSet
from gen2real.methods.unidiff.settings import UniDiffConfig
from gen2real.models.joint import Joint, load_joint
from tiny import tiny_clip, tiny_stable_diffusion

CAPTIONS = ["a red square", "A  red square", "a green square", "a blue one"]
"""The first two are one text to a tokenizer; pictures take them in turn, and every fourth one has two."""


def pair(root: Path, *, clip_size: int = 16) -> Joint:
    """CLIP sees `clip_size` pixels a side, the generator draws 32: latents of 4 × 16 × 16. Two text encoders."""
    clip = tiny_clip(root / "clip", image_size=clip_size)
    return load_joint(names(clip, tiny_stable_diffusion(root / "generator")))


def shared_pair(root: Path) -> Joint:
    """The same in root/clip and root/generator with one text tower."""
    joint = pair(root / "parts")
    joint.encoder.save(root / "clip")
    joint.diffusion.text_encoder = joint.encoder.text.text_model
    joint.diffusion.save_pipeline(root / "generator")
    return load_joint(names(root / "clip", root / "generator"))


def names(clip: Path, generator: Path | str) -> Any:
    """Which models, as a recipe says it."""
    return SimpleNamespace(clip=str(clip), generator=str(generator), text_encoder="auto")


def captioned(folder: Path, count: int, *, seed: int = 0, **changes: Any) -> Path:
    """Noisy pictures of 60 × 40, wider than high; `changes` goes into every row."""
    random, rows = np.random.default_rng(seed), []
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
        captions = [CAPTIONS[number % 4], *(["another one"] if number % 4 == 3 else [])]
        row = {"id": f"p{number}", "path": path.name, "captions": captions, "sha256": sha256_of(path)}
        rows.append({**row, **changes})
    ImageSet.write(folder, rows, [])
    return folder


def config(pictures: Path, **changes: Any) -> UniDiffConfig:
    """Batches of 6; a double underscore in `changes` goes into a section."""
    values: dict[str, Any] = {
        "method": "unidiff",
        "output": "run",
        "models": {"clip": "clip", "generator": "generator"},
        "data": {"pictures": str(pictures), "holdout": 0, "crop_scale": [0.4, 0.6], "flip": 0.5, "views": 2},
        "training": {"steps": 3, "batch_size": 6},
    }
    found = parse_config(UniDiffConfig, at_keys(values, changes), source="recipe")
    assert isinstance(found, UniDiffConfig)
    return found
