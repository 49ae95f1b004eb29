"""What Sugar's comparison settles: each claim as paired tests, and one word for all of them.

Claims, measures and the rule were written before the test pictures were measured on. Searches are judged by R@10, as a
twentieth of several hundred pictures is what R@1 hangs on here, and all else by what leads the task's own tables.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from gen2real.comparison.table import github_table
from gen2real.evaluation.statistics import PairedTest, holm, paired_bootstrap
from gen2real.methods.measures import Measure

Values = Callable[[str, str], np.ndarray]
"""(arm, measure) → [S N], a row a seed."""

PAIRS = ("pairs_image_to_text_recall@10", "pairs_text_to_image_recall@10")
STORIES = ("stories_captions_unseen_recall@10", "stories_story_unseen_recall@10")
COMPOSED = ("composed_composed_recall@10",)
TWINS = ("winoground_text", "winoground_image", "winoground_group")
SEARCHES = (*PAIRS, *STORIES, *COMPOSED, *TWINS)
ANSWERS = (
    "questions_accuracy", "yes-no_accuracy", "choices_accuracy", "knowledge_rouge_l", "position_accuracy",
    "captions_cider",
)  # fmt: skip
LEVEL = 0.05

Verdict = Literal["yes", "no", "cannot be told"]


@dataclass(frozen=True)
class Claim:
    """That an arm is better than another by some measures.

    keeps: that it is not worse is enough. every: by all of the measures, not by some of them.
    """

    claim: str
    arm: str
    against: str
    measures: Sequence[str]
    keeps: bool = False
    every: bool = False


CLAIMS = (
    Claim("The mark, first half: Sugar beats α = 0 on every search", "Sugar", "α = 0", SEARCHES, every=True),
    Claim("The mark, second half: it falls behind α = 0 on no answer", "Sugar", "α = 0", ANSWERS, keeps=True),
    Claim("L_d raises answers over α = 0", "Sugar", "α = 0", ANSWERS),
    Claim("What is found is due to L_d in the adapters, not to a head alone (ours)", "Sugar", "head alone", SEARCHES),
    Claim("The alignment kernel helps interleaved search", "Sugar", "mean of slices", (*STORIES, *COMPOSED)),
    Claim("The triple kernel helps hard negatives", "Sugar", "one encoder", (*TWINS, "choices_accuracy")),
    Claim("The mean over a picture's tokens helps pictures", "Sugar", "last image token", (*PAIRS, *COMPOSED)),
    Claim("Looking up helps, k = 1", "own, k = 1", "Sugar", ("questions_accuracy",)),
    Claim("Looking up helps, k = 3", "own, k = 3", "Sugar", ("questions_accuracy",)),
    Claim("Own embeddings look up better than CLIP's, k = 1", "own, k = 1", "CLIP, k = 1", ("questions_accuracy",)),
    Claim("Own embeddings look up better than CLIP's, k = 3", "own, k = 3", "CLIP, k = 3", ("questions_accuracy",)),
    Claim("L_d searches better than InfoNCE", "Sugar", "InfoNCE", SEARCHES),
    Claim("L_d answers better than InfoNCE", "Sugar", "InfoNCE", ANSWERS),
)


@dataclass(frozen=True)
class Settled:
    """A claim, each measure's two means and their test with Holm's p over the claim's measures, and the verdict."""

    claim: Claim
    means: Mapping[str, tuple[float, float]]
    tests: Mapping[str, tuple[PairedTest, float]]

    @property
    def verdict(self) -> Verdict:
        """At 5 % after Holm. Yes: some measure is better and none worse; of `every`, all are better; of `keeps`, none
        is worse even before Holm. No: some measure is worse and, where that would have been enough, none better."""
        signed = [(Measure(name).gain(test.difference), test.p_value, p) for name, (test, p) in self.tests.items()]
        better = sum(gain > 0 and p < LEVEL for gain, _, p in signed)
        worse = sum(gain < 0 and p < LEVEL for gain, _, p in signed)
        if self.claim.keeps:
            hinted = any(gain < 0 and p < LEVEL for gain, p, _ in signed)
            return "no" if worse else "cannot be told" if hinted else "yes"
        if self.claim.every:
            return "no" if worse else "yes" if better == len(signed) else "cannot be told"
        return "cannot be told" if bool(better) == bool(worse) else "yes" if better else "no"


@dataclass(frozen=True)
class Claims:
    """What is published of them."""

    settled: Sequence[Settled]

    def markdown(self) -> str:
        """A table: a claim, its verdict, and each measure with the difference, its interval and its p."""
        heads = ["claim", "", "measure", "first", "second", "difference", "p", "after Holm"]
        lines = []
        for one in self.settled:
            head = [f"{one.claim.claim} ({one.claim.arm} − {one.claim.against})", f"**{one.verdict}**"]
            for name, (test, corrected) in one.tests.items():
                measure = Measure(name)
                values = [*map(measure.value, one.means[name]), measure.change(test)]
                lines.append([*head, measure.name, *values, f"{test.p_value:.2g}", f"{corrected:.2g}"])
                head = ["", ""]
        return github_table(heads, lines)

    def comma_separated(self) -> str:
        """CSV with plain numbers, a line for each test."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["claim", "verdict", "arm", "against", "measure", "difference", "low", "high", "p", "p_holm"])
        for one in self.settled:
            claim = one.claim
            for name, (test, p) in one.tests.items():
                values = [test.difference, test.low, test.high, test.p_value, p]
                writer.writerow([claim.claim, one.verdict, claim.arm, claim.against, name, *values])
        return stream.getvalue()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "claims": [
                {
                    **asdict(one.claim),
                    "verdict": one.verdict,
                    "tests": {name: {**test.to_json(), "p_value_holm": p} for name, (test, p) in one.tests.items()},
                }
                for one in self.settled
            ]
        }


def settle(values: Values, claims: Sequence[Claim] = CLAIMS) -> Claims:
    """Tests every claim. values: see `Values`."""
    settled = []
    for claim in claims:
        sides = {name: (values(claim.arm, name), values(claim.against, name)) for name in claim.measures}
        tests = [paired_bootstrap(one, other) for one, other in sides.values()]
        corrected = holm([test.p_value for test in tests])
        means = {name: (float(one.mean()), float(other.mean())) for name, (one, other) in sides.items()}
        settled.append(Settled(claim, means, dict(zip(sides, zip(tests, corrected, strict=True), strict=True))))
    return Claims(settled)
