"""Finished measured runs, made by hand, whose captions try to break out of a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joint_worlds import joint_comparison, joint_run
from odd_worlds import SCRIPT, odd_set, summary_of

from gen2real.evaluation.statistics import bootstrap_interval, holm, paired_bootstrap
from gen2real.files import write_json
from gen2real.imagesets import ImageSet
from gen2real.methods.measured import Measured, Reading

RECALLS = ("image_to_text_recall@1", "image_to_text_recall@5", "text_to_image_recall@1", "text_to_image_recall@5")
_GALLERY = {"retrieval": {"image_to_text": {"gallery": 24}, "text_to_image": {"gallery": 12}}}


@dataclass(frozen=True)
class MeasuredRuns:
    """Folders of an alignment run, a captioning run, a comparison with sizes, a joint run and a comparison of such;
    the sets behind them.
    """

    aligned: Path
    captioner: Path
    comparison: Path
    joint: Path
    joints: Path
    generated: Path
    real: Path


def _values(seed: int, share: float, keys: tuple[str, ...], count: int = 12) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {key: (random.random(count) < share).astype(np.float64) for key in keys}


def _alignment(real: ImageSet, generated: ImageSet) -> dict[str, Any]:
    random = np.random.default_rng(3)

    def end(true: float, shuffled: float, found: float) -> dict[str, Any]:
        return {
            "true_cosine": bootstrap_interval(true + 0.05 * random.normal(size=12)).to_json(),
            "shuffled_cosine": bootstrap_interval(shuffled + 0.05 * random.normal(size=12)).to_json(),
            "modality_gap": 1 - true,
            "partner_chance@1": 1 / 12,
            "partner_recall@1": bootstrap_interval((np.arange(12) < 12 * found).astype(float)).to_json(),
        }

    examples = [
        {
            "generated": generated.ids[row],
            "real": real.ids[row],
            "found": real.ids[row if row else 5],
            "cosine_before": 0.41,
            "cosine_after": 0.72,
        }
        for row in range(4)
    ]
    rise = paired_bootstrap(0.3 + 0.05 * random.normal(size=12), np.full(12, 0.05)).to_json()
    ends = {"before": end(0.5, 0.4, 0.25), "after": end(0.8, 0.45, 0.75)}
    counts = {"generated": 12, "real": 12}
    return {**ends, "pictures": counts, "pairs": 12, "rise": rise, "examples": examples}


def _plane() -> dict[str, torch.Tensor]:
    places = torch.Generator().manual_seed(0)
    ends = {f"{side}.{end}": 0.2 * torch.randn(12, 2, generator=places) for side in ("generated", "real")
            for end in ("zero_shot", "tuned")}  # fmt: skip
    ends["generated.zero_shot"] += 1
    rows = torch.arange(12, dtype=torch.int32)
    return {**ends, "generated.rows": rows, "real.rows": rows, "explained": torch.tensor([0.4, 0.1])}


def aligned_run(folder: Path, generated: ImageSet, real: ImageSet, seed: int = 0, share: float = 0.7) -> Measured:
    """A run of GMAIL: four readings, an alignment with examples, a map and a loss."""
    sets = [("trained on", generated.manifest), ("measured on", real.manifest)]
    readings = {
        "baseline": Reading("the original model", _values(100, 0.4, RECALLS), _GALLERY),
        "f_r": Reading("real pictures through the original tower", _values(seed, share, RECALLS), _GALLERY),
        "f_g": Reading("real pictures through the aligned tower", _values(seed + 50, share - 0.1, RECALLS)),
    }
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("method: gmail\n")
    (folder / "metrics.jsonl").write_text(
        "".join(f'{{"stage": "align", "step": {step}, "loss": {5 / step:.4f}}}\n' for step in range(1, 41))
    )
    summary = {
        **summary_of("gmail", seed, sets),
        "alignment": _alignment(real, generated),
        "loss": "align",
        "unmatched": 3,
    }
    return Measured.write(folder, summary, readings, headline="f_r", plane=_plane())


def captioner_run(folder: Path, generated: ImageSet, real: ImageSet) -> Measured:
    """A run of captioning: scores, and samples of which one names a picture that is not there."""
    readings = {}
    for number, name in enumerate(("one_mapper", "two_mappers")):
        values = {key: np.random.default_rng(number).random(12) for key in ("bleu4", "rouge_l", "cider")}
        readings[name] = Reading(f"{number + 1} mapper(s)", values)
    samples = [
        {
            "set": str(real.manifest),
            "id": name,
            "path": path,
            "references": [f"a {SCRIPT} square", "a square", "one square", "a shape"],
            "captions": {"one_mapper": f"a square {SCRIPT}", "two_mappers": ""},
        }
        for name, path in [*zip(real.ids[:3], map(str, real.paths), strict=False), ("gone", "gone.png")]
    ]
    sets = [("trained on", generated.manifest), ("measured on", real.manifest)]
    folder.mkdir(parents=True)
    summary = {**summary_of("captioning", 0, sets), "samples": samples}
    return Measured.write(folder, summary, readings, headline="one_mapper")


def make_measured(root: Path) -> MeasuredRuns:
    """An alignment run, a captioning run, and a comparison of two arms over two seeds and three sizes."""
    generated, real = odd_set(root / "generated"), odd_set(root / "real", origin="real")
    aligned_run(root / "aligned", generated, real)
    captioner_run(root / "captioner", generated, real)
    folder = root / "compared"
    rows, scaling = [], []
    for size in (500, 1000, 4000):
        found = {}
        for arm, share in (("text only", 0.45), (f"aligned {SCRIPT}", 0.5 + 0.1 * np.log10(size / 100))):
            number = f"{len(rows):02d}"
            runs = {str(seed): f"runs/{number}-{seed}" for seed in (0, 1)}
            results = [
                aligned_run(folder / run, generated, real, seed=int(seed), share=share) for seed, run in runs.items()
            ]
            found[arm] = results
            first = next(iter(found.values()))
            measures = {}
            for key in RECALLS:
                ours, theirs = (np.stack([one.values("f_r", key) for one in of]) for of in (results, first))
                test = paired_bootstrap(ours, theirs, resamples=200)
                against = {} if results is first else {
                    "text only": {**test.to_json(), "p_value_holm": holm([test.p_value])[0]}
                }  # fmt: skip
                interval = bootstrap_interval(ours, resamples=200).to_json()
                measures[key] = {"interval": interval, "against": against}
                scaling.append({"arm": arm, "size": size, "measure": key, "interval": interval})
            rows.append({"arm": arm, "size": size, "reading": "f_r", "seeds": 2, "measures": measures,
                         "note": "<b>not bold</b>", "runs": runs})  # fmt: skip
    table = {"version": 1, "kind": "measures", "against": ["text only"], "rows": rows, "scaling": scaling}
    write_json(folder / "table.json", table)
    joint_run(root / "joint", real)
    joint_comparison(root / "joints", real)
    return MeasuredRuns(
        root / "aligned", root / "captioner", folder, root / "joint", root / "joints", generated.root, real.root
    )
