"""Generated pictures against their real partners, before and after alignment: cosines, gap, partners, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gen2real.evaluation.statistics import Interval
from gen2real.report.charts import IntervalChart, interval_chart
from gen2real.report.frame import Shown
from gen2real.report.set_pictures import SetPictures
from gen2real.report.thumbnails import Thumbnails

_ENDS = ("before", "after")
Told = tuple[str, str]
"""A number and its interval, as text."""

_PAIRS = (("true pairs", "real", "true_cosine"), ("shuffled pairs", "generated", "shuffled_cosine"))


@dataclass(frozen=True)
class Example:
    """A generated picture, its real partner, and the real picture that the aligned encoder found for it."""

    generated: Shown
    real: Shown
    found: Shown
    is_partner: bool
    before: float
    after: float


@dataclass(frozen=True)
class Aligned:
    """of: what was held out. rows: (what, before, after), the two as number and interval in text.

    chart, rise: None without pairs. rise: how much more true pairs rose than shuffled ones, pair by pair, as text.
    chance: of finding the partner by luck.
    """

    of: str
    chart: IntervalChart | None
    rows: Sequence[tuple[str, Told, Told]]
    rise: str
    chance: float | None
    examples: Sequence[Example]


def alignment_of(summary: Mapping[str, Any], pictures: SetPictures, thumbs: Thumbnails) -> Aligned | None:
    """What `result.json` says of alignment; None where it says nothing."""
    told = summary.get("alignment")
    if not told:
        return None
    gap = {end: told[end]["modality_gap"] for end in _ENDS}
    gaps = [("–" if gap[end] is None else f"{gap[end]:.3f}", "") for end in _ENDS]
    row = ("modality gap: distance of the means", gaps[0], gaps[1])
    if "pairs" not in told:
        counts = told["pictures"]
        return Aligned(f"{counts['generated']:,} and {counts['real']:,} pictures", None, [row], "", None, [])
    cosines = {end: [(name, kind, Interval(**told[end][key])) for name, kind, key in _PAIRS] for end in _ENDS}
    words = "; ".join(
        f"{end}: {', '.join(f'{name} {one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]' for name, _, one in own)}"
        for end, own in cosines.items()
    )
    chart = interval_chart(
        list(cosines.items()), x_label="cosine of generated and real", summary=f"Mean cosines. {words}."
    )
    before, after = (_numbers(told[end], cosines[end]) for end in _ENDS)
    return Aligned(
        f"{told['pairs']:,} pairs",
        chart,
        [*((name, before[name], after[name]) for name in before), row],
        _rise(told.get("rise")),
        told["after"].get("partner_chance@1"),
        [_example(one, pictures, thumbs) for one in told.get("examples", [])],
    )


def _numbers(told: Mapping[str, Any], cosines: Sequence[tuple[str, str, Interval]]) -> dict[str, Told]:
    """The table's rows at one end that are of pairs."""
    (_, _, true), (_, _, shuffled) = cosines
    return {
        "cosine, true pairs": _cosine(true),
        "cosine, shuffled pairs": _cosine(shuffled),
        "true pairs less shuffled ones": (_signed(true.mean - shuffled.mean), ""),
        "partner found first (R@1, generated → real)": _share(Interval(**told["partner_recall@1"])),
    }


def _rise(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return ""
    ends = f"[{_signed(test['low'])}, {_signed(test['high'])}]"
    return f"The cosine of true pairs rose by {_signed(test['difference'])} {ends} more than that of shuffled ones"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _cosine(one: Interval) -> Told:
    return f"{one.mean:.3f}", f"[{one.low:.3f}, {one.high:.3f}]"


def _share(one: Interval) -> Told:
    value, _, ends = one.percent().partition(" [")
    return value, f"[{ends}"


def _example(one: Mapping[str, Any], pictures: SetPictures, thumbs: Thumbnails) -> Example:
    same = one["found"] == one["real"]
    what = "its partner" if same else "another picture"
    return Example(
        pictures.shown("generated", one["generated"], "generated picture", thumbs),
        pictures.shown("real", one["real"], "its real partner", thumbs),
        pictures.shown("real", one["found"], f"found by the aligned encoder, {what}", thumbs),
        same,
        one["cosine_before"],
        one["cosine_after"],
    )
