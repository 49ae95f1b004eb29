"""A finished run of Sugar, made by hand: tasks by place and category, lookups, labels, losses and gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from odd_worlds import SCRIPT, summary_of
from PIL import Image

from gen2real.evaluation.statistics import bootstrap_interval
from gen2real.files import write_json
from gen2real.imagesets.questions import write_questions
from gen2real.methods.measured import Measured, Reading

UPDATES, PLACES = 40, 4
TASKS = ("winoground", "position", "pope", "choices", "changes", "questions", "found", "stories")


def _shares(random: np.random.Generator, share: float) -> Any:
    return (random.random(24) < share).astype(np.float64)


def _values(seed: int, share: float) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    keys = [f"winoground_{name}" for name in ("text", "image", "group")]
    keys += ["position_accuracy", *(f"position_accuracy_at_{place + 1}" for place in range(PLACES))]
    keys += ["pope_accuracy", "pope_f1", "choices_accuracy", "changes_composed_recall@1", "questions_accuracy"]
    keys += ["found_image_to_text_recall@1", "found_text_to_image_recall@1", "stories_story_recall@1"]
    return {key: _shares(random, share) for key in keys}


def told(seed: int, share: float) -> dict[str, Any]:
    """Details of a reading, as the tasks write them."""
    random = np.random.default_rng(seed)

    def interval() -> dict[str, Any]:
        return bootstrap_interval(_shares(random, share), resamples=100).to_json()

    twins = {name: interval() for name in ("text", "image", "group")}
    pope = {name: interval() for name in ("precision", "recall", "yes_rate", "accuracy_plus")}
    way = {"queries": 24, "gallery": 9, "median_rank": 2.5, "recall@1": interval(), "chance": {"recall@1": 0.1}}
    return {
        "winoground": {
            "foursomes": 24,
            "chance": {"text": 0.25, "image": 0.25, "group": 1 / 6},
            "categories": {f"order {SCRIPT}": twins},
        },
        "position": {"questions": 24, "places": PLACES, "spread": 0.125, "spread_by_chance": 0.08, "p_value": 0.03},
        "pope": {
            **pope, "questions": 24, "pictures": 24, "unclear": 3,
            "categories": {"adversarial": {**pope, "accuracy": interval(), "f1": interval(), "questions": 24}},
        },
        "choices": {
            "questions": 24, "chance": 0.375, "unread": 2,
            "categories": {"a swap": interval(), "not a swap": interval()},
            "category_chance": {"a swap": 0.25, "not a swap": 0.5},
        },
        "changes": {
            "queries": 24, "median_rank": 4.0, "gallery": 30.0,
            "controls": {"reference alone": {"recall@1": interval(), "recall@5": interval()}},
        },
        "questions": {"questions": 24, "pictures": 24},
        "found": {"pictures": 24, "image_to_text": way, "text_to_image": way},
        "stories": {"stories": 24, "story": {"median_rank": 7.0, "gallery": 99.0, "chance": {"recall@1": 0.01}}},
        "notes": ["3 of 24 answers say neither yes nor no; POPE counts them as yes."],
    }  # fmt: skip


def recipe(weight: float = 1.0, **kernel: Any) -> dict[str, Any]:
    """The parts of a resolved recipe that a page reads."""
    return {
        "method": "sugar",
        "teachers": {"image": f"dino {SCRIPT}", "text": None, "joint": "clip", "text_pooling": "first"},
        "kernel": {"local": "triple", "alignment": "gak", "bandwidth": 0.5, "normalize": "paths", "calibrate": True,
                   "same_sample": True, **kernel},
        "discriminative": {"weight": weight, "form": "structure"},
        "head": {"whiten": True, "first_updates": 2000, "samples": 1000},
    }  # fmt: skip


def sugar_run(folder: Path) -> Measured:
    """Readings base, tuned, own_1 and clip_1; eight tasks; samples of two of them, one with eight pictures."""
    folder.mkdir(parents=True)
    pictures = []
    for number in range(8):
        pictures.append(str(folder / f"{number}.png"))
        Image.new("RGB", (24, 24), (30 * number, 99, 200)).save(pictures[-1])
    files = [folder / f"{name}.jsonl" for name in ("train", "questions", "position")]
    for file in files:
        write_questions(file, [{"image": pictures[0], "question": "what colour?", "answer": "red"}])
    looked = {"entries": 12, "count": 1, "threshold": None, "found": 0.75, "similarity": 0.5,
              "questions_about_pictures_in_it": 6}  # fmt: skip
    looked_up = {"questions": {"questions": 24, "pictures": 24, "looked_up": looked}}
    with_lookup = {"questions_accuracy": _shares(np.random.default_rng(9), 0.9)}
    readings = {
        "base": Reading("the model before this training", _values(1, 0.3), told(1, 0.3)),
        "tuned": Reading("the tuned model", _values(2, 0.6), told(2, 0.6)),
        "own_1": Reading("looked up by its own embeddings", with_lookup, looked_up),
        "clip_1": Reading("looked up by CLIP", {"questions_accuracy": _shares(np.random.default_rng(8), 0.1)},
                          looked_up),
    }  # fmt: skip
    answers = {"base": "blue", "tuned": f"red {SCRIPT}", "own_1": "red", "clip_1": "blue"}
    samples = [
        {"set": str(file), "id": str(number), "pictures": own, "question": f"what\nis {number}?", "references": ["red"],
         "captions": answers}
        for file, own in ((files[1], pictures[:1]), (files[2], pictures))
        for number in range(20)
    ]  # fmt: skip
    (folder / "recipe.yaml").write_text("method: sugar\n")
    write_json(folder / "recipe.json", recipe())
    rows = []
    for step in range(1, UPDATES + 1):
        left = 1 - step / UPDATES
        row = {"stage": "sugar", "step": step, "loss": 4 + 2 * left, "L_g": 4 + left, "L_d": left}
        rows.append({**row, "gradient_g": 1.0, "gradient_d": 0.25, "cosine_lora_g_d": 0.1 if step % 4 else -0.1})
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    branches = {"text and text": {"mean": 0.5, "std": 0.25}, "picture and text": {"mean": 1.625, "std": 0.125}}
    sets = [("trained on", files[0]), *(("measured on", file) for file in files[1:])]
    summary = {
        **summary_of("sugar", 0, sets),
        "pictures": {"samples": 12, "in samples": 20, "evaluation": 24 * len(TASKS)},
        "calibration": {"local": "triple", "mean": 1.0, "std": 0.2, "branches": branches},
        "samples": samples,
    }
    summary["cost"]["updates"] = UPDATES
    return Measured.write(folder, summary, readings, headline="tuned")
