"""What a measured run found, as its report and its model card both tell it. `findings.py` is a classifier's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from gen2real.evaluation.statistics import Interval, PairedTest, paired_bootstrap
from gen2real.methods.findings import Standing, set_told, spoken, standing_of
from gen2real.methods.measures import Measure, leading
from gen2real.models.card import plain_text

BASELINES = ("baseline", "original", "zero_shot", "start", "base")
"""What the reading of the model before the training is called."""

_DONE = {
    "gmail": "was aligned by GMAIL on",
    "text": "was trained without alignment, as GMAIL's control, on",
    "distribution": "had the distributions of two sets aligned, without pairs, on",
    "captioning": "was given a captioner that was trained on",
    "multimodal": "was given a language model that was tuned on",
    "unidiff": "was tuned together with a diffusion model by UniDiff on",
    "sugar": "was taught by Sugar to answer and to embed, on",
}
_RESAMPLES = 2000
# More leading measures than so many are not told in a sentence each.
_SENTENCES = 3

Values = Mapping[str, npt.NDArray[Any]]
"""`<reading>/<measure>` → [N], as `values.safetensors` has them."""


@dataclass(frozen=True)
class Line:
    """One reading. measures: what was found. changes: the same less the baseline's, on the same pictures.

    standing: a `result`; a `bound`, chosen by the real labels; or `transductive`, which saw all unlabelled real ones.
    """

    reading: str
    meaning: str
    standing: Standing
    measures: Mapping[str, Interval]
    changes: Mapping[str, PairedTest]
    is_headline: bool


def lines(summary: Mapping[str, Any], values: Values | None = None) -> list[Line]:
    """Every reading of a run: results, then transductive ones, then bounds. Without values there are no changes."""
    baseline = baseline_of(summary)
    found = []
    for name, reading in summary["readings"].items():
        measures = {measure: Interval(**own) for measure, own in reading["measures"].items()}
        changes = {}
        for measure in measures if baseline not in (None, name) else ():
            ours, theirs = ((values or {}).get(f"{one}/{measure}") for one in (name, baseline))
            if ours is not None and theirs is not None and len(ours) == len(theirs):
                changes[measure] = paired_bootstrap(ours, theirs, resamples=_RESAMPLES)
        is_headline = name == summary["headline"]
        found.append(Line(name, reading["meaning"], standing_of(name), measures, changes, is_headline))
    order: list[Standing] = ["result", "transductive", "bound"]
    return sorted(found, key=lambda line: order.index(line.standing))


def baseline_of(summary: Mapping[str, Any]) -> str | None:
    """The reading of the original model; None where the run has none."""
    return next((name for name in BASELINES if name in summary["readings"]), None)


def measures_of(summary: Mapping[str, Any]) -> list[str]:
    """Every measure of any reading, those of the headline first."""
    readings = summary["readings"]
    ordered = [readings[summary["headline"]], *readings.values()]
    return list(dict.fromkeys(measure for reading in ordered for measure in reading["measures"]))


def reading_name(reading: str) -> str:
    """A reading for people: `f_r` as it is, `transductive_f_r` as transductive f_r, `zero_shot` as zero-shot."""
    branch = next((name for name in ("f_r", "f_g") if reading.endswith(name)), "")
    return spoken(reading.removesuffix(branch)) + branch


def method_name(summary: Mapping[str, Any]) -> str:
    """The method for people."""
    return {"gmail": "GMAIL", "unidiff": "UniDiff", "sugar": "Sugar"}.get(summary["method"], str(summary["method"]))


def sentence(summary: Mapping[str, Any]) -> str:
    """What was done, in one sentence."""
    pictures = summary["pictures"]
    counts = [(pictures.get("generated", 0), "generated"), (pictures.get("real", 0), "real")]
    learnt = " and ".join(f"{count:,} {origin} pictures" for count, origin in counts if count) or "no pictures"
    if "samples" in pictures:
        learnt = f"{pictures['samples']:,} interleaved samples with {pictures['in samples']:,} pictures"
    done = _DONE.get(_without_pairs(summary) or summary["method"], f"was trained by {method_name(summary)} on")
    tested = _tested(summary)
    then = f"then measured on {tested:,} {items_of(summary)}" if tested else "and not measured on real pictures"
    return f"{Path(str(summary['encoder'])).name} {done} {learnt}, {then}."


def verdict(summary: Mapping[str, Any], values: Values | None = None) -> str:
    """What came out: the headline reading beside the baseline, and whether chance could explain the difference."""
    line = next(line for line in lines(summary, values) if line.is_headline)
    if not line.measures:
        return "There was no evaluation set, so nothing is known about real pictures."
    baseline = baseline_of(summary)
    before = {} if baseline is None else summary["readings"][baseline]["measures"]
    keys = leading(list(line.measures))
    if len(keys) > _SENTENCES and all(key in line.changes for key in keys):
        told = _sorted(line, keys, items_of(summary))
        return f"Read as {reading_name(line.reading)}, beside the model before the training. {told}"
    parts = []
    for key in keys:
        measure = Measure(key)
        which = ", where lower is better," if measure.lower_is_better else ""
        told = f"{measure.name}{which} is {measure.interval(line.measures[key])}"
        same = key in line.changes and _is_nothing(line.changes[key])
        if same:
            one = _one(items_of(summary))
            told += f", as before the training: {one} by {one} the two are equal"
        elif key in before and line.reading != baseline:
            told += f"; before the training {measure.value(before[key]['mean'])}"
        if key in line.changes and not same:
            told += f", a difference of {measure.change(line.changes[key])}, {_weighed(measure, line.changes[key])}"
        parts.append(told[0].upper() + told[1:])
    return f"Read as {reading_name(line.reading)}: {'. '.join(parts)}."


def _sorted(line: Line, keys: Sequence[str], items: str) -> str:
    """Many measures by what their changes are, a sentence for each sort: `Better beyond what chance explains: …`."""
    same = f"{_one(items)} by {_one(items)} the same"
    sorts: dict[str, list[str]] = {}
    for key in keys:
        measure, change = Measure(key), line.changes[key]
        which = " (lower is better)" if measure.lower_is_better else ""
        told = f"{measure.name}{which} {measure.value(line.measures[key].mean)}"
        if _is_nothing(change):
            sorts.setdefault(same, []).append(told)
        else:
            sorts.setdefault(_weighed(measure, change).removeprefix("which "), []).append(
                f"{told}, {measure.change(change)}"
            )
    return " ".join(f"{sort[0].upper()}{sort[1:]}: {'; '.join(told)}." for sort, told in sorts.items())


def limitations(summary: Mapping[str, Any]) -> list[str]:
    """What the numbers do not say; each true of this run."""
    found = []
    measures = _headline_measures(summary)
    if measures:
        found.append(
            f"The intervals hold for {items_of(summary)} like the {_tested(summary):,} it was measured on. They cover "
            f"another draw of such {items_of(summary)}, not another training run: compare several seeds for that."
        )
    else:
        found.append("It was never measured on real pictures.")
    if summary.get("transductive"):
        found.append(
            "Transductive: the unlabelled pictures that it was measured on were seen in training, all together. Its "
            "numbers say nothing of pictures that come later."
        )
    if summary.get("unmatched"):
        found.append(f"{summary['unmatched']:,} generated pictures named no real partner that is there; left out.")
    readings = [name for name in summary["readings"] if name not in BASELINES]
    if len(readings) > 1:
        found.append(
            f"{reading_name(summary['headline'])} is the reading that the recipe named beforehand. To pick the best of "
            f"the {len(readings)} by these numbers would be to choose on the test set."
        )
    if any("recall@" in measure for measure in measures):
        found.append("A recall depends on how many pictures and texts were searched: compare only equal galleries.")
    if "cider" in measures or "bleu4" in measures:
        found.append(
            "Scores of captions count words that agree with the references; a caption can score well and be wrong."
        )
    if "kernel_distance" in measures:
        found.append(
            "Kernel distance, CLIP-score and CLIP-I are what one scorer sees in pictures of given seeds, steps and "
            "guidance: compare only where these are equal."
        )
    found += summary["readings"][summary["headline"]].get("details", {}).get("notes", [])
    if summary["pictures"].get("generated"):
        found.append("Whatever the generator draws wrongly, leaves out or shows one-sidedly, the model has learnt.")
    return found


def markdown(summary: Mapping[str, Any], values: Values | None = None) -> str:
    """The model card's part: results with intervals, data, limitations. It names no folder of this machine.

    Args:
        summary: what `result.json` will hold (`measured.complete`). values: with them, changes against the baseline.
    """
    keys = measures_of(summary)
    out = [plain_text(sentence(summary)), "", plain_text(verdict(summary, values)), "", "## Results", ""]
    out += [f"| reading | {' | '.join(plain_text(Measure(key).heading) for key in keys)} | |"]
    out += [f"|---|{'---:|' * len(keys)}---|"]
    for line in lines(summary, values):
        cells = [
            f"**{plain_text(reading_name(line.reading))}**"
            if line.is_headline
            else plain_text(reading_name(line.reading))
        ]
        for key in keys:
            cell = Measure(key).interval(line.measures[key]) if key in line.measures else "–"
            if key in line.changes:
                cell += f" ({Measure(key).change(line.changes[key])})"
            cells.append(plain_text(cell))
        out.append(f"| {' | '.join([*cells, plain_text(line.meaning)])} |")
    changed = "" if values is None else " In brackets: the difference to the baseline on the same pictures."
    lower = " Of measures with ↓ lower is better." if any(Measure(key).lower_is_better for key in keys) else ""
    out += ["", f"Intervals are 95 %. The reading in bold was named beforehand.{changed}{lower}", "", "## Data", ""]
    out += [f"- {set_told(one)}" for one in summary.get("sets", [])]
    out += ["", "## Limitations", "", *(f"- {plain_text(told)}" for told in limitations(summary)), ""]
    return "\n".join(out)


def _without_pairs(summary: Mapping[str, Any]) -> str | None:
    """What GMAIL did instead of aligning pairs, where it did not."""
    loss = str(summary.get("loss", ""))
    return next((name for name in ("text", "distribution") if loss.startswith(name)), None)


def _headline_measures(summary: Mapping[str, Any]) -> dict[str, Any]:
    measures: dict[str, Any] = summary["readings"][summary["headline"]]["measures"]
    return measures


def items_of(summary: Mapping[str, Any]) -> str:
    """What a value of a measure is of: a task has items, and nobody says where their pictures come from."""
    return "items" if "samples" in summary["pictures"] else "real pictures"


def _one(items: str) -> str:
    """`item` of items, `picture` of real pictures."""
    return items.removeprefix("real ").removesuffix("s")


def _tested(summary: Mapping[str, Any]) -> int:
    """Pictures of the evaluation set; other measures may be of other ones, a general set's or those that were drawn."""
    if "samples" in summary["pictures"]:
        return int(summary["pictures"]["evaluation"])
    measures = _headline_measures(summary)
    return max((int(measures[key]["count"]) for key in leading(list(measures))), default=0)


def _is_nothing(test: PairedTest) -> bool:
    return test.difference == test.low == test.high == 0


def _weighed(measure: Measure, test: PairedTest) -> str:
    found = measure.weighed(test)
    return "which chance alone could explain" if found == "chance" else f"{found} beyond what chance explains"
