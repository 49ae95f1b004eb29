"""What multimodal models are measured on, by name: a file of items, which are asked or searched, and a score for each.

A task is a function `TaskInput → TaskScores`. `TASKS` says where it lies; it is imported when it is asked for.

    questions           VQA v2's accuracy (text_tasks.py)
    yes-no              POPE: accuracy, precision, recall, F1, share of yes (yes_no.py)
    choice              lettered options (choice.py)
    knowledge           ROUGE-L of open answers (knowledge.py)
    position            the relevant pair at each place among distractors (position.py)
    captioning          CIDEr-D, ROUGE-L, BLEU-4 of an image set's captions (text_tasks.py)
    retrieval           pictures and captions find each other, of an image set (caption_retrieval.py)
    story-retrieval     the last picture of a story (story_retrieval.py)
    composed-retrieval  a picture and what is to be different find a picture (composed_retrieval.py)
    winoground          which of two captions belongs to which of two pictures (winoground.py)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gen2real.errors import Gen2RealError, ModelError
from gen2real.evaluation.statistics import Array, bootstrap_interval, group_values
from gen2real.imagesets.questions import PictureQuestion
from gen2real.models.multimodal import MARK, MultimodalModel

TASKS: Mapping[str, str] = {
    "questions": "gen2real.evaluation.text_tasks:measure_questions",
    "yes-no": "gen2real.evaluation.yes_no:measure_yes_no",
    "choice": "gen2real.evaluation.choice:measure_choice",
    "knowledge": "gen2real.evaluation.knowledge:measure_knowledge",
    "position": "gen2real.evaluation.position:measure_position",
    "captioning": "gen2real.evaluation.text_tasks:measure_captioning",
    "retrieval": "gen2real.evaluation.caption_retrieval:measure_retrieval",
    "story-retrieval": "gen2real.evaluation.story_retrieval:measure_story_retrieval",
    "composed-retrieval": "gen2real.evaluation.composed_retrieval:measure_composed_retrieval",
    "winoground": "gen2real.evaluation.winoground:measure_winoground",
}
"""A task's name → module:function."""

READERS: Mapping[str, str] = {
    "questions": "gen2real.imagesets.questions:read_questions",
    "yes-no": "gen2real.evaluation.yes_no:read_yes_no",
    "choice": "gen2real.evaluation.choice:read_choices",
    "knowledge": "gen2real.evaluation.knowledge:read_knowledge",
    "position": "gen2real.evaluation.position:read_positions",
    "captioning": "gen2real.evaluation.task_files:read_captioned",
    "retrieval": "gen2real.evaluation.task_files:read_captioned",
    "story-retrieval": "gen2real.evaluation.story_retrieval:read_stories",
    "composed-retrieval": "gen2real.evaluation.composed_retrieval:read_changes",
    "winoground": "gen2real.evaluation.winoground:read_twins",
}
"""A task's name → module:function that reads its file, path → items."""

LOOKED_UP = ("questions", "yes-no", "choice", "knowledge")
"""Tasks of questions, before which what was looked up can be put."""

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What a model is to answer. pictures: in order, as files. question: with a mark `<image>` for each picture, or
    with none: then they stand in front. alone: the same without options and facts, where it has some."""

    pictures: tuple[Path, ...]
    question: str
    alone: Asked | None = None

    @property
    def bare(self) -> Asked:
        """By what it is looked up and known again: without options and facts."""
        return self.alone or self

    @property
    def marked(self) -> str:
        """The question with a mark for each of its pictures: in front where it has none."""
        return self.question if MARK in self.question else f"{MARK}\n" * len(self.pictures) + self.question


@runtime_checkable
class Embeds(Protocol):
    """Whatever gives contents a place in one space, as a multimodal model's retrieval head."""

    def embed(self, parts: Sequence[Sequence[str | Path]], *, batch_size: int) -> Tensor:
        """N contents, each of texts and pictures in order → [N D], unit length."""


Augment = Callable[[Sequence[Asked]], Sequence[Asked]]
"""Questions → the same with what was looked up for them in front, in the same order."""


@dataclass(frozen=True)
class TaskScores:
    """What a task finds.

    Attributes:
        values: measure → [N], one value for each of N items, whose mean is the measure. Items are what stands or falls
            together: questions about one picture are one item. Their order is the file's, whatever model is asked.
        details: further facts, JSON-like: counts, measures that nobody is judged by (intervals), by category.
        samples: of each question, in the file's order: `id`, `pictures` (files), `question`, `references`, `answer`,
            `score`; of a search what it found.
        notes: what a reader should know.
    """

    values: Mapping[str, Array]
    details: Mapping[str, Any] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values: `measures` (each an interval over items), `details`, `notes`, `samples`."""
        return {
            "measures": {name: bootstrap_interval(own).to_json() for name, own in self.values.items()},
            "details": dict(self.details),
            "notes": list(self.notes),
            "samples": [dict(one) for one in self.samples],
        }


@dataclass(frozen=True)
class TaskInput:
    """What a task is given.

    Attributes:
        model: answers. embedder: searches; None where there is none.
        path: the task's file, JSON Lines; of captioning and retrieval an image set.
        decoding: keywords of `MultimodalModel.answer`: max_tokens, beams, batch_size.
        limit: the first so many items of the file; None: all.
        rag: puts what was looked up in front of each question; None: they are asked as they are.
    """

    model: MultimodalModel
    path: Path
    embedder: Embeds | None = None
    decoding: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    rag: Augment | None = None

    def first(self, items: Sequence[T]) -> Sequence[T]:
        """Those within the limit."""
        return items[: self.limit]

    def answers(self, asked: Sequence[Asked]) -> list[str]:
        """The model's answers, in batches; with what was looked up where there is something to look up in."""
        asked = asked if self.rag is None else self.rag(asked)
        return self.model.answer([one.pictures for one in asked], [one.question for one in asked], **self.decoding)

    def embed(self, parts: Sequence[Sequence[str | Path]]) -> Tensor:
        """N contents → [N D], unit length, by the embedder. Raises: ModelError where there is none."""
        return self.searching.embed(parts, batch_size=self.decoding.get("batch_size", 8))

    @property
    def searching(self) -> Embeds:
        """The embedder. Raises: ModelError where there is none."""
        if self.embedder is None:
            raise ModelError(f"{self.path} is searched by embeddings, and {self.model.name} was given none.")
        return self.embedder


def measure_task(
    task: str,
    model: MultimodalModel,
    path: str | Path,
    *,
    embedder: Embeds | None = None,
    decoding: Mapping[str, Any] | None = None,
    limit: int | None = None,
    rag: Augment | None = None,
) -> TaskScores:
    """Measures a multimodal model on a task of `TASKS`; arguments as the attributes of `TaskInput`.

    Raises: Gen2RealError for an unknown task; ImageSetError with every fault of the file; ModelError.
    """
    measure: Callable[[TaskInput], TaskScores] = _imported(TASKS, task, limit)
    found = measure(TaskInput(model, Path(path), embedder, decoding or {}, limit, rag))
    looked_up = getattr(rag, "told", None)
    return replace(found, details={**found.details, "looked_up": dict(looked_up)}) if looked_up else found


def check_task(task: str, path: str | Path, *, limit: int | None = None) -> list[Asked]:
    """Reads a task's file as `measure_task` does and asks nobody: its faults are told before a model is there.

    Returns: the questions that would be asked, of tasks in `LOOKED_UP`; nothing of others.
    Raises: Gen2RealError for an unknown task; ImageSetError with every fault of the file, pictures that are missing
        among them.
    """
    read: Callable[[Path], Sequence[Any]] = _imported(READERS, task, limit)
    items = read(Path(path))
    return [asked_of(one) for one in items[:limit]] if task in LOOKED_UP else []


def asked_of(item: Any) -> Asked:
    """What is asked of a model: a question about a picture as it is, or an item's own `asked`."""
    if isinstance(item, PictureQuestion):
        return Asked((item.picture,), item.question)
    asked: Asked = item.asked
    return asked


def items_of(pictures: Sequence[Sequence[Path]]) -> npt.NDArray[np.int64]:
    """[Q]: which item each of Q questions belongs to, from 0 on: questions about the same pictures are one.

    A question without a picture is an item of its own.
    """
    keys = [tuple(own) or (place,) for place, own in enumerate(pictures)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64)


def by_item(values: Sequence[float] | Array, pictures: Sequence[Sequence[Path]]) -> Array:
    """[Q] values of questions about these pictures → [N], one an item, with the same mean (`group_values`)."""
    items = items_of(pictures)
    return group_values(np.asarray(values, dtype=np.float64), items, int(items.max()) + 1)


def _imported(known: Mapping[str, str], task: str, limit: int | None) -> Any:
    if task not in known:
        raise Gen2RealError(f"there is no task {task!r}; there are: {', '.join(known)}.")
    if limit is not None and limit < 1:
        raise Gen2RealError(f"a limit of {limit} leaves nothing to measure; give at least 1.")
    module, _, function = known[task].partition(":")
    return getattr(import_module(module), function)


def sample(name: str, asked: Asked, references: Sequence[str], answer: str, score: float) -> dict[str, Any]:
    """A question and its answer, as `TaskScores.samples` has them."""
    return {
        "id": name,
        "pictures": [str(picture) for picture in asked.pictures],
        "question": asked.question,
        "references": list(references),
        "answer": answer,
        "score": float(score),
    }
