"""A tiny LLaVA and a few stories, questions and pairs about coloured squares, for tests of `method: sugar`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_runs import at_keys

from gen2real.config import parse_config
from gen2real.imagesets.interleaved import Interleaved, Turn, write_interleaved
from gen2real.imagesets.questions import write_questions
from gen2real.methods.sugar.settings import SugarConfig
from tiny import tiny_clip
from tiny_multimodal import tiny_llava
from tiny_sets import colour_set


def make_world(root: Path) -> Path:
    """Seven samples: stories, a question, a text alone and pairs in both orders; some things to ask."""
    tiny_llava(root / "llava", tiny_clip(root / "clip"))
    tiny_clip(root / "clip2", seed=1)
    red, red_too, green, green_too, blue, *_ = colour_set(root / "learnt", origin="real", per_class=2).paths
    samples = [
        Interleaved("story", (Turn((red, " A red one. It is big! ", green, " Then a green one.")),)),
        Interleaved("other", (Turn((blue, " A blue one. ", red, " A red one came. ", green_too)),)),
        Interleaved("asked", (Turn((red, "\nWhat is it?"), "red"), Turn(("And now?",), "still red"))),
        Interleaved("pair", (Turn((green, "a green square")),)),
        Interleaved("turned", (Turn(("a red square ", red_too)),)),
        Interleaved("words", (Turn(("What is 2 plus 3?",), "5"),)),
        Interleaved("short", (Turn((blue, " Blue.")),)),
    ]
    write_interleaved(root / "train.jsonl", samples)
    tested = colour_set(root / "colours", origin="real", per_class=2, seed=1).paths
    asked = [{"image": str(path), "question": "what colour?", "answer": path.stem} for path in tested[:2]]
    write_questions(root / "asked.jsonl", asked)
    known = [{"image": str(path), "question": "which colour?", "answer": path.stem} for path in (red, green, blue)]
    write_questions(root / "known.jsonl", known)
    return root


def sugar_recipe(root: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Three updates of four samples; `changes` are laid over, a double underscore goes into a section."""
    values: dict[str, Any] = {
        "method": "sugar",
        "output": str(output),
        "model": {"name": str(root / "llava")},
        "data": {"train": [str(root / "train.jsonl")]},
        "teachers": {"joint": str(root / "clip")},
        "discriminative": {"readouts": 2},
        "head": {"width": 16, "dim": 12},
        "lora": {"rank": 2, "alpha": 4.0},
        "optimizer": {"lr": 1e-3, "head_lr": 1e-2, "weight_decay": 0.0},
        "training": {"steps": 3, "batch_size": 4, "log_every": 1, "checkpoint_every": 2},
        "decoding": {"max_tokens": 3},
    }
    return at_keys(values, changes)


def sugar_config(root: Path, output: Path, **changes: Any) -> SugarConfig:
    """The recipe, validated."""
    found = parse_config(SugarConfig, sugar_recipe(root, output, **changes), source="recipe")
    assert isinstance(found, SugarConfig)
    return found
