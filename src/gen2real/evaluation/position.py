"""Does it matter where the one relevant pair stands among distractors? (Sugar, section 4.1, on WebQA's yes-or-no.)

    {"image": "1.png", "question": "is it red?", "answer": "yes", "pairs": [{"image": "2.png", "text": "…"}, …],
     "relevant": 0}

Each question is asked once for every place that the relevant pair can have; the distractors keep their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gen2real.errors import ImageSetError
from gen2real.evaluation.knowledge import with_facts
from gen2real.evaluation.questions import question_scores
from gen2real.evaluation.statistics import Array
from gen2real.evaluation.task_files import (
    Pair,
    Values,
    answers_of,
    check_marks,
    pairs_of,
    pictures_of,
    place_of,
    read_items,
)
from gen2real.evaluation.tasks import Asked, TaskInput, TaskScores, sample
from gen2real.evaluation.yes_no import says_yes
from gen2real.imagesets.json_lines import PictureFiles, id_of, text_of

_EXAMPLE = (
    '{"image": "1.png", "question": "is it red?", "answer": "yes", '
    '"pairs": [{"image": "2.png", "text": "a red ball"}, {"image": "3.png", "text": "a car"}], "relevant": 0}'
)
_DRAWS = 2_000


@dataclass(frozen=True)
class PositionQuestion:
    """A question, K ≥ 2 pairs of which the one at `relevant` is needed to answer it, and the right answers."""

    id: str
    pictures: tuple[Path, ...]
    question: str
    answers: tuple[str, ...]
    pairs: tuple[Pair, ...]
    relevant: int

    def asked_at(self, place: int) -> Asked:
        """The question with the relevant pair at a place, from 0 to K − 1."""
        others = [pair for number, pair in enumerate(self.pairs) if number != self.relevant]
        pairs = [*others[:place], self.pairs[self.relevant], *others[place:]]
        return with_facts(pairs, Asked(self.pictures, self.question))


def read_positions(path: Path) -> list[PositionQuestion]:
    """The questions of a JSON Lines file: `question`, `answer`, `pairs` (two or more), `relevant` (its place, from 0),
    and where the question has pictures of its own `image` or `images`. All have as many pairs.

    Raises: ImageSetError with every fault and its line.
    """
    items = read_items(path, _read, example=_EXAMPLE)
    counts = sorted({len(one.pairs) for one in items})
    if len(counts) > 1:
        raise ImageSetError(
            f"{path} has questions with {counts[0]} and with {counts[-1]} pairs; accuracy by place needs as many in "
            "each."
        )
    return items


def measure_position(given: TaskInput) -> TaskScores:
    """The task `position`: `accuracy`, the mean over places, and `accuracy_at_1` … `accuracy_at_K`; an item a question.

    Where yes or no is right, an answer is read as in `yes-no`; others are scored as in `questions`. Details: `spread`,
    the best place's accuracy less the worst's, and `spread_by_chance`: what it would be on average, and how often it
    would be as large (`p_value`), if the places of each question's answers were shuffled.

    Raises: ImageSetError with every fault of the file; ModelError.
    """
    questions = given.first(read_positions(given.path))
    places = len(questions[0].pairs)
    asked = [one.asked_at(place) for one in questions for place in range(places)]
    answers = given.answers(asked)
    of = [one for one in questions for _ in range(places)]
    scores = np.array([_score(answer, one.answers) for answer, one in zip(answers, of, strict=True)])
    by_place = scores.reshape(len(questions), places)
    values = {"accuracy": by_place.mean(axis=1)}
    values |= {f"accuracy_at_{place + 1}": by_place[:, place].copy() for place in range(places)}
    samples = [
        sample(f"{one.id}, at {number % places + 1}", put, one.answers, answer, score)
        for number, (one, put, answer, score) in enumerate(zip(of, asked, answers, scores, strict=True))
    ]
    return TaskScores(values, {"questions": len(questions), "places": places, **spread_by_place(by_place)}, samples)


def spread_by_place(values: Array, *, draws: int = _DRAWS, seed: int = 0) -> dict[str, float]:
    """How much a mean differs between places, and how much of that is chance.

    Args:
        values: [N K], of N questions with the relevant pair at each of K places.

    Returns: `spread`, max − min over places of the mean; and of questions whose values are shuffled over places, which
        is how they would be if the place did not matter, `spread_by_chance`, its mean, and `p_value`.
    """
    spread = float(np.ptp(values.mean(axis=0)))
    random = np.random.default_rng(seed)
    shuffled = np.array([np.ptp(random.permuted(values, axis=1).mean(axis=0)) for _ in range(draws)])
    # A tie may miss by rounding.
    larger = int((shuffled >= spread - 1e-12).sum())
    return {"spread": spread, "spread_by_chance": float(shuffled.mean()), "p_value": (1 + larger) / (1 + draws)}


def _score(answer: str, references: Sequence[str]) -> float:
    right = {reference.strip().lower() for reference in references}
    if right in ({"yes"}, {"no"}):
        return float(says_yes(answer) == (right == {"yes"}))
    return float(question_scores([answer], [references])["accuracy"][0])


def _read(values: Values, number: int, files: PictureFiles) -> PositionQuestion:
    pictures, question = pictures_of(values, files), text_of(values, "question")
    check_marks(question, pictures)
    pairs = pairs_of(values, "pairs", files, least=2)
    relevant = place_of(values, "relevant", len(pairs))
    return PositionQuestion(id_of(values, number), pictures, question, answers_of(values), pairs, relevant)
