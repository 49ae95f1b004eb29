"""How well the kit's multimodal model answers and captions pictures it has not seen, beside what needs no picture.

    python benchmarks/kit/answers.py            # some minutes on one core; writes results/answers.json

Test scenes of each domain, every question that has one right answer, by topic. Beside the model: the same model asked
without the picture; the answer that the same words most often have in `web` train; the same model with two other
pictures in front. Captions: CIDEr-D against five true ones of the scene, and against those of the next scene.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gen2real import kit
from gen2real.evaluation.captioning import caption_scores
from gen2real.evaluation.questions import question_scores
from gen2real.evaluation.statistics import bootstrap_interval, group_values
from gen2real.files import write_json
from gen2real.kit.world import Scene, caption, questions, render, sample_scene
from gen2real.kit.world.language import Question
from gen2real.kit.world.scenes import stream
from gen2real.models.multimodal import MARK, MultimodalModel, load_multimodal
from gen2real.prompts import CAPTION_PROMPTS
from gen2real.training.run_folder import environment

HERE = Path(__file__).parent
_CAPTIONS = 5
_BATCH = 64


def main(argv: list[str] | None = None) -> None:
    """Measures, prints, writes the JSON."""
    options = _options(argv)
    torch.set_num_threads(1)
    model = load_multimodal(options.model or kit.folder("multimodal"))
    report: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/kit/answers.py", *sys.argv[1:]]),
        "environment": environment(),
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        "of_the_tower": sum(parameter.numel() for parameter in model.vision.parameters()),
    }
    prior = most_frequent(options.prior)
    for domain in ("web", "home"):
        scenes = [sample_scene(domain, "test", index) for index in range(options.scenes)]
        pictures = [Image.fromarray(one) for one in render(scenes)]
        report[domain] = {
            "questions": asked(model, scenes, pictures, prior),
            "captions": captioned(model, scenes, pictures, domain),
        }
        print(domain, report[domain], flush=True)
    if options.out is not None:
        write_json(options.out, report)


def most_frequent(scenes: int) -> dict[str, str]:
    """Question → its most frequent answer in the first scenes of `web` train; "" → the most frequent of all."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(scenes):
        for one in questions(sample_scene("web", "train", index)):
            answers[one.question][one.answer] += 1
            answers[""][one.answer] += 1
    return {question: counts.most_common(1)[0][0] for question, counts in answers.items()}


def asked(
    model: MultimodalModel, scenes: Sequence[Scene], pictures: Sequence[Image.Image], prior: dict[str, str]
) -> dict[str, Any]:
    """VQA accuracy by topic, 95 % intervals over pictures, for each way to answer."""
    known = [(place, one) for place, scene in enumerate(scenes) for one in questions(scene)]
    words = [one.question for _, one in known]
    ways = {
        "the model": model.answer([pictures[place] for place, _ in known], words, max_tokens=12, batch_size=_BATCH),
        "without the picture": model.answer([[] for _ in known], words, max_tokens=12, batch_size=_BATCH),
        "most frequent answer": [prior.get(one.question, prior[""]) for _, one in known],
        "after two other pictures": model.answer(
            [[pictures[place - 2], pictures[place - 1], pictures[place]] for place, _ in known],
            [f"{MARK}{MARK}{MARK}{question}" for question in words],
            max_tokens=12,
            batch_size=_BATCH,
        ),
    }
    return {way: _by_topic(said, known) for way, said in ways.items()}


def captioned(
    model: MultimodalModel, scenes: Sequence[Scene], pictures: Sequence[Image.Image], domain: Any
) -> dict[str, Any]:
    """CIDEr-D of the model's captions, and of the same captions one picture further."""
    said = model.answer(list(pictures), [CAPTION_PROMPTS[0]] * len(pictures), max_tokens=40, batch_size=_BATCH)
    told = []
    for index, scene in enumerate(scenes):
        random = stream(0, domain, "test", index, purpose=2)
        told.append([caption(scene, random) for _ in range(_CAPTIONS)])
    moved = [*said[-1:], *said[:-1]]
    return {
        "cider": bootstrap_interval(caption_scores(said, told).values["cider"]).to_json(),
        "cider, of the next picture": bootstrap_interval(caption_scores(moved, told).values["cider"]).to_json(),
        "examples": [{"said": said[place], "true": told[place][0]} for place in range(min(8, len(said)))],
    }


def _by_topic(said: Sequence[str], known: Sequence[tuple[int, Question]]) -> dict[str, Any]:
    right = question_scores(said, [[one.answer] for _, one in known])["accuracy"]
    found = {}
    for topic in ["all", *dict.fromkeys(one.topic for _, one in known)]:
        rows = [row for row, (_, one) in enumerate(known) if topic in ("all", one.topic)]
        numbers = {place: number for number, place in enumerate(dict.fromkeys(known[row][0] for row in rows))}
        items = [numbers[known[row][0]] for row in rows]
        interval = bootstrap_interval(group_values(right[rows], items, len(numbers)))
        found[topic] = {**interval.to_json(), "questions": len(rows)}
    return found


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=500, help="of each domain's test split")
    parser.add_argument("--prior", type=int, default=5_000, help="scenes of web train whose answers are counted")
    parser.add_argument("--model", type=Path, help="another folder than the kit's")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "answers.json")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
