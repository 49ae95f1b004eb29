"""How sure a number is: intervals, paired tests, and the correction for testing several arms.

Two kinds of spread answer two questions. Over *examples* (`bootstrap_interval`, `proportion_interval`): would another
draw of test pictures give this number? Over *seeds* (`seed_interval`): would another training run? A bootstrap of
[S N] values answers both at once.

Everything here is deterministic given `seed`, and needs numpy and the standard library only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Shaped
from torch import Tensor

Values: TypeAlias = (
    Shaped[Tensor, "..."] | Shaped[np.ndarray, "..."] | Sequence[float | int] | Sequence[Sequence[float | int]]
)
"""[N] one value an example, or [S N] for S seeds. Booleans count as 0 and 1."""

Array: TypeAlias = npt.NDArray[np.float64]

# Resamples are drawn in blocks of at most this many float64 cells (32 MiB), whatever N and `resamples` are.
_CELLS = 1 << 22
_SMALLEST_P = sys.float_info.min


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    mean, low, high: in the unit of the values (a share of 1 for accuracies). count: the examples, or seeds, behind it.
    level: the confidence, 0.95 for 95 %.
    """

    mean: float
    low: float
    high: float
    count: int
    level: float

    def percent(self, digits: int = 1) -> str:
        """As a reader wants a share of 1: `41.3 % [35.1, 47.6]`."""
        mean, low, high = (f"{100 * value:.{digits}f}" for value in (self.mean, self.low, self.high))
        return f"{mean} % [{low}, {high}]"

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"

    def to_json(self) -> dict[str, float | int]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count, "level": self.level}


@dataclass(frozen=True)
class McNemar:
    """only_a, only_b: examples that only A, only B got right. p_value: exact, two-sided."""

    only_a: int
    only_b: int
    p_value: float


@dataclass(frozen=True)
class PairedTest:
    """The mean of A − B over the same examples. p_value: two-sided, against a difference of zero; never 0.

    count: examples. seeds: how many seeds were resampled (1: the interval holds no training noise).
    """

    difference: float
    low: float
    high: float
    p_value: float
    count: int
    seeds: int
    level: float

    def percent(self, digits: int = 1) -> str:
        """In percentage points, with the sign: `+2.1 pp [+0.4, +3.8]`."""
        mean, low, high = (f"{100 * value:+.{digits}f}" for value in (self.difference, self.low, self.high))
        return f"{mean} pp [{low}, {high}]"

    def to_json(self) -> dict[str, float | int]:
        return {
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "p_value": self.p_value,
            "count": self.count,
            "seeds": self.seeds,
            "level": self.level,
        }


def bootstrap_interval(values: Values, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of `values` and its percentile bootstrap interval (Efron 1979).

    values: [N], or [S N] for S seeds on the same N examples. With seeds, each resample draws S seeds *and* N examples
    with replacement (crossed), so the interval covers both another training run and another test set. S seeds show
    only (S − 1)/S of the seeds' variance: with two or three, state `seed_interval` beside it.

    The width is zero where all values are equal; for one run's accuracy `proportion_interval` has no such blind spot.

    Raises ValueError for no values, non-finite values, another number of dimensions, or a level outside (0, 1).
    """
    _check_level(level)
    matrix = _as_matrix(values, "values")
    means = _resampled_means(matrix, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(matrix.mean()), float(low), float(high), matrix.shape[1], level)


def proportion_interval(successes: int, count: int, *, level: float = 0.95) -> Interval:
    """The share successes / count and its score interval (Wilson 1927), which stays honest at 0 % and 100 %.

    Raises ValueError unless 0 ≤ successes ≤ count and count ≥ 1.
    """
    _check_level(level)
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"a share needs 0 <= successes <= count and count >= 1; got {successes} of {count}")
    share = successes / count
    z = NormalDist().inv_cdf((1 + level) / 2)
    # (p̂ + z²/2n ± z √(p̂(1 − p̂)/n + z²/4n²)) / (1 + z²/n)
    scale = 1 + z**2 / count
    center = (share + z**2 / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / scale
    # Rounding must not push an end past the share itself at 0 and 1.
    return Interval(share, min(share, max(0.0, center - half)), max(share, min(1.0, center + half)), count, level)


def seed_interval(values: Values, *, level: float = 0.95) -> Interval:
    """The mean over seeds and its Student-t interval: mean ± t_{S−1} · std / √S.

    values: [S], one number a seed (its accuracy, say). `count` of the result is S.

    Raises ValueError for fewer than two seeds, which have no spread to speak of, and for non-finite values.
    """
    _check_level(level)
    matrix = _as_matrix(values, "values")
    if matrix.shape[0] != 1 or matrix.shape[1] < 2:
        raise ValueError(f"an interval over seeds needs one number for each of at least 2 seeds; got {_shape(values)}")
    seeds = matrix[0]
    half = t_quantile((1 + level) / 2, seeds.size - 1) * float(seeds.std(ddof=1)) / math.sqrt(seeds.size)
    mean = float(seeds.mean())
    return Interval(mean, mean - half, mean + half, seeds.size, level)


def mcnemar(correct_a: Values, correct_b: Values) -> McNemar:
    """McNemar's exact test: do A and B err on equally many of the same examples?

    correct_a, correct_b: [N] of 0/1 or booleans, the same examples in the same order. Of the n = b + c examples on
    which exactly one is right, b fall to A: p = min(1, 2 · P(X ≥ max(b, c))), X ~ Binomial(n, ½).

    Raises ValueError for unequal lengths and for values other than 0 and 1.
    """
    a, b = _as_matrix(correct_a, "correct_a"), _as_matrix(correct_b, "correct_b")
    if a.shape[0] != 1 or a.shape != b.shape:
        raise ValueError(
            f"both need one value for each of the same examples; got {_shape(correct_a)} and {_shape(correct_b)}"
        )
    for name, side in (("correct_a", a), ("correct_b", b)):
        if not np.isin(side, (0.0, 1.0)).all():
            raise ValueError(f"{name} must be 0 or 1 (False or True) for each example; use paired_bootstrap for scores")
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    p_value = min(1.0, 2 * binomial_tail(max(only_a, only_b), only_a + only_b))
    return McNemar(only_a, only_b, p_value)


def paired_bootstrap(
    a: Values, b: Values, *, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> PairedTest:
    """The mean of a − b over the same examples: its percentile interval and a two-sided bootstrap p-value.

    a, b: [N] or [S N]. Equal S: the seeds are paired (seed i of A against seed i of B) and resampled together with the
    examples. One side with a single row (a zero-shot model has no seeds): it is paired with every seed of the other.
    Other unequal S: each side is averaged over its seeds first, so the result holds no training noise (`seeds` is 1).

    p = min(1, 2 · (1 + min(#{Δ* ≤ 0}, #{Δ* ≥ 0})) / (1 + resamples)); the smallest it can say is 2 / (1 + resamples).

    Raises ValueError for different numbers of examples, and as `bootstrap_interval` does.
    """
    _check_level(level)
    left, right = _as_matrix(a, "a"), _as_matrix(b, "b")
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"a and b must hold the same examples in the same order; got {_shape(a)} and {_shape(b)}")
    if left.shape[0] != right.shape[0] and 1 not in (left.shape[0], right.shape[0]):
        left, right = left.mean(axis=0, keepdims=True), right.mean(axis=0, keepdims=True)
    differences = left - right
    means = _resampled_means(differences, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    # Sums of fractions such as 1/3 miss zero by rounding only; those are ties.
    tolerance = 1e-12 * max(1.0, float(np.abs(differences).max()))
    rarer = min(int((means <= tolerance).sum()), int((means >= -tolerance).sum()))
    p_value = min(1.0, 2 * (1 + rarer) / (1 + resamples))
    seeds, count = differences.shape
    return PairedTest(float(differences.mean()), float(low), float(high), p_value, count, seeds, level)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979), in the order given: p̃_(i) = max_{j ≤ i} min(1, (m − j + 1) · p_(j)).

    Comparing them with 0.05 keeps the chance of *any* false finding among the m arms at 5 %.

    Raises ValueError for a p-value outside [0, 1].
    """
    for p_value in p_values:
        if not 0 <= p_value <= 1:
            raise ValueError(f"a p-value lies in [0, 1]; got {p_value}")
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def group_values(values: Values, group: Values, groups: int) -> Array:
    """[N]: one value a group, of [Q] values in N groups (questions of pictures), whose mean is the mean of all Q.

    Values of one group stand or fall together, so an interval or a test is over groups. Resampling them changes how
    many values there are: the mean is a ratio of sums, linearised about itself. With
    equally many values a group these are the groups' own means; else one may lie outside of the values' range.

    Args:
        group: [Q], each value's group, in 0 … N − 1. groups: N; a group without a value gets the mean.

    Raises: ValueError for other lengths, or groups out of range.
    """
    own, member = _as_matrix(values, "values")[0], _as_matrix(group, "group")[0].astype(np.int64)
    if own.shape != member.shape or member.min() < 0 or member.max() >= groups:
        raise ValueError(f"each of {own.size} values needs its group in 0…{groups - 1}; got {_shape(group)}")
    size = np.bincount(member, minlength=groups).astype(np.float64)
    return ratio_values(np.bincount(member, weights=own, minlength=groups), size)


def ratio_values(tops: Values, bottoms: Values) -> Array:
    """[N]: one value an example, whose mean is the ratio of sums Σ tops / Σ bottoms: precision, recall, F1.

    Such a ratio is no mean of examples' own; as `group_values` it is linearised about itself, so that intervals and
    paired tests are those of the ratio to first order. A single value means nothing by itself. Where Σ bottoms is 0 the
    ratio is taken as 0.

    Raises: ValueError for other lengths.
    """
    top, bottom = _as_matrix(tops, "tops")[0], _as_matrix(bottoms, "bottoms")[0]
    if top.shape != bottom.shape:
        raise ValueError(f"a ratio needs as many tops as bottoms; got {_shape(tops)} and {_shape(bottoms)}")
    if bottom.sum() == 0:
        return np.zeros(top.size)
    ratio = top.sum() / bottom.sum()
    # ρ + (t_i − ρ·b_i) / b̄
    found: Array = ratio + (top - ratio * bottom) / bottom.mean()
    return found


def binomial_tail(successes: int, count: int, probability: float = 0.5) -> float:
    """P(X ≥ successes) for X ~ Binomial(count, probability), 0 < probability < 1; never 0 by underflow."""
    assert 0 <= successes <= count
    assert 0 < probability < 1
    if successes == 0:
        return 1.0
    # P(X ≥ k) = I_p(k, n − k + 1)
    tail = _incomplete_beta(float(successes), float(count - successes + 1), probability, 1 - probability)
    return min(1.0, max(_SMALLEST_P, tail))


def t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t with `freedom` degrees stays below with `probability` (between 0.5 and 1)."""
    assert 0.5 <= probability < 1
    assert freedom >= 1

    def upper_tail(t: float) -> float:
        # P(T > t) = ½ I_{ν/(ν + t²)}(ν/2, ½)
        return 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t**2), t**2 / (freedom + t**2))

    low, high = 0.0, 1.0
    while upper_tail(high) > 1 - probability:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if upper_tail(middle) > 1 - probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float, complement: float) -> float:
    """The regularised incomplete beta function I_x(a, b) by its continued fraction (DLMF 8.17.22, modified Lentz).

    complement: 1 − x, asked for so that it may be more exact than the subtraction.
    """
    if x <= 0 or complement <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side only
        return 1.0 - _incomplete_beta(b, a, complement, x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(complement)
    tiny = 1e-300

    def kept_off_zero(value: float) -> float:
        return value if abs(value) > tiny else tiny

    c, d = 1.0, 1 / kept_off_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 100_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / kept_off_zero(1 + even * d)
        c = kept_off_zero(1 + even / c)
        fraction *= c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / kept_off_zero(1 + odd * d)
        c = kept_off_zero(1 + odd / c)
        fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    else:
        raise AssertionError(f"the continued fraction of I_{x}({a}, {b}) did not converge")
    return math.exp(log_front) * fraction / a


def _resampled_means(matrix: Array, resamples: int, seed: int) -> Array:
    """[S N] -> [resamples]: means over seeds and examples, both drawn with replacement."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1; got {resamples}")
    rng = np.random.default_rng(seed)
    seeds, count = matrix.shape
    # Examples with equal values are interchangeable: only how often each distinct column is drawn matters, and
    # that is multinomial. Accuracies of S seeds have at most 2^S distinct columns, whatever N.
    columns, repeats = np.unique(matrix, axis=1, return_counts=True)
    few = 8 * repeats.size <= count
    block = max(1, _CELLS // (repeats.size if few else count))
    means = np.empty(resamples)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        seed_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=rows) / seeds
        if few:
            drawn = rng.multinomial(count, repeats / count, size=rows)
            sums = ((seed_weights @ columns) * drawn).sum(axis=1)
        else:
            picks = rng.integers(count, size=(rows, count))
            sums = np.take_along_axis(seed_weights @ matrix, picks, axis=1).sum(axis=1)
        means[start : start + rows] = sums / count
    return means


def _as_matrix(values: Values, name: str) -> Array:
    """[N] or [S N] -> float64 [S N], checked."""
    array = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values, np.float64)
    matrix = array[None] if array.ndim == 1 else array
    if matrix.ndim != 2 or matrix.size == 0:
        raise ValueError(
            f"{name} must be [examples] or [seeds, examples] with at least one of each; got {_shape(values)}"
        )
    broken = int((~np.isfinite(matrix)).sum())
    if broken:
        raise ValueError(f"{name} must be finite; {broken} of {matrix.size} are NaN or infinite")
    return matrix


def _shape(values: Values) -> str:
    shape = values.shape if isinstance(values, Tensor | np.ndarray) else np.shape(np.asarray(values))
    return f"shape {list(shape)}"


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1 (0.95 for 95 %); got {level}")
