"""BLEU, ROUGE-L and CIDEr-D of captions that are lists of words, one value a picture, as coco-caption counts them.

In plain Python on purpose: they are sums over dictionaries of short tuples, and the only dependency is the definition.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Words: TypeAlias = Sequence[str]
Values: TypeAlias = npt.NDArray[np.float64]

_ORDERS = 4
# coco-caption's guards: no precision is nought, and no division is by nought.
_TINY, _SMALL = 1e-15, 1e-9
_SIGMA = 6.0


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Values:
    """BLEU-4 of the corpus (Papineni et al. 2002), shared out among its N pictures: [N], whose mean is the corpus's.

    BLEU is no mean of single captions': matches and lengths are summed over the corpus first. With θ = f(S), S the sums
    of these counts s_i, picture i gets θ + N·∇f(S)·(s_i − S/N), the corpus's BLEU and how far this picture pulls it up
    or down (its influence function). The mean is θ exactly, and intervals and paired tests over pictures are those of
    the corpus's BLEU to first order. A single value means nothing by itself and may lie outside of 0…1.

    The reference length is that of the reference closest in length, the shorter of two as close.
    """
    counts = np.array([_counts(words, own) for words, own in zip(candidates, references, strict=True)], dtype=float)
    total = counts.sum(axis=0)
    matched, offered, length, wanted = total[:_ORDERS], total[_ORDERS:-2], total[-2], total[-1]
    # BLEU = exp(min(0, 1 − r/c)) · (Π_n m_n / o_n)^(1/4)
    ratio = (length + _TINY) / (wanted + _SMALL)
    short = ratio < 1
    precision = np.prod((matched + _TINY) / (offered + _SMALL)) ** (1 / _ORDERS)
    score = precision * (math.exp(1 - 1 / ratio) if short else 1.0)
    # ∂ log BLEU by each of the sums
    gradient = np.concatenate(
        [
            1 / (_ORDERS * (matched + _TINY)),
            -1 / (_ORDERS * (offered + _SMALL)),
            [(wanted + _SMALL) / (length + _TINY) ** 2 if short else 0.0],
            [-1 / (length + _TINY) if short else 0.0],
        ]
    )
    pull: Values = score * ((counts * len(counts) - total) @ gradient)
    # Rounding must not move the mean.
    return score + pull - pull.mean()


def _counts(candidate: Words, references: Sequence[Words]) -> list[int]:
    """Matched n-grams, clipped, of each order; n-grams offered, of each; length; the closest reference's length."""
    own, most = _grams(candidate), Counter[tuple[str, ...]]()
    for reference in references:
        most |= _grams(reference)
    matched = [0] * _ORDERS
    for gram, count in own.items():
        matched[len(gram) - 1] += min(count, most[gram])
    length = len(candidate)
    closest = min((abs(len(reference) - length), len(reference)) for reference in references)[1]
    return [*matched, *(max(0, length - order) for order in range(_ORDERS)), length, closest]


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]], *, beta: float = 1.2) -> Values:
    """ROUGE-L (Lin 2004), with coco-caption's β of 1.2: [N].

    As coco-caption does, precision and recall are the largest over the references, each by itself.
    """
    values = np.zeros(len(candidates))
    for place, (words, own) in enumerate(zip(candidates, references, strict=True)):
        common = [common_words(words, reference) for reference in own]
        if not any(common):
            continue
        precision = max(common) / len(words)
        recall = max(count / len(reference) for count, reference in zip(common, own, strict=True) if reference)
        # F = (1 + β²)·P·R / (R + β²·P)
        values[place] = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    return values


def common_words(a: Words, b: Words) -> int:
    """Length of the longest common subsequence, row by row with a row held in the bits of one number.

    Hyyrö 2004: a bit of `row` is unset where the length grows.
    """
    where: dict[str, int] = {}
    for place, word in enumerate(a):
        where[word] = where.get(word, 0) | 1 << place
    whole = (1 << len(a)) - 1
    row = whole
    for word in b:
        matches = where.get(word, 0) & row
        row = ((row + matches) | (row - matches)) & whole
    return len(a) - row.bit_count()


def cider(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> Values:
    """CIDEr-D (Vedantam et al. 2015), n = 1…4, σ = 6, on the paper's scale of 0…10: [N].

    How common an n-gram is, is counted over the references of these N pictures, so a picture's value depends on the
    others in the set, and for N = 1 every value is 0. Lengths in the Gaussian are counted in word pairs, as in
    coco-caption; that differs from words only against an empty caption.
    """
    of_references = [[_grams(reference) for reference in own] for own in references]
    pictures_with: Counter[tuple[str, ...]] = Counter()
    for grams in of_references:
        pictures_with.update(set().union(*grams))
    logarithm = math.log(len(references)) if references else 0.0
    weight = {gram: logarithm - math.log(count) for gram, count in pictures_with.items()}
    values = np.zeros(len(candidates))
    for place, (words, grams) in enumerate(zip(candidates, of_references, strict=True)):
        own = _weighted(_grams(words), weight, logarithm)
        found = sum(_likeness(own, _weighted(one, weight, logarithm)) for one in grams)
        values[place] = 10 * found / len(grams)
    return values


_Weighted: TypeAlias = tuple[dict[tuple[str, ...], float], list[float], int]


def _weighted(grams: Counter[tuple[str, ...]], weight: dict[tuple[str, ...], float], unseen: float) -> _Weighted:
    """g_k = h_k · log(N / pictures with k); the norms by order; the number of word pairs."""
    vector = {gram: count * weight.get(gram, unseen) for gram, count in grams.items()}
    squares = [0.0] * _ORDERS
    for gram, value in vector.items():
        squares[len(gram) - 1] += value * value
    pairs = sum(count for gram, count in grams.items() if len(gram) == 2)
    return vector, [math.sqrt(square) for square in squares], pairs


def _likeness(candidate: _Weighted, reference: _Weighted) -> float:
    """The mean over n of CIDEr-D_n = exp(−(l_c − l_s)² / 2σ²) · min(g(c), g(s))·g(s) / (‖g(c)‖·‖g(s)‖)."""
    vector, norms, pairs = candidate
    other, other_norms, other_pairs = reference
    products = [0.0] * _ORDERS
    for gram, value in vector.items():
        if (theirs := other.get(gram)) is not None:
            products[len(gram) - 1] += min(value, theirs) * theirs
    found = sum(
        product / (norm * other_norm)
        for product, norm, other_norm in zip(products, norms, other_norms, strict=True)
        if norm and other_norm
    )
    return found / _ORDERS * math.exp(-((pairs - other_pairs) ** 2) / (2 * _SIGMA**2))


def _grams(words: Words) -> Counter[tuple[str, ...]]:
    """Every run of one to four words, and how often it is there."""
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, _ORDERS + 1)
        for start in range(len(words) - order + 1)
    )
