"""What measures are called and how they are written for people: CIDEr-D as the field prints it, recall as R@1.

Of most of them more is better, of `kernel_distance` less. Whatever words or colours a change asks `Measure.weighed`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from gen2real.evaluation.statistics import Interval, PairedTest

# What stands before a measure says of what it is: of another set (`general_top1`), of a task (`pope_accuracy`).
_BEFORE = r"(?:(?P<before>.+)_)?"
_RECALL = re.compile(_BEFORE + r"(?P<way>image_to_text|text_to_image)_recall@(?P<k>\d+)")
_ONE_WAY = re.compile(_BEFORE + r"recall@(?P<k>\d+)")
_WAYS = {"image_to_text": "picture → text", "text_to_image": "text → picture"}
_TOP = re.compile(_BEFORE + r"top(?P<k>\d+)")
_ACCURACY = re.compile(_BEFORE + r"accuracy(?:_at_(?P<k>\d+))?")
_TWINS = re.compile(_BEFORE + r"(?P<of>text|image|group)")
# The field prints these times 100 and without a unit: a CIDEr-D of 1.083 is its "108.3".
_SCORES = {
    "bleu4": "BLEU-4", "rouge_l": "ROUGE-L", "cider": "CIDEr-D", "meteor": "METEOR", "spice": "SPICE", "f1": "F1",
    "kernel_distance": "kernel distance", "clip_score": "CLIP-score", "clip_i": "CLIP-I", "diversity": "diversity",
}  # fmt: skip
_SCORE = re.compile(_BEFORE + f"(?P<score>{'|'.join(_SCORES)})")
_LOWER_IS_BETTER = frozenset({"kernel_distance"})
# Their size is the scorer's: hundreds by one, hundredths by another. Three digits are shown, at most two decimals.
_OF_ANY_SIZE = frozenset({"kernel_distance"})
_LEADING = (
    r"(?:long_)?image_to_text_recall@1", r"(?:long_)?text_to_image_recall@1", r"top1", r"cider", r"accuracy",
    r"kernel_distance",
)  # fmt: skip
# Of runs that are measured on several tasks.
_LEADING_OF_TASKS = (r".+_recall@1", r".+_group", r".+_accuracy", r".+_cider", r".+_rouge_l")


@dataclass(frozen=True)
class Measure:
    """A measure by its key in `result.json`. Values are shares of 1, or 1 for a score of "100"; all are shown × 100.

    name: for people. unit: `%`, or nothing.
    """

    key: str

    @property
    def name(self) -> str:
        """R@1 with its direction, CIDEr-D, top-1, of what behind them; a key that is not known, with its underscores
        as spaces."""
        known = (
            (_RECALL, lambda found: f"R@{found['k']} {_WAYS[found['way']]}"),
            (_ONE_WAY, lambda found: f"R@{found['k']}"),
            (_TOP, lambda found: f"top-{found['k']}"),
            (_ACCURACY, lambda found: f"accuracy at place {found['k']}" if found["k"] else "accuracy"),
            (_TWINS, lambda found: f"{found['of']} score"),
            (_SCORE, lambda found: _SCORES[found["score"]]),
        )
        for pattern, told in known:
            if found := pattern.fullmatch(self.key):
                # A task may be called as its measure is: `composed_composed_recall@1`.
                before = [word for word, _ in groupby((found["before"] or "").split("_"))]
                return told(found) + (f", {' '.join(before)}" if found["before"] else "")
        return self.key.replace("_", " ")

    @property
    def heading(self) -> str:
        """The name above a column: with an arrow down where lower is better."""
        return f"{self.name} ↓" if self.lower_is_better else self.name

    @property
    def unit(self) -> str:
        """`%` for shares; empty for scores."""
        return "" if self._score else "%"

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller value is the better one, as of distances."""
        return self._score in _LOWER_IS_BETTER

    def gain(self, difference: float) -> float:
        """A difference of two values as what was gained: > 0 is better, whichever way the measure points."""
        return -difference if self.lower_is_better else difference

    def weighed(self, test: PairedTest) -> Literal["better", "worse", "chance"]:
        """What a change is: better or worse, or, where its interval holds zero, what chance alone could explain."""
        if test.low <= 0 <= test.high:
            return "chance"
        return "better" if self.gain(test.difference) > 0 else "worse"

    def value(self, value: float) -> str:
        """`41.3 %`, `108.3`."""
        return self._shown(value, value) + (f"\u00a0{self.unit}" if self.unit else "")

    def ends(self, interval: Interval) -> str:
        """`[35.1, 47.6]`, with as many decimals as the mean has."""
        return f"[{self._shown(interval.low, interval.mean)}, {self._shown(interval.high, interval.mean)}]"

    def interval(self, interval: Interval) -> str:
        """`41.3 % [35.1, 47.6]`."""
        return f"{self.value(interval.mean)} {self.ends(interval)}"

    def difference(self, difference: float) -> str:
        """`+2.1`, with its sign and without a unit."""
        return self._shown(difference, difference, sign="+")

    def change(self, test: PairedTest) -> str:
        """`+2.1 pp [+0.4, +3.8]`; of scores without `pp`."""
        mean, low, high = (self._shown(one, test.difference, "+") for one in (test.difference, test.low, test.high))
        return f"{mean}{chr(0xA0) + 'pp' if self.unit else ''} [{low}, {high}]"

    def _shown(self, value: float, of: float, sign: Literal["", "+"] = "") -> str:
        """With the decimals that `of` has. sign: also where it is a plus."""
        decimals = self._decimals(of)
        # Adding 0 makes of −0.04, which is shown as 0, a zero without its minus sign.
        return f"{round(100 * value, decimals) + 0.0:{sign}.{decimals}f}".replace("-", "−")

    def _decimals(self, value: float) -> int:
        if self._score not in _OF_ANY_SIZE:
            return 1
        # As rounded to two decimals: 9.996 is 10.0 and 99.96 is 100.
        size = round(abs(100 * value), 2)
        return 2 if size < 10 else 1 if round(size, 1) < 100 else 0

    @property
    def _score(self) -> str:
        """Which score it is, whatever stands before it; empty for shares."""
        found = _SCORE.fullmatch(self.key)
        return found["score"] if found else ""


def leading(keys: Sequence[str]) -> list[str]:
    """The measures that a reader looks for first: R@1 both ways, top-1, CIDEr-D, accuracy, kernel distance.

    A run with labels and captions leads with both, one that draws with its kernel distance as well, one that is
    measured on several tasks with the first of each. The first of `keys` where none of these is there.
    """
    found = [key for pattern in _LEADING for key in keys if re.fullmatch(pattern, key)]
    if not found:
        found = [key for pattern in _LEADING_OF_TASKS for key in keys if re.fullmatch(pattern, key)]
        # Captions have ROUGE-L besides CIDEr-D; answers have it alone.
        found = [key for key in found if key.removesuffix("_rouge_l") + "_cider" not in found]
    return found or list(keys[:1])
