"""What Sugar's labels find by themselves: the teachers' kernel searches as the tuned model is asked to.

    python benchmarks/kit/sugar_labels.py [--set KEY=VALUE …]      writes benchmarks/kit/results/sugar-labels.json

A model that learnt L_d to the end would find what its labels find. Searches whose gallery is single pictures are asked:
stories and composed ones, and pictures by their captions (there a label is CLIP's cosine).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent))

from gen2real import load_recipe  # noqa: E402
from gen2real.evaluation.tasks import measure_task  # noqa: E402
from gen2real.files import write_json  # noqa: E402
from gen2real.imagesets.interleaved import Interleaved, Turn, slices  # noqa: E402
from gen2real.methods.sugar.algorithm import prepare  # noqa: E402
from gen2real.methods.sugar.labels import Calibration, Teachers, prefix_targets  # noqa: E402
from gen2real.methods.sugar.settings import SugarConfig  # noqa: E402
from publishing import provenance  # noqa: E402

CONTROLS = {
    "as the recipe has it": (),
    "mean of slices": ("kernel.alignment=mean",),
    "one encoder": ("kernel.local=joint",),
}
SEARCHES = ("pairs", "stories", "composed")


class Labels:
    """Embeds by label, so that tasks can ask: the first contents, single pictures all, are the gallery, one axis each;
    what is embedded afterwards lies along an axis as far as its label with that picture says."""

    def __init__(self, config: SugarConfig, calibration: Calibration | None) -> None:
        self._config, self._calibration = config, calibration
        self._teachers = Teachers(config.teachers)
        self._gallery: list[Interleaved] = []

    def embed(self, parts: Sequence[Sequence[str | Path]], *, batch_size: int) -> Tensor:
        """[N G], G the gallery's size; the inner product with a picture's axis is the label."""
        contents = [Interleaved(str(place), (Turn(tuple(own)),)) for place, own in enumerate(parts)]
        if not self._gallery:
            self._gallery = contents
            return torch.eye(len(contents))
        asked = [slices(one) for one in (*contents, *self._gallery)]
        features = self._teachers.features([one for own in asked for one in own])
        prefixes = [features.prefix(own) for own in asked]
        labels = prefix_targets(
            features, prefixes, range(len(asked)), self._config.kernel, calibration=self._calibration
        )
        return labels[: len(contents), len(contents) :]


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="over the recipe")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "sugar-labels.json")
    options = parser.parse_args(argv)
    os.chdir(ROOT)
    report: dict[str, Any] = {"provenance": provenance("python benchmarks/kit/sugar_labels.py")}
    for name, changes in CONTROLS.items():
        overrides = ["head.whiten=false", "head.first_updates=0", *changes, *options.set]
        config = load_recipe(ROOT / "recipes" / "sugar" / "kit.yaml", {"sugar": SugarConfig}, overrides)
        assert isinstance(config, SugarConfig)
        tuning = prepare(config)
        report[name] = {}
        for task in SEARCHES:
            asked = config.evaluation[task]
            labels = Labels(config, tuning.calibration)
            scores = measure_task(asked.task, tuning.model, asked.path, embedder=labels, limit=asked.limit)
            found = scores.to_json()["measures"]
            # Captions are no gallery here, so nothing is found among them.
            report[name][task] = {key: own for key, own in found.items() if not key.startswith("image_to_text")}
            for key, own in report[name][task].items():
                print(f"{name}, {task} {key}: {100 * own['mean']:.1f} %", flush=True)
    write_json(options.out, report)


if __name__ == "__main__":
    main()
