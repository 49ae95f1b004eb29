"""Finished runs of two models trained together, made by hand: twelve measures, a panel, pictures, gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from odd_worlds import SCRIPT, summary_of
from PIL import Image

from gen2real.evaluation.statistics import bootstrap_interval, holm, paired_bootstrap
from gen2real.files import write_json
from gen2real.imagesets import ImageSet
from gen2real.methods.measured import Measured, Reading

SHARES = tuple(f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10))
MEASURES = (*SHARES, "kernel_distance", "clip_score", "clip_i", "diversity", "general_top1", "general_top5")
ARMS = ("ITC only", "IS only", "ITC + IS", "features, both", "features, clip to diffusion", f"relational {SCRIPT}",
        "decoded")  # fmt: skip
UPDATES, EVERY = 400, 40


_WAY = {"gallery": 24, "median_rank": 3.0}
_DETAILS = {
    "retrieval": {"image_to_text": {**_WAY, "gallery": 20}, "text_to_image": _WAY},
    "general_retrieval": {"image_to_text": {**_WAY, "median_rank": 7.5}, "text_to_image": _WAY},
    "synthesis": {"fid": {"distance": 12.345, "shift": 3.0}, "cmmd": 0.4321, "pictures": 24, "dimension": 512},
    "notes": ["FID of 24 pictures is biased upwards"],
}


def _values(seed: int, better: float) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    values = {key: (random.random(24) < 0.3 + better).astype(np.float64) for key in MEASURES}
    values["kernel_distance"] = 0.03 - 0.05 * better + 0.002 * random.normal(size=24)
    for key in ("clip_score", "clip_i", "diversity"):
        values[key] = 0.4 + 0.2 * better + 0.02 * random.normal(size=24)
    return values


def panel_at(share: float, fall: float) -> dict[str, Any]:
    """The panel after a share of the training; `fall`: how much is lost by its end."""
    lost = fall * share
    return {
        "effective_rank_pictures": 24.5 * (1 - lost),
        "effective_rank_texts": 31.25 * (1 - lost),
        "uniformity_pictures": -2.5 + lost,
        "caption_cosine": 0.25 + 0.5 * lost,
        "modality_gap": 0.8 - 0.1 * lost,
        "pictures": 64,
        "texts": 60,
        "text_drift": 0.4 * lost,
        "text_drift_norm": 0.2 * lost,
        "general_top1": {"value": 0.5 - 0.2 * lost, "low": 0.4 - 0.2 * lost, "high": 0.6 - 0.2 * lost},
        "median_rank": None,
    }


def _drawings(folder: Path, seed: int) -> list[dict[str, Any]]:
    random, told = np.random.default_rng(5), []
    (folder / "drawn").mkdir()
    for number in range(6):
        prompt = f"a {('red', 'green', 'blue')[number // 2]} square on a table, seen from above {SCRIPT}"
        one: dict[str, Any] = {"prompt": prompt, "seed": 90 + number}
        for end in ("before", "after"):
            grey = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            own = grey if end == "before" else np.clip(grey + 30 * (seed + 1), 0, 255).astype(np.uint8)
            path = folder / "drawn" / f"{number}-{end}.png"
            Image.fromarray(own).resize((64, 64)).save(path)
            one[end] = f"drawn/{path.name}"
        told.append(one)
    # The last one's file is gone; the one before names a file that is no picture of this run.
    (folder / "drawn" / "5-after.png").unlink()
    told[4]["after"] = "../../../../etc/hostname"
    return told


def cosine(step: int) -> float:
    """Of ITC's and IS's gradients: below 0 at two of five logged updates."""
    return -0.1 if step // 10 % 5 in (1, 3) else 0.2


def joint_run(folder: Path, real: ImageSet, seed: int = 0, better: float = 0.3, fall: float = 0.5) -> Measured:
    """A run of UniDiff: two readings of twelve measures, a panel taken ten times, pictures, losses and cosines."""
    readings = {
        "original": Reading("the two models before training", _values(100, 0.0)),
        "tuned": Reading("the two models after training", _values(seed, better), _DETAILS),
    }
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("method: unidiff\n")
    random, lines = np.random.default_rng(seed), [{"stage": "heads", "step": 10, "loss": 4.0, "rsc": 4.0}]
    for step in range(10, UPDATES + 1, 10):
        fallen, noise = 1 - step / UPDATES, 0.05 * random.normal(size=3)
        terms = {"itc": 3 * fallen + noise[0], "is": 0.4 + 0.2 * fallen + noise[1], "rsc": 4 * fallen + noise[2]}
        row: dict[str, Any] = {"stage": "joint", "step": step, "loss": sum(terms.values()), **terms}
        row |= {"cosine_text_itc_is": cosine(step), "cosine_text_itc_rsc": 0.5, "cosine_unet_is_rsc": 0.1 + noise[0]}
        lines.append(row)
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    steps = range(EVERY, UPDATES + 1, EVERY)
    summary = {
        **summary_of("unidiff", seed, [("trained on", real.manifest), ("measured on", real.manifest)]),
        "pictures": {"real": 12},
        "collapse": {
            "before": panel_at(0, fall),
            "during": [{"step": step, **panel_at(step / UPDATES, fall)} for step in steps],
            "after": panel_at(1, fall),
        },
        "drawn": _drawings(folder, seed),
    }
    summary["cost"]["updates"] = UPDATES
    return Measured.write(folder, summary, readings, headline="tuned")


def joint_comparison(folder: Path, real: ImageSet) -> None:
    """Seven arms over two seeds, all twelve measures, tested against two of them."""
    results = {
        arm: [
            joint_run(folder / "runs" / f"{number}-{seed}", real, seed, 0.1 + 0.05 * number, 0.6 - 0.05 * number)
            for seed in (0, 1)
        ]
        for number, arm in enumerate(ARMS)
    }
    rows = []
    for number, (arm, own) in enumerate(results.items()):
        measures = {}
        for key in MEASURES:
            values = {name: np.stack([one.values("tuned", key) for one in of]) for name, of in results.items()}
            against = {}
            for other in ARMS[:2]:
                if arm != other:
                    test = paired_bootstrap(values[arm], values[other], resamples=100)
                    against[other] = {**test.to_json(), "p_value_holm": holm([test.p_value])[0]}
            interval = bootstrap_interval(values[arm], resamples=100).to_json()
            measures[key] = {"interval": interval, "against": against}
        runs = {str(seed): f"runs/{number}-{seed}" for seed in range(len(own))}
        rows.append({"arm": arm, "size": None, "reading": "tuned", "seeds": 2, "measures": measures,
                     "note": "UniDiff", "runs": runs})  # fmt: skip
    write_json(folder / "table.json", {"version": 1, "kind": "measures", "against": list(ARMS[:2]), "rows": rows})
