"""What a classification run found, as its report and its model card both tell it: one source of facts for the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from gen2real.evaluation.statistics import Interval, PairedTest, paired_bootstrap
from gen2real.models.card import plain_text

Standing = Literal["result", "bound", "transductive"]

_MEANINGS = {
    "zero_shot": "the original model, not tuned",
    "tuned": "fine-tuned, nothing mixed in",
    "blend": "original and tuned weights mixed at the recipe's alpha",
    "blend_generated": "the same, alpha chosen on held-out generated pictures",
    "output_ensemble": "the two models' answers mixed: both must run",
    "oracle": "the best alpha by the real labels: a bound",
}
_RESAMPLES = 2000


@dataclass(frozen=True)
class Line:
    """One reading of a run. Shares are of 1.

    standing: a `result`; a `bound`, which was chosen on the real labels; or `transductive`, which saw all of the
        unlabelled real pictures. change: top-1 less zero-shot's on the same real pictures.
    """

    reading: str
    meaning: str
    standing: Standing
    alpha: float
    real: Interval | None
    top5: Interval | None
    mean_per_class: float | None
    calibration_error: float | None
    generated: Interval | None
    change: PairedTest | None
    is_saved: bool


def lines(summary: Mapping[str, Any], answers: Mapping[str, Tensor]) -> list[Line]:
    """Every reading of a result, results first, then transductive ones, then the bound."""
    saved = headline(summary)
    found = []
    for name, reading in summary["readings"].items():
        real, generated = reading.get("real"), reading.get("generated")
        found.append(
            Line(
                reading=name,
                meaning=_meaning(name),
                standing=standing_of(name),
                alpha=reading["alpha"],
                real=None if real is None else Interval(**real["top1"]),
                top5=None if real is None else Interval(**real["top5"]),
                mean_per_class=None if real is None else real["mean_per_class"],
                calibration_error=None if real is None else real["calibration_error"],
                generated=None if generated is None else Interval(**generated["top1"]),
                change=_change(answers, name),
                is_saved=name == saved,
            )
        )
    order: Sequence[Standing] = ("result", "transductive", "bound")
    return sorted(found, key=lambda line: order.index(line.standing))


def headline(summary: Mapping[str, Any]) -> str:
    """The reading of the model that is saved, which its recipe named before anything was measured."""
    return "blend" if summary["saved"]["rule"] == "fixed" else "blend_generated"


def sentence(summary: Mapping[str, Any]) -> str:
    """What was done, in one sentence."""
    pictures, classes = summary["pictures"], summary["classes"]
    learnt = f"{pictures['generated']:,} generated pictures"
    if pictures["real"]:
        learnt += f" and {pictures['real']:,} real ones"
    method = {"regft": "RegFT", "flyp": "FLYP"}.get(summary["method"], summary["method"])
    if "soup" in summary:
        method = f"a {summary['soup']['kind']} soup of {len(summary['soup']['chosen'])} models"
    real = next((reading["real"] for reading in summary["readings"].values() if "real" in reading), None)
    tested = "and not measured on real ones"
    if real is not None:
        tested = f"then measured on {real['count']:,} real photographs"
        tested += " that no choice was made on" if summary["name_only"] else ""
    return f"{Path(summary['encoder']).name} was tuned by {method} on {learnt} of {len(classes):,} classes, {tested}."


def verdict(summary: Mapping[str, Any], answers: Mapping[str, Tensor]) -> str:
    """What came out: the saved model beside the original one, and whether chance could explain it."""
    by_name = {line.reading: line for line in lines(summary, answers)}
    saved, original = by_name[headline(summary)], by_name["zero_shot"]
    if saved.real is None or original.real is None or saved.change is None:
        assert saved.generated is not None
        which = summary["generated_pictures_are"]
        return (
            f"It names {saved.generated.percent()} of the {which} generated pictures. There was no evaluation set, so "
            "nothing is known about real ones."
        )
    change = saved.change
    told = (
        f"It names {saved.real.percent()} of them; the original model {original.real.percent()}. "
        f"The difference is {change.percent()} (p\u00a0=\u00a0{change.p_value:.2g})"
    )
    if change.low <= 0 <= change.high:
        return f"{told}, which chance alone could explain: it may be nothing."
    return f"{told}: {'better' if change.difference > 0 else 'worse'}, beyond what chance explains."


def limitations(summary: Mapping[str, Any]) -> list[str]:
    """What the numbers do not say; each true of this run."""
    found = [
        f"The model answers with one of its {len(summary['classes']):,} classes, whatever a picture shows; it has no "
        "answer for anything else."
    ]
    real = summary["readings"][headline(summary)].get("real")
    if real is None:
        found.append("It was never measured on real pictures; accuracy on generated ones does not carry over.")
    else:
        few = [one for one in real["per_class"] if one["count"] < 10]
        if few:
            found.append(
                f"{len(few)} of {len(real['per_class'])} classes have fewer than 10 real pictures: their accuracies, "
                "class by class, are rough."
            )
        found.append(
            f"The intervals hold for pictures like the {real['count']:,} it was measured on. They cover another draw "
            "of such pictures, not another training run: compare several seeds for that."
        )
    if summary["generated_pictures_are"] == "training":
        found.append("No generated pictures were held out, so accuracy on generated pictures is that of training.")
    found.append("Whatever the generator draws wrongly, leaves out or shows one-sidedly, the model has learnt.")
    return found


def markdown(summary: Mapping[str, Any], answers: Mapping[str, Tensor]) -> str:
    """The model card's part: results with intervals, data, limitations. It names no folder of this machine."""
    out = [sentence(summary), "", verdict(summary, answers), "", "## Results", ""]
    out += ["| reading | alpha | real top-1 | change | generated top-1 | |", "|---|---:|---:|---:|---:|---|"]
    for line in lines(summary, answers):
        cells = [
            f"**{line.reading}** (this model)" if line.is_saved else line.reading,
            f"{line.alpha:g}",
            "–" if line.real is None else line.real.percent(),
            "–" if line.change is None or line.reading == "zero_shot" else line.change.percent(),
            "–" if line.generated is None else line.generated.percent(),
            line.meaning,
        ]
        out.append(f"| {' | '.join(cell if '**' in cell else plain_text(cell) for cell in cells)} |")
    out += ["", f"Intervals are 95 %. Generated pictures: {summary['generated_pictures_are']}.", "", "## Data", ""]
    for one in summary.get("sets", []):
        out.append(f"- {set_told(one)}")
    out += ["", "## Limitations", "", *(f"- {told}" for told in limitations(summary)), ""]
    return "\n".join(out)


def set_told(one: Mapping[str, Any]) -> str:
    """One image set of a run in a line of Markdown: its role, name, counts, generators, prompts, seeds, content."""
    # A JSON Lines file has its own name, and its rows are lines.
    name = plain_text(one.get("file") or Path(one["manifest"]).parent.name)
    told = f"**{one['role']}**: {name}, {one['kept']:,} {'lines' if 'file' in one else 'pictures'}"
    if one["dropped"]:
        reasons = ", ".join(f"{plain_text(reason)}: {count:,}" for reason, count in one["dropped"].items())
        told += f" of {one['rows']:,} (left out: {reasons})"
    if one["generators"]:
        told += "; drawn by " + ", ".join(plain_text(_without_place(name)) for name in one["generators"])
    if one["prompts"]["different"]:
        told += f"; {one['prompts']['different']:,} prompts"
    if one["seeds"]:
        told += f"; seeds {one['seeds']['lowest']}–{one['seeds']['highest']}"
    return f"{told}; content {one['fingerprint'][:16]}"


def _without_place(name: str) -> str:
    """A hub name as it is; of a folder its last part, as a card is for others."""
    return Path(name).name if Path(name).is_absolute() else name


def spoken(reading: str) -> str:
    """A reading's name for people: `output_ensemble` as output ensemble."""
    return reading.replace("zero_shot", "zero-shot").replace("_", " ")


def _meaning(reading: str) -> str:
    if reading.startswith("transductive_batch_norm_"):
        return "with batch-norm statistics of all unlabelled real pictures"
    if reading.startswith("transductive_"):
        return "centred on the mean of all unlabelled real pictures"
    return _MEANINGS.get(reading, "")


def standing_of(reading: str) -> Standing:
    """Whether a reading is a result, by its name."""
    if reading == "oracle":
        return "bound"
    return "transductive" if reading.startswith("transductive_") else "result"


def _change(answers: Mapping[str, Tensor], reading: str) -> PairedTest | None:
    ours, theirs = answers.get(f"real.{reading}"), answers.get("real.zero_shot")
    if ours is None or theirs is None:
        return None
    labels = answers["real"]
    right = [np.asarray((one[:, 0] == labels).numpy()) for one in (ours, theirs)]
    return paired_bootstrap(right[0], right[1], resamples=_RESAMPLES)
