"""Finished runs on disk, made of values that a test chooses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gen2real.comparison.plan import Plan, make_plan
from gen2real.config import parse_config
from gen2real.methods.measured import Measured, Reading
from gen2real.methods.settings import CompareConfig


def plan_of(output: Path, arms: Mapping[str, Any], **more: Any) -> Plan:
    values = {"output": str(output), "recipe": "one.yaml", "seeds": [0, 1], "arms": dict(arms), **more}
    return make_plan(parse_config(CompareConfig, values, source="compare.yaml"))


def measured(
    folder: Path, readings: Mapping[str, Mapping[str, Any]], *, headline: str = "f_r", seconds: float = 1.0
) -> Measured:
    """A run with reading → measure → [N] values."""
    found = {
        name: Reading("chosen by a test", {measure: np.asarray(own, float) for measure, own in values.items()})
        for name, values in readings.items()
    }
    summary = {"method": "gmail", "seed": 0, "cost": {"training_seconds": seconds}}
    folder.mkdir(parents=True)
    return Measured.write(folder, summary, found, headline=headline)
