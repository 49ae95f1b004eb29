"""The table of `halves.py`, and what it says of each claim: intervals and paired tests over seeds and photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gen2real.evaluation.statistics import PairedTest, bootstrap_interval, holm, paired_bootstrap

Found = Mapping[str, Mapping[str, np.ndarray]]
"""Arm → reading → [S 208], NaN where a photograph has no value (its class has no drawing, say)."""

ORIGINAL = "f_r"
READINGS = {
    "prototypes": "prototypes after",
    "head + WSE": "head + WSE, unseen",
    "head + WSE, of 152": "head + WSE, all",
    "photographs through f_g": "zero-shot f_g, unseen",
    "of 152": "zero-shot f_g, all",
}


@dataclass(frozen=True)
class Claim:
    """A sentence, and the two columns [S 208] that it says are greater and smaller."""

    claim: str
    measure: str
    greater: tuple[str, str]
    smaller: tuple[str, str]

    def test(self, found: Found) -> PairedTest | None:
        """None where an arm has not run."""
        if any(arm not in found or reading not in found[arm] for arm, reading in (self.greater, self.smaller)):
            return None
        return _paired(*(found[arm][reading] for arm, reading in (self.greater, self.smaller)))


RAISED, SPREAD = "true pairs' cosine, raised by", "shuffled pairs' cosine, raised by"
PROTOTYPES, THROUGH = ("prototypes after", "prototypes"), ("zero-shot f_g, unseen", "photographs through f_g")
UNSEEN, OF_ALL = ("head + WSE, unseen", "head + WSE"), ("head + WSE, all", "head + WSE, of 152")


def _raised(claim: str, arm: str) -> Claim:
    return Claim(claim, "cosine", (arm, RAISED), (arm, SPREAD))


def _arms_differ(claim: str, greater: str, smaller: str, *readings: tuple[str, str]) -> list[Claim]:
    chosen = readings or (PROTOTYPES, THROUGH)
    return [Claim(claim, name, (greater, reading), (smaller, reading)) for reading, name in chosen]


def _from_the_start(reading: tuple[str, str], before: str) -> Claim:
    return Claim(
        "aligned is better than the original encoder", reading[1], ("aligned", reading[0]), ("aligned", before)
    )


CLAIMS = [
    _raised("alignment raises the cosine of true pairs more than of shuffled ones", "aligned"),
    _raised("the same by Algorithm 1 (no text)", "aligned, Algorithm 1"),
    _raised("so does training without alignment", "no alignment"),
    *_arms_differ("aligned is better than no alignment, at equal steps", "aligned", "no alignment"),
    _from_the_start(PROTOTYPES, "prototypes before"),
    _from_the_start(THROUGH, "zero-shot f_r, unseen"),
    *_arms_differ(
        "aligned is better than the original encoder under RegFT", "aligned", "RegFT on unaligned", UNSEEN, OF_ALL
    ),
    *_arms_differ("real is better than aligned generated, which comes from below", "real", "aligned"),
    *_arms_differ("alignment helps real pictures too", "real, aligned", "real"),
    *_arms_differ("mixed is better than generated alone", "mixed", "aligned"),
    *_arms_differ("rank 4 is better than rank 2", "aligned", "aligned, rank 2"),
    *_arms_differ("all generated pictures are better than a third", "aligned", "aligned, a third of the drawings"),
    *_arms_differ(
        "distributions aligned are better than unaligned", "distributions aligned", "RegFT on unaligned", OF_ALL
    ),
    *_arms_differ("the same by MMD", "distributions aligned, MMD", "RegFT on unaligned", OF_ALL),
]


def table(found: Found) -> str:
    """Two Markdown tables: arms by readings, and the claims."""
    found = _with_rises(found)
    return f"{_arms(found)}\n\n{_claims(found)}\n"


def to_json(found: Found) -> dict[str, Any]:
    """The same as numbers."""
    found = _with_rises(found)
    arms = {
        arm: {name: {**_interval(values).to_json(), "seeds": len(values)} for name, values in own.items()}
        for arm, own in found.items()
    }
    claims = [
        {"claim": claim.claim, "measure": claim.measure, **test.to_json(), "holm": corrected, "verdict": _verdict(test)}
        for claim, test, corrected in _tested(found)
    ]
    return {"arms": arms, "claims": claims}


def _arms(found: Found) -> str:
    lines = [
        f"| arm | seeds | {' | '.join(READINGS)} | cosine of true pairs | of shuffled pairs |",
        "| --- |" + " ---: |" * (3 + len(READINGS)),
    ]
    rows = dict(found)
    first = next((own for own in found.values() if "prototypes before" in own), None)
    if first is not None:
        before = {"prototypes after": "prototypes before", "zero-shot f_g, unseen": "zero-shot f_r, unseen"}
        before |= {"zero-shot f_g, all": "zero-shot f_r, all"}
        rows = {ORIGINAL: {name: first[own] for name, own in before.items()}, **rows}
    for arm, own in rows.items():
        cells = [_interval(own[name]).percent() if name in own else "–" for name in READINGS.values()]
        cells += [f"{_interval(own[name]).mean:+.3f}" if name in own else "–" for name in (RAISED, SPREAD)]
        lines.append(f"| {arm} | {max(map(len, own.values()))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _claims(found: Found) -> str:
    lines = ["| claim | by | difference | p (Holm) | here it |", "| --- | --- | ---: | ---: | --- |"]
    for claim, test, corrected in _tested(found):
        shown = f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}]"
        shown = shown if claim.measure == "cosine" else test.percent()
        verdict = _verdict(test, corrected)
        lines.append(
            f"| {claim.claim} | {claim.measure} | {shown} | {test.p_value:.2g} ({corrected:.2g}) | {verdict} |"
        )
    return "\n".join(lines)


def _tested(found: Found) -> list[tuple[Claim, PairedTest, float]]:
    tests = [(claim, test) for claim in CLAIMS if (test := claim.test(found)) is not None]
    corrected = holm([test.p_value for _, test in tests])
    return [(claim, test, value) for (claim, test), value in zip(tests, corrected, strict=True)]


def _verdict(test: PairedTest, corrected: float | None = None) -> str:
    if (test.p_value if corrected is None else corrected) >= 0.05:
        return "cannot be told"
    return "holds" if test.difference > 0 else "does not hold"


def _with_rises(found: Found) -> dict[str, dict[str, np.ndarray]]:
    whole = {arm: dict(own) for arm, own in found.items()}
    for own in whole.values():
        for name, pairs in ((RAISED, "true"), (SPREAD, "shuffled")):
            if f"cosine of {pairs} pairs after" in own:
                own[name] = own[f"cosine of {pairs} pairs after"] - own[f"cosine of {pairs} pairs before"]
    return whole


def _paired(a: np.ndarray, b: np.ndarray) -> PairedTest:
    there = np.isfinite(a).all(axis=0) & np.isfinite(b).all(axis=0)
    # Where one arm has more seeds behind it so far, those that both have.
    seeds = min(len(a), len(b))
    return paired_bootstrap(a[:seeds, there], b[:seeds, there])


def _interval(values: np.ndarray) -> Any:
    there: Sequence[bool] = np.isfinite(values).all(axis=0)
    return bootstrap_interval(values[:, there])
