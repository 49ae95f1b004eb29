"""What measures are called and how they are written for people: CIDEr-D as the field prints it, recall as R@1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gen2real.evaluation.statistics import Interval, PairedTest

_RECALL = re.compile(r"(?:(?P<before>.+)_)?(?P<way>image_to_text|text_to_image)_recall@(?P<k>\d+)")
_WAYS = {"image_to_text": "picture → text", "text_to_image": "text → picture"}
_PERCENT = {"top1": "top-1", "top5": "top-5", "accuracy": "accuracy"}
# The field prints these times 100 and without a unit: a CIDEr-D of 1.083 is its "108.3".
_SCORES = {
    "bleu4": "BLEU-4", "rouge_l": "ROUGE-L", "cider": "CIDEr-D", "meteor": "METEOR", "spice": "SPICE",
}  # fmt: skip
_LEADING = (
    r"(?:long_)?image_to_text_recall@1", r"(?:long_)?text_to_image_recall@1", r"top1", r"cider", r"accuracy",
)  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """A measure by its key in `result.json`. Values are shares of 1, or 1 for a score of "100"; all are shown × 100.

    name: for people. unit: `%`, or nothing.
    """

    key: str

    @property
    def name(self) -> str:
        """R@1 with its direction, CIDEr-D, top-1; a key that is not known, with its underscores as spaces."""
        if recall := _RECALL.fullmatch(self.key):
            before = f", {recall['before'].replace('_', ' ')}" if recall["before"] else ""
            return f"R@{recall['k']} {_WAYS[recall['way']]}{before}"
        return _PERCENT.get(self.key) or _SCORES.get(self.key) or self.key.replace("_", " ")

    @property
    def unit(self) -> str:
        """`%` for shares; empty for scores."""
        return "" if self.key in _SCORES else "%"

    def value(self, value: float) -> str:
        """`41.3 %`, `108.3`."""
        return f"{100 * value:.1f}" + (f"\u00a0{self.unit}" if self.unit else "")

    def ends(self, interval: Interval) -> str:
        """`[35.1, 47.6]`."""
        return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"

    def interval(self, interval: Interval) -> str:
        """`41.3 % [35.1, 47.6]`."""
        return f"{self.value(interval.mean)} {self.ends(interval)}"

    def change(self, test: PairedTest) -> str:
        """`+2.1 pp [+0.4, +3.8]`; of scores without `pp`."""
        # Adding 0 makes of −0.04, which is shown as 0, a zero without its minus sign.
        shown = (round(100 * value, 1) + 0.0 for value in (test.difference, test.low, test.high))
        mean, low, high = (f"{value:+.1f}".replace("-", "−") for value in shown)
        return f"{mean}{chr(0xA0) + 'pp' if self.unit else ''} [{low}, {high}]"


def leading(keys: Sequence[str]) -> list[str]:
    """The one or two measures that a reader looks for first: R@1 both ways, else top-1, else CIDEr-D, else accuracy.

    A run with labels and captions leads with both. The first of `keys` where none of these is there.
    """
    found = [key for pattern in _LEADING for key in keys if re.fullmatch(pattern, key)]
    return found or list(keys[:1])
