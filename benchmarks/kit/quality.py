"""How good the kit's checkpoints are: zero-shot, retrieval, the generator's distance, and what its pictures show.

    python benchmarks/kit/quality.py            # minutes on two cores; writes results/quality.json

Everything is measured on test splits that no checkpoint has seen. `judge.py` says who judges the drawn pictures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from judge import presence, trained_judge, verdicts
from PIL import Image

from gen2real import kit
from gen2real.evaluation.distances import kernel_distance
from gen2real.evaluation.features import encode_pictures
from gen2real.evaluation.statistics import proportion_interval
from gen2real.files import write_json
from gen2real.generation import GenerateConfig, GeneratorSettings, generate
from gen2real.imagesets import ImageSet
from gen2real.imagesets.loading import Pictures
from gen2real.kit.world import render, sample_scene, write_image_set
from gen2real.kit.world.language import name
from gen2real.methods.finished import evaluate_model, evaluate_retrieval
from gen2real.models import load_dual_encoder
from gen2real.training.run_folder import environment

HERE = Path(__file__).parent
TEMPLATES = ("a photo of a {}",)


def main() -> None:
    options = _options()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/kit/quality.py", *sys.argv[1:]]),
        "environment": environment(),
    }
    sets = {domain: _set(work / f"{domain}-test", domain, options.pictures) for domain in ("web", "home")}
    for encoder in ("clip", "scorer"):
        folder = options.kit / encoder
        if folder.is_dir():
            report[encoder] = {domain: _encoder(folder, one) for domain, one in sets.items()}
            print(encoder, report[encoder], flush=True)
    report["generator"] = _generator(options, work)
    write_json(options.out, report)


def _encoder(folder: Path, one: ImageSet) -> dict[str, Any]:
    """Zero-shot top-1 over the 18 kinds (pictures of one toy), retrieval over all pictures and their captions."""
    single = one.select([row for row, label in enumerate(one.labels) if label >= 0])
    found = evaluate_model(folder, single, templates=TEMPLATES)
    retrieval = evaluate_retrieval(folder, one)
    return {
        "zero_shot_top1": found.top1.to_json(),
        "image_to_text": retrieval.image_to_text.to_json(),
        "text_to_image": retrieval.text_to_image.to_json(),
    }


def _generator(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    judge = trained_judge(work)
    real = [sample_scene("web", "test", index) for index in range(options.pictures)]
    seen = render(real)
    report: dict[str, Any] = {"judge on real scenes": _told(verdicts(judge, seen, presence(real)), real)}
    prompts = work / "prompts.jsonl"
    allowed = [scene for scene in real if len(scene.toys) <= 2]
    rows = [" and ".join(name(toy) for toy in scene.toys) for scene in allowed]
    prompts.write_text("".join(json.dumps({"caption": f"a photo of {row}"}) + "\n" for row in rows), encoding="utf-8")
    began = time.monotonic()
    drawn = generate(
        GenerateConfig(
            source=prompts,
            output=work / f"drawn-{options.steps}-{options.guidance}",
            generators=(
                GeneratorSettings(name=str(options.kit / "generator"), steps=options.steps, guidance=options.guidance),
            ),
        )
    )
    assert drawn is not None
    report["seconds"] = round(time.monotonic() - began, 1)
    report["pictures"], report["steps"], report["guidance"] = len(drawn), options.steps, options.guidance
    shown = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in drawn.paths])
    report["drawn show the prompt"] = _told(verdicts(judge, shown, presence(allowed)), allowed)
    encoder = load_dual_encoder(options.kit / "scorer")
    reference = ImageSet.read(work / "web-test")
    single_or_two = reference.select(
        [row for row, kinds in enumerate(reference.table["kinds"].to_pylist()) if len(kinds) <= 2]
    )
    half = len(single_or_two) // 2
    features = {
        label: encode_pictures(encoder.vision, Pictures(one, encoder.preprocess))
        for label, one in (("drawn", drawn), ("real", single_or_two))
    }
    report["kernel_distance"] = kernel_distance(features["drawn"], features["real"], subset_size=500).to_json()
    report["kernel_distance_real_halves"] = kernel_distance(
        features["real"][:half], features["real"][half:], subset_size=half
    ).to_json()
    return report


def _told(found: dict[str, torch.Tensor], scenes: list[Any]) -> dict[str, Any]:
    """The share of pictures that show what they should, by number of toys."""
    counts = torch.tensor([len(scene.toys) for scene in scenes])
    return {
        f"{number} toy(s): {what}": proportion_interval(
            int(right[counts == number].sum()), int((counts == number).sum())
        ).to_json()
        for what, right in found.items()
        for number in sorted(set(counts.tolist()))
    }


def _set(folder: Path, domain: Any, count: int) -> ImageSet:
    return (
        ImageSet.read(folder)
        if (folder / "manifest.parquet").exists()
        else write_image_set(folder, domain, "test", count)
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", type=Path, default=Path(kit.__file__).parent / "checkpoints")
    parser.add_argument("--pictures", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--work", type=Path, default=Path("build/kit-quality"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "quality.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
