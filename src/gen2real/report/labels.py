"""What a run of Sugar was taught to find alike: whose similarities its labels were, and how they were calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.files import read_json

_NORMALIZED = {
    "paths": "the mean over alignments",
    "self": "divided by both sequences' own kernels",
    "none": "as printed in the paper, not normalised",
}


@dataclass(frozen=True)
class Labels:
    """facts: (what, whose or how). branches: of the calibration, (name, mean, standard deviation) of distances."""

    facts: Sequence[tuple[str, str]]
    branches: Sequence[tuple[str, float, float]]
    calibrated_to: tuple[float, float] | None


def labels_of(run: Path, summary: Mapping[str, Any]) -> Labels | None:
    """From the run's recipe and result; None for a run that made no labels."""
    path = run / "recipe.json"
    if summary.get("method") != "sugar" or not path.exists():
        return None
    recipe = read_json(path)
    part, kernel, teachers = recipe["discriminative"], recipe["kernel"], recipe["teachers"]
    if part["weight"] == 0 or part["form"] != "structure":
        return None
    joint = str(teachers["joint"])
    facts = [("pictures against sentences", joint)]
    for key, name in (("image", "pictures among each other"), ("text", "sentences among each other")):
        own = joint if kernel["local"] == "joint" else teachers[key] or f"{joint}, its {key} tower"
        facts.append((name, str(own)))
    if kernel["alignment"] == "mean":
        facts.append(("prefixes", "mean cosine over all pairs of slices, the control"))
    else:
        facts.append(
            ("prefixes", f"global alignment kernel, δ = {kernel['bandwidth']:g}, {_NORMALIZED[kernel['normalize']]}")
        )
    facts.append(("prefixes of one sample", "1" if kernel["same_sample"] else "as any others"))
    facts.append(("α", f"{part['weight']:g}"))
    head = recipe["head"]
    begun = ["whitened states"] if head["whiten"] else []
    begun += [f"{head['first_updates']:,} updates of the head alone"] if head["first_updates"] else []
    if begun:
        facts.append(("to begin with", f"{' and '.join(begun)}, from the states of {head['samples']:,} samples"))
    found = summary.get("calibration")
    if not found:
        return Labels(facts, [], None)
    branches = [(name, own["mean"], own["std"]) for name, own in found["branches"].items()]
    return Labels(facts, branches, (found["mean"], found["std"]))
