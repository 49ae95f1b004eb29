"""How well a tuned multimodal model describes real pictures and answers questions about them, before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gen2real.evaluation.captioning import caption_scores
from gen2real.evaluation.questions import question_scores
from gen2real.evaluation.statistics import group_values
from gen2real.imagesets.decoding import check_pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.questions import PictureQuestion, read_questions
from gen2real.methods.measured import Reading
from gen2real.methods.multimodal.settings import AnswerData, MultimodalConfig
from gen2real.models.multimodal import Branch, MultimodalModel

_SAMPLES = 12
_MEANINGS = {
    "baseline": "the model before this training",
    "f_r": "real pictures through f_r, the model's own image tower",
    "f_g": "real pictures through f_g, the tower for generated ones",
}


def measure(
    config: MultimodalConfig, model: MultimodalModel, untrained: Callable[[], AbstractContextManager[None]]
) -> tuple[dict[str, Reading], list[dict[str, Any]], int]:
    """Readings, samples of texts, and how many pictures there are. The evaluation set is opened here, after training.

    Args:
        untrained: within it, the model is as it was before.
    """
    names = ["baseline", "f_r", *(["f_g"] if model.shift else [])]
    if config.data.evaluation is None:
        return {name: Reading(_MEANINGS[name], {}) for name in names}, [], 0
    task = _Task.of(config.data)
    samples = _Samples(task.shown)
    readings: dict[str, Reading] = {}
    for name in names:
        branch: Branch = "f_g" if name == "f_g" else "f_r"

        def answer(pictures: Sequence[Path], questions: Sequence[str], branch: Branch = branch) -> list[str]:
            return model.answer(pictures, questions, branch=branch, **config.decoding.model_dump())

        if name == "baseline":
            with untrained():
                readings[name] = task.read(name, answer, samples)
        else:
            readings[name] = task.read(name, answer, samples)
    return readings, samples.found, len(task.shown)


@dataclass(frozen=True)
class _Task:
    """What is asked: prompt, about those pictures that have captions, and questions."""

    shown: ImageSet
    prompt: str
    captioned: list[int]
    asked: list[PictureQuestion]

    @classmethod
    def of(cls, data: AnswerData) -> _Task:
        assert data.evaluation is not None
        shown = ImageSet.read(data.evaluation).kept()
        shown = shown.select(check_pictures(shown.paths, data.on_unreadable).readable)
        captioned = [row for row, captions in enumerate(shown.captions) if any(text.strip() for text in captions)]
        asked: list[PictureQuestion] = []
        if data.evaluation_questions is not None:
            there = set(shown.paths)
            every = read_questions(data.evaluation_questions, ImageSet.read(data.evaluation))
            asked = [item for item in every if item.picture in there]
        return cls(shown, data.prompts[0], captioned, asked)

    def read(
        self, name: str, answer: Callable[[Sequence[Path], Sequence[str]], list[str]], samples: _Samples
    ) -> Reading:
        values: dict[str, Any] = {}
        details: dict[str, Any] = {"pictures": len(self.shown)}
        if self.captioned:
            known = [[text for text in self.shown.captions[row] if text.strip()] for row in self.captioned]
            told = answer([self.shown.paths[row] for row in self.captioned], [self.prompt] * len(self.captioned))
            scores = caption_scores(told, known)
            values |= scores.values
            details |= {"captioned": len(told), "references": sum(map(len, known)), "notes": list(scores.notes)}
            for row, text, own in list(zip(self.captioned, told, known, strict=True))[:_SAMPLES]:
                samples.add(name, row, "", own, text)
        if self.asked:
            told = answer([item.picture for item in self.asked], [item.question for item in self.asked])
            pictures = {
                picture: place for place, picture in enumerate(dict.fromkeys(one.picture for one in self.asked))
            }
            group = np.array([pictures[item.picture] for item in self.asked])
            for measure, each in question_scores(told, [item.answers for item in self.asked]).items():
                values[measure] = group_values(each, group, len(pictures))
            details |= {"questions": len(told), "pictures asked about": len(pictures)}
            place = {path: row for row, path in enumerate(self.shown.paths)}
            for item, text in list(zip(self.asked, told, strict=True))[:_SAMPLES]:
                samples.add(name, place[item.picture], item.question, list(item.answers), text)
        return Reading(_MEANINGS[name], values, details)


class _Samples:
    """What readings said of the first few pictures, side by side."""

    def __init__(self, shown: ImageSet) -> None:
        self._shown = shown
        self._by_key: dict[tuple[int, str], dict[str, Any]] = {}

    def add(self, reading: str, row: int, question: str, references: Sequence[str], text: str) -> None:
        one = self._by_key.setdefault(
            (row, question),
            {
                "set": str(self._shown.manifest),
                "id": self._shown.ids[row],
                "path": self._shown.table["path"][row].as_py(),
                **({"question": question} if question else {}),
                "references": list(references),
                "captions": {},
            },
        )
        one["captions"][reading] = text

    @property
    def found(self) -> list[dict[str, Any]]:
        return list(self._by_key.values())
