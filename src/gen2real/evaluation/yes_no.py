"""Questions that are answered yes or no: POPE's protocol for things that a model sees and that are not there.

Li et al., "Evaluating Object Hallucination in Large Vision-Language Models", EMNLP 2023, arXiv 2305.10355. MME (Fu et
al., arXiv 2306.13394) asks in the same way and counts pictures whose questions are all right as well.

    {"image": "1.png", "question": "is there a dog?", "answer": "no", "category": "popular"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gen2real.evaluation.statistics import Array, bootstrap_interval, ratio_values
from gen2real.evaluation.task_files import Values, category_of, check_marks, pictures_of, read_items
from gen2real.evaluation.tasks import Asked, TaskInput, TaskScores, items_of, sample
from gen2real.imagesets.json_lines import Fault, PictureFiles, as_json, id_of, text_of

Flags = npt.NDArray[np.bool_]

_EXAMPLE = '{"image": "1.png", "question": "is there a dog?", "answer": "no"}'
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class YesNoQuestion:
    """A question. yes: the right answer. category: questions of one are also counted by themselves; may be empty."""

    id: str
    asked: Asked
    yes: bool
    category: str


def read_yes_no(path: Path) -> list[YesNoQuestion]:
    """The questions of a JSON Lines file: `image` (or `images`), `question`, `answer`, and where given `category`.

    Raises: ImageSetError with every fault and its line.
    """
    return read_items(path, _read, example=_EXAMPLE)


def says_yes(answer: str) -> bool:
    """What an answer counts as (POPE): no, if its first sentence has the word no or not; anything else is yes.

    Ours: whatever the case, and with a word's punctuation taken off.
    """
    words = _WORD.findall(answer.partition(".")[0].lower())
    return not {"no", "not"} & set(words)


def is_plain(answer: str) -> bool:
    """Whether an answer has the word yes, no or not at all in its first sentence; others count as yes by default."""
    return bool({"yes", "no", "not"} & set(_WORD.findall(answer.partition(".")[0].lower())))


def yes_no_values(said: Flags, right: Flags, items: npt.NDArray[np.int64]) -> dict[str, Array]:
    """Accuracy, precision, recall, F1 and the share of yes; yes is the positive class: measure → [N].

    Args:
        said, right: [Q], whether the answer is yes, and whether it should be.
        items: [Q], from 0 to N − 1: which questions stand or fall together (those about one picture).

    Each is a ratio of sums over questions, whose mean over items is exact (`statistics.ratio_values`). Without a yes to
    count, precision, recall and F1 are 0.
    """
    true_positive, false_positive, false_negative = said & right, said & ~right, ~said & right
    sums = {
        "accuracy": (said == right, np.ones_like(said)),
        "f1": (2.0 * true_positive, 2.0 * true_positive + false_positive + false_negative),
        "precision": (true_positive, said),
        "recall": (true_positive, right),
        "yes_rate": (said, np.ones_like(said)),
    }
    return {
        name: ratio_values(*(np.bincount(items, weights=part.astype(np.float64)) for part in parts))
        for name, parts in sums.items()
    }


def measure_yes_no(given: TaskInput) -> TaskScores:
    """The task `yes-no`: `accuracy` and `f1`, an item a picture; the other measures of POPE are details.

    Details: `precision`, `recall`, `yes_rate` and `accuracy_plus` as intervals; `questions`, `pictures`, `unclear`
    (answers that say neither); `categories`: name → all of these. `accuracy_plus` is MME's: pictures whose questions
    are all answered right.

    Raises: ImageSetError with every fault of the file; ModelError.
    """
    questions = given.first(read_yes_no(given.path))
    answers = given.answers([one.asked for one in questions])
    said = np.array([says_yes(answer) for answer in answers])
    right = np.array([one.yes for one in questions])
    items = items_of([one.asked.pictures for one in questions])
    values = yes_no_values(said, right, items)
    unclear = sum(not is_plain(answer) for answer in answers)
    named = sorted({one.category for one in questions} - {""})
    categories = {}
    for name in named:
        own = np.array([one.category == name for one in questions])
        # Items are counted anew, as those without a question of this category do not belong to it.
        found = yes_no_values(said[own], right[own], np.unique(items[own], return_inverse=True)[1])
        categories[name] = _told(found, said[own] == right[own], items[own])
    details: dict[str, Any] = {
        **_told({name: values[name] for name in ("precision", "recall", "yes_rate")}, said == right, items),
        "unclear": unclear,
        **({"categories": categories} if categories else {}),
    }
    notes = []
    if unclear:
        notes.append(f"{unclear} of {len(answers)} answers say neither yes nor no; POPE counts them as yes.")
    samples = [
        sample(one.id, one.asked, ["yes" if one.yes else "no"], answer, float(yes == one.yes))
        for one, answer, yes in zip(questions, answers, said.tolist(), strict=True)
    ]
    return TaskScores({name: values[name] for name in ("accuracy", "f1")}, details, samples, tuple(notes))


def _told(values: Mapping[str, Array], correct: Flags, items: npt.NDArray[np.int64]) -> dict[str, Any]:
    every = np.ones(int(items.max()) + 1, dtype=bool)
    np.logical_and.at(every, items, correct)
    found = {name: bootstrap_interval(own).to_json() for name, own in values.items()}
    found["accuracy_plus"] = bootstrap_interval(every[np.unique(items)]).to_json()
    return {**found, "questions": len(correct), "pictures": len(np.unique(items))}


def _read(values: Values, number: int, files: PictureFiles) -> YesNoQuestion:
    answer, pictures, question = (
        text_of(values, "answer").lower(),
        pictures_of(values, files),
        text_of(values, "question"),
    )
    if answer not in ("yes", "no"):
        raise Fault(f"'answer' must be yes or no; got {as_json(values['answer'])}")
    check_marks(question, pictures)
    return YesNoQuestion(id_of(values, number), Asked(pictures, question), answer == "yes", category_of(values))
