"""Learning-rate factors as functions of the step alone, so that a resumed run needs no state for them."""

from __future__ import annotations

import math
from typing import Literal

Name = Literal["cosine", "cosine_restarts", "constant"]


def factor(
    step: int,
    steps: int,
    *,
    warmup: int,
    name: Name = "cosine",
    restart_steps: int | None = None,
    restart_multiplier: float | int = 2.0,
) -> float:
    r"""What the base learning rate is multiplied with at update `step` (from 0) of `steps`.

    With w warm-up steps, and for restarts the period T_i that holds the step and its first step s_i::

        (step + 1) / w                                       while step < w
        ½ · (1 + cos(π · (step − w) / (steps − w)))          "cosine"
        ½ · (1 + cos(π · (step − s_i) / T_i))                "cosine_restarts"
        1                                                    "constant"

    Args:
        restart_steps: T_0. None (ours): so long that three periods end with the run.
        restart_multiplier: T_{i+1} / T_i, at least 1.

    Source: wise-ft's and RegFT's code. There w is 500 whatever the length of the run, so a run shorter than 500 steps
    never ends its warm-up; `warmup_fraction` of `ScheduleSettings` is our default instead. Restarts: SGDR (arXiv
    1608.03983), equation 5 with a lowest rate of zero.
    """
    if step < warmup:
        return (step + 1) / warmup
    if name == "constant":
        return 1.0
    left = max(steps - warmup, 1)
    if name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / left))
    period = float(restart_steps or left / (1 + restart_multiplier + restart_multiplier**2))
    since = float(step - warmup)
    # Sums of fractions miss a whole number by rounding only; a restart must not come a step late for it.
    while since >= period - 1e-9 * steps:
        since, period = since - period, period * restart_multiplier
    return 0.5 * (1 + math.cos(math.pi * max(since, 0.0) / period))
