"""Multiple choice: options with letters in the prompt, and the option that an answer names, by letter or by its text.

    {"images": ["1.png"], "question": "which toy is red?", "options": ["the ball", "the car"], "answer": 1}

The prompt is that of LLaVA-1.5 (Liu et al., arXiv 2310.03744) for such questions.

`group` joins the rotations of one question: MMBench's circular evaluation (Liu et al., arXiv 2307.06281), where it is
right only if every rotation is. `"unread": "nearest"` takes an answer that names no option for the one it is most like,
as DEMON does (nearest_option.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

import numpy as np

from gen2real.evaluation.nearest_option import nearest_option
from gen2real.evaluation.questions import normalised_answer
from gen2real.evaluation.statistics import Array, bootstrap_interval
from gen2real.evaluation.task_files import (
    Values,
    category_of,
    check_marks,
    filled_texts,
    pictures_of,
    place_of,
    read_items,
)
from gen2real.evaluation.tasks import Asked, TaskInput, TaskScores, by_item, sample
from gen2real.imagesets.json_lines import Fault, PictureFiles, as_json, id_of, text_of

INSTRUCTION = "Answer with the option's letter from the given choices directly."
_EXAMPLE = '{"images": ["1.png"], "question": "which is red?", "options": ["ball", "car"], "answer": 0}'

# `B`, `B.`, `(B)`, `b)`, `B: a car`, with nothing before it; or `the answer is B`, `option B`.
_ALONE = re.compile(r"\s*[(\[]?([A-Za-z])[)\]]?\s*[.:,]?\s*")
_FIRST = re.compile(r"\s*(?:[(\[]([A-Za-z])[)\]]|([A-Za-z])[).:](?!\S*\.))")
_NAMED = re.compile(r"\b(?i:answer(?:\s+is)?|option|choice)\s*:?\s*(?:[(\[]([A-Za-z])[)\]]|([A-Z])(?![\w'’]))")


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question with options.

    answer: the place of the right one. group: rotations of one question have the same; may be empty. nearest: whether
    an answer that names no option counts as the one that it is most like.
    """

    id: str
    pictures: tuple[Path, ...]
    question: str
    options: tuple[str, ...]
    answer: int
    category: str
    group: str = ""
    nearest: bool = False

    @property
    def asked(self) -> Asked:
        """The question, its options each on a line with a letter, and what to answer with."""
        return with_options(self.options, Asked(self.pictures, self.question))

    def chosen(self, answer: str) -> int | None:
        """The place of the option that an answer counts as; None where it counts as none."""
        place = chosen(answer, self.options)
        return nearest_option(answer, self.options) if place is None and self.nearest else place


def with_options(options: Sequence[str], asked: Asked) -> Asked:
    """A question before its options, each on a line with a letter, and what to answer with."""
    lines = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    return Asked(asked.pictures, "\n".join([asked.question, *lines, INSTRUCTION]), asked)


def read_choices(path: Path) -> list[ChoiceQuestion]:
    """The questions of a JSON Lines file: `images` (or `image`), `question`, `options`, `answer` (a place, from 0), and
    where given `category`, `group` and `unread`.

    Raises: ImageSetError with every fault and its line.
    """
    return read_items(path, _read, example=_EXAMPLE)


def chosen(answer: str, options: Sequence[str]) -> int | None:
    """The place of the option that an answer names; None where it names none, or several.

    In order: a letter (`B`, `(b)`, `B. the car`, `the answer is B`); an option's text, normalised as VQA v2 does;
    the one option whose text is in the answer, word by word, where no other is that is not a part of it.
    """
    for found in (_ALONE.fullmatch(answer), _FIRST.match(answer)):
        if found and (place := _place(found, options)) is not None:
            return place
    said, texts = normalised_answer(answer), [normalised_answer(option) for option in options]
    equal = [place for place, text in enumerate(texts) if text and text == said]
    if equal:
        return equal[0] if len(equal) == 1 else None
    named = [place for one in _NAMED.finditer(answer) if (place := _place(one, options)) is not None]
    if named:
        return named[0] if len(set(named)) == 1 else None
    within = [place for place, text in enumerate(texts) if text and f" {text} " in f" {said} "]
    whole = [
        place
        for place in within
        # `dark red` holds `red`: where both are options, and red is nowhere else, dark red is meant.
        if f" {texts[place]} " in f" {_without(said, [texts[other] for other in within], texts[place])} "
    ]
    return whole[0] if len(whole) == 1 else None


def measure_choice(given: TaskInput) -> TaskScores:
    """The task `choice`: `accuracy`, an item the questions about the same pictures. An answer that names none is wrong.

    `circular_accuracy` where several questions are of one group, an item a group: 1 where all of it is right.

    Details: `questions`, `chance` (the mean of 1/options), `unread` (answers that name no option), and `categories`:
    name → accuracy as an interval, with `category_chance`: name → chance there.

    Raises: ImageSetError with every fault of the file; ModelError.
    """
    questions = given.first(read_choices(given.path))
    answers = given.answers([one.asked for one in questions])
    places = [one.chosen(answer) for answer, one in zip(answers, questions, strict=True)]
    right = np.array([place == one.answer for place, one in zip(places, questions, strict=True)], dtype=np.float64)
    pictures = [one.pictures for one in questions]
    by_guessing = np.array([1 / len(one.options) for one in questions])
    categories, category_chance = {}, {}
    for name in sorted({one.category for one in questions} - {""}):
        own = [row for row, one in enumerate(questions) if one.category == name]
        categories[name] = bootstrap_interval(by_item(right[own], [pictures[row] for row in own])).to_json()
        category_chance[name] = float(by_guessing[own].mean())
    unread = places.count(None)
    details = {
        "questions": len(questions),
        "chance": float(by_guessing.mean()),
        "unread": unread,
        **({"categories": categories, "category_chance": category_chance} if categories else {}),
    }
    samples = [
        sample(one.id, one.asked, [one.options[one.answer]], answer, value)
        for one, answer, value in zip(questions, answers, right, strict=True)
    ]
    notes = [f"{unread} of {len(answers)} answers name no option, or several; they count as wrong."] if unread else []
    values = {"accuracy": by_item(right, pictures)}
    groups = [one.group or f"alone {one.id}" for one in questions]
    if len(set(groups)) < len(groups):
        values["circular_accuracy"] = _all_right(right, groups)
    return TaskScores(values, details, samples, tuple(notes))


def _all_right(right: Array, groups: Sequence[str]) -> Array:
    """[Q] → one value a group, in order of appearance: 1 where all of it is right."""
    found: dict[str, float] = {}
    for value, group in zip(right.tolist(), groups, strict=True):
        found[group] = min(value, found.get(group, 1.0))
    return np.array(list(found.values()))


def _place(found: re.Match[str], options: Sequence[str]) -> int | None:
    letter = next(group for group in found.groups() if group is not None)
    place = ascii_uppercase.index(letter.upper())
    return place if place < len(options) else None


def _without(said: str, texts: Sequence[str], own: str) -> str:
    """What is said, less those of the texts that hold `own` and are longer."""
    for text in sorted(texts, key=len, reverse=True):
        if text != own and f" {own} " in f" {text} ":
            said = f" {said} ".replace(f" {text} ", "  ").strip()
    return said


def _read(values: Values, number: int, files: PictureFiles) -> ChoiceQuestion:
    pictures, question = pictures_of(values, files), text_of(values, "question")
    options = filled_texts(values, "options", least=2)
    if len(options) > len(ascii_uppercase):
        raise Fault(f"there are letters for {len(ascii_uppercase)} options; got {len(options)}")
    check_marks("\n".join([question, *options]), pictures)
    if values.get("unread") not in (None, "wrong", "nearest"):
        raise Fault(f'\'unread\' must be "wrong" or "nearest"; got {as_json(values["unread"])}')
    return ChoiceQuestion(
        id_of(values, number),
        pictures,
        question,
        options,
        place_of(values, "answer", len(options)),
        category_of(values),
        text_of(values, "group") if values.get("group") is not None else "",
        values.get("unread") == "nearest",
    )
