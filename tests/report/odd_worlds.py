"""Tiny runs and sets whose names try to break out of a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from gen2real import methods
from gen2real.comparison import compare
from gen2real.config import parse_config
from gen2real.files import sha256_of
from gen2real.imagesets import ClassName, ImageSet, unique_slugs
from gen2real.methods.measured_run import described_sets
from gen2real.methods.settings import CompareConfig
from tiny import tiny_clip

SCRIPT = "<script>alert(1)</script>"
NAMES = [SCRIPT, 'blue "&" </script><img src=x onerror=alert(2)>', "yellow"]
_COLOURS = [(200, 40, 40), (40, 60, 200), (220, 210, 50)]


def odd_set(root: Path, *, origin: str = "generated", per_class: int = 4, **columns: list[Any]) -> ImageSet:
    """Plain colours with noise, 24 × 16 pixels; prompts hold the class name. columns: further ones, a value a row."""
    random = np.random.default_rng([7, origin == "real"])
    classes = [ClassName(label, name) for label, name in zip(unique_slugs(NAMES), NAMES, strict=True)]
    rows: list[dict[str, Any]] = []
    for known, colour in zip(classes, _COLOURS, strict=True):
        for number in range(per_class):
            base = np.array(colour) * (0.6 if origin == "real" else 1.0)
            pixels = np.clip(base + random.normal(0, 25, (16, 24, 3)), 0, 255).astype(np.uint8)
            path = root / known.label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            rows.append(
                {
                    "id": f"{known.label}-{number}",
                    "path": f"{known.label}/{number}.png",
                    "origin": origin,
                    "label": known.label,
                    "sha256": sha256_of(path),
                    "kept": True,
                }
            )
            if origin == "generated":
                more = {"prompt": f"a photo of {known.name}", "seed": 100 + len(rows), "generator": "tiny/diffusion"}
                rows[-1] |= {**more, "guidance": 7.5, "steps": 4}
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return ImageSet.write(root, rows, classes)


def summary_of(method: str, seed: int, sets: list[tuple[str, Path]]) -> dict[str, Any]:
    """What `result.json` of a measured run says but for its readings. sets: role and manifest."""
    return {
        "method": method,
        "seed": seed,
        "encoder": f"somewhere/{SCRIPT}",
        "pictures": {"generated": 12, "real": 4},
        "cost": {"training_seconds": 83.0, "pictures_per_second": [210.5], "updates": 40,
                 "peak_memory": {"bytes": 3 * 2**28, "of": "CPU"}},
        "data": {},
        "sets": described_sets(sets),
        "environment": {"gen2real": "0", "torch": "2"},
    }  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """Folders of a finished run and of a finished comparison, and the sets behind them."""

    run: Path
    comparison: Path
    generated: Path
    real: Path


def make_runs(root: Path) -> Runs:
    """A run of the whole encoder, and a comparison of the head alone."""
    clip = tiny_clip(root / "clip")
    generated, real = odd_set(root / "generated"), odd_set(root / "real", origin="real")
    values = {
        "method": "regft",
        "output": str(root / "run"),
        "encoder": {"name": str(clip)},
        "prompts": {"templates": ["a photo of {}"]},
        "data": {"generated": [str(generated.root)], "holdout": 0.25, "evaluation": str(real.root)},
        "optimizer": {"lr": 1e-3},
        "training": {"steps": 3, "batch_size": 8, "log_every": 1},
        "ensemble": {"sweep": [0.25, 0.5, 0.75]},
    }
    methods.run(parse_config(methods.CONFIGS["regft"], values, source="recipe"), quiet=True)
    head = {**values, "tune": "head", "loss": {"variance": 0, "covariance": 0}}
    recipe = root / "head.yaml"
    recipe.write_text(yaml.safe_dump(head))
    arms: dict[str, Any] = {
        "zero-shot": {"reading": "zero_shot"},
        "head": {"reading": "tuned", "note": "<b>not bold</b>"},
        f"half {SCRIPT}": {"reading": "blend"},
        "best": {"reading": "oracle"},
    }
    compared = {"output": str(root / "compared"), "recipe": str(recipe), "seeds": [0, 1], "arms": arms}
    config = parse_config(CompareConfig, {**compared, "against": ["zero-shot"]}, source="compare")
    compare(config, quiet=True)
    return Runs(root / "run", root / "compared", generated.root, real.root)
