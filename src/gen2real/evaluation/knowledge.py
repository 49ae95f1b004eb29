"""Questions that need knowledge, answered openly: ROUGE-L, as WebQA, FVQA and DEMON are scored.

    {"images": ["1.png"], "question": "who built it?", "answer": "the Romans", "facts": ["It was built by …"]}

`facts` is what the file itself lets the model look at (WebQA's sources): texts, or objects with `image` and `text`.
Without them the question is asked as it is, or with what `rag` looked up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gen2real.evaluation.caption_measures import rouge_l
from gen2real.evaluation.statistics import Array
from gen2real.evaluation.task_files import (
    Pair,
    Values,
    answers_of,
    category_of,
    check_marks,
    pairs_of,
    pictures_of,
    read_items,
)
from gen2real.evaluation.tasks import Asked, TaskInput, TaskScores, by_item, sample
from gen2real.imagesets.json_lines import PictureFiles, id_of, text_of
from gen2real.models.multimodal import MARK

_EXAMPLE = '{"images": ["1.png"], "question": "who built it?", "answer": "the Romans"}'
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class KnowledgeQuestion:
    """A question, what may be looked at, and the right answers: equal to any is right."""

    id: str
    pictures: tuple[Path, ...]
    question: str
    answers: tuple[str, ...]
    facts: tuple[Pair, ...]
    category: str

    @property
    def asked(self) -> Asked:
        """The question after its facts, as `with_facts` puts them."""
        return with_facts(self.facts, Asked(self.pictures, self.question))


def read_knowledge(path: Path) -> list[KnowledgeQuestion]:
    """The questions of a JSON Lines file: `images` (or `image`; neither is needed), `question`, `answer` or `answers`,
    and where given `facts`.

    Raises: ImageSetError with every fault and its line.
    """
    return read_items(path, _read, example=_EXAMPLE)


def with_facts(facts: Sequence[Pair], asked: Asked) -> Asked:
    """A question with facts in front, each on a line with its picture; nothing changes where there are none."""
    if not facts:
        return asked
    lines = [f"{MARK} {fact.text}" if fact.picture is not None else fact.text for fact in facts]
    pictures = [fact.picture for fact in facts if fact.picture is not None]
    return Asked((*pictures, *asked.pictures), "\n".join(["Reference information:", *lines, asked.marked]), asked)


def rouge_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    """ROUGE-L of each answer against the reference that it is most like: [Q], F1 with as much of either (β = 1).

    Lin 2004, as rouge-score counts it: words are runs of letters and digits in lower case, without stemming. (The
    captions' ROUGE-L is coco-caption's, with β = 1.2 and other words.)
    """
    said = [_words(answer) for answer in answers]
    return np.array(
        [
            max(float(rouge_l([words], [[_words(reference)]], beta=1.0)[0]) for reference in own)
            for words, own in zip(said, references, strict=True)
        ]
    )


def measure_knowledge(given: TaskInput) -> TaskScores:
    """The task `knowledge`: `rouge_l`, an item the questions about the same pictures.

    Details: `questions`, `facts` (the mean number of them).

    Raises: ImageSetError with every fault of the file; ModelError.
    """
    questions = given.first(read_knowledge(given.path))
    answers = given.answers([one.asked for one in questions])
    values = rouge_scores(answers, [one.answers for one in questions])
    details = {"questions": len(questions), "facts": float(np.mean([len(one.facts) for one in questions]))}
    samples = [
        sample(one.id, one.asked, one.answers, answer, value)
        for one, answer, value in zip(questions, answers, values, strict=True)
    ]
    return TaskScores({"rouge_l": by_item(values, [one.pictures for one in questions])}, details, samples)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _read(values: Values, number: int, files: PictureFiles) -> KnowledgeQuestion:
    pictures, question = pictures_of(values, files), text_of(values, "question")
    check_marks(question, pictures)
    return KnowledgeQuestion(
        id_of(values, number),
        pictures,
        question,
        answers_of(values),
        pairs_of(values, "facts", files, least=0),
        category_of(values),
    )
