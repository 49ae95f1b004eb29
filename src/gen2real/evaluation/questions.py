"""How right answers to questions about pictures are: the accuracy of VQA v2, with its own normalisation.

Written from the rules that visualqa.org/evaluation publishes (Antol et al. 2015, Goyal et al. 2017).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt

from gen2real.errors import ImageSetError

# Everything that counts as punctuation there: the apostrophe tells possessives from plurals and the colon is in times,
# so both stay; signs that stand for a word (%, $, &, #, *) stay as well.
_PUNCTUATION = re.compile(r'[;/\[\]"{}()=+\\_\-><@`,?!]')
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")

_TO_TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_TO_TEN)}
_ARTICLES = frozenset(("a", "an", "the"))

# Short forms whose apostrophe is often left out. Those that are another word without it (its, well, were, hell, …) are
# not among them.
_SHORT_FORMS = """
ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't oughtn't shan't
shouldn't wasn't weren't won't wouldn't couldn't've hadn't've mightn't've shouldn't've wouldn't've
could've might've must've not've should've would've they've we've what've where've who've you've i've
how'd that'd there'd they'd where'd who'd somebody'd someone'd something'd you'd
he'd've i'd've it'd've she'd've that'd've there'd've they'd've we'd've who'd've you'd've somebody'd've someone'd've
how'll it'll somebody'll someone'll something'll that'll they'll what'll who'll why'll you'll
he's how's let's she's somebody's someone's something's that's there's what's when's where's who's why's
there're they're what're why're you're i'm ma'am o'clock y'all y'all'll y'all'd've 'twas
"""


def _without_apostrophes() -> Mapping[str, str]:
    """Every short form with one apostrophe missing, or all → the form: dont, couldnt've, couldn'tve, couldntve."""
    known: dict[str, str] = {}
    for form in _SHORT_FORMS.split():
        parts = form.split("'")
        for marks in product(("'", ""), repeat=len(parts) - 1):
            said = parts[0] + "".join(mark + part for mark, part in zip(marks, parts[1:], strict=True))
            if said != form:
                known[said] = form
    return known


_CONTRACTIONS = _without_apostrophes()


def normalised_answer(answer: str) -> str:
    """An answer as VQA v2 compares it: `The two dogs, dont bark.` → 2 dogs don't bark.

    In order: punctuation becomes a space (none inside 1,000, none for the apostrophe and the colon), periods go unless
    a digit follows, lower case, number words up to ten become digits, articles go, short forms get their
    apostrophe.
    """
    return " ".join(word for word in _words(answer) if word not in _ARTICLES)


def question_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, npt.NDArray[np.float64]]:
    """`accuracy` → [N], one value from 0 to 1 a question.

    Args:
        answers: what the model said, one for each of N questions.
        references: what people said, or the one right answer. Of K ≥ 4 people (VQA v2 has ten) an answer that n of them
            gave counts min(n / 3, 1), averaged over leaving each one out: .3, .6, .9 and 1 for one, two, three and
            more of ten. Of one reference an equal answer counts 1. Two or three, of whom no three others could agree,
            are taken as alternatives: equal to any counts 1 (ours).

    Both sides are normalised by `normalised_answer`. An answer without a word agrees with nobody, and one of articles
    alone, as the letter A, is compared with them (ours: as published, both would be the same nothing).

    Raises: ImageSetError for unequal lengths, no question at all, or questions without a reference.
    """
    if len(answers) != len(references) or not answers:
        raise ImageSetError(
            f"answers are scored question by question; got {len(answers)} answer(s) and references of "
            f"{len(references)} question(s)."
        )
    without = [place for place, own in enumerate(references) if not own]
    if without:
        raise ImageSetError(
            f"{len(without)} of {len(references)} question(s) have no reference answer, the first at place "
            f"{without[0]}."
        )
    found = [_accuracy(_compared(said), own) for said, own in zip(answers, references, strict=True)]
    return {"accuracy": np.array(found, dtype=np.float64)}


def _words(answer: str) -> list[str]:
    """An answer's words as they are compared, articles too."""
    text = _COMMA_IN_NUMBER.sub("", answer)
    text = _PERIOD.sub("", _PUNCTUATION.sub(" ", text)).lower()
    numbered = (_NUMBERS.get(word, word) for word in text.split())
    return [_CONTRACTIONS.get(word, word) for word in numbered]


def _compared(answer: str) -> str:
    """An answer normalised; with its articles where nothing else would be left."""
    return normalised_answer(answer) or " ".join(_words(answer))


def _accuracy(said: str, references: Sequence[str]) -> float:
    people = len(references)
    agreeing = sum(_compared(reference) == said for reference in references) if said else 0
    if people < 4:
        return float(agreeing > 0)
    # mean over annotators k of min(#{others of k who said it} / 3, 1)
    without_one_of_them = min((agreeing - 1) / 3, 1.0) if agreeing else 0.0
    return (agreeing * without_one_of_them + (people - agreeing) * min(agreeing / 3, 1.0)) / people
