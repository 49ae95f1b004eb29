"""Which option an answer is most like, for answers that name none: TF-IDF's cosine, as DEMON's protocol matches them.

Li et al., "Fine-tuning Multimodal LLMs to Follow Zero-shot Demonstrative Instructions", ICLR 2024, arXiv 2308.04152.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"\w\w+")


def nearest_option(answer: str, options: Sequence[str]) -> int | None:
    """The place of the option with the greatest cosine, the first of equals; None where no word is shared (ours).

    The n documents are the answer and the options, in lower case; words are runs of at least two letters or digits. For
    c times that a word w is in a document, and d(w) documents that have it (scikit-learn's weights):

        weight = c · (log((1 + n) / (1 + d(w))) + 1)
    """
    documents = [Counter(_WORD.findall(text.lower())) for text in (answer, *options)]
    having = Counter(word for document in documents for word in document)
    weights = [
        {word: count * (math.log((1 + len(documents)) / (1 + having[word])) + 1) for word, count in document.items()}
        for document in documents
    ]
    said, *rest = weights
    cosines = [_dot(said, one) / (_length(said) * _length(one) or 1.0) for one in rest]
    best = max(cosines, default=0.0)
    return cosines.index(best) if best > 0 else None


def _dot(one: dict[str, float], other: dict[str, float]) -> float:
    return math.fsum(weight * other.get(word, 0.0) for word, weight in one.items())


def _length(one: dict[str, float]) -> float:
    return math.sqrt(_dot(one, one))
