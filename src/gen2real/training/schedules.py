"""Learning-rate factors as functions of the step alone, so that a resumed run needs no state for them."""

from __future__ import annotations

import math
from typing import Literal


def factor(step: int, steps: int, *, warmup: int, name: Literal["cosine", "constant"] = "cosine") -> float:
    r"""What the base learning rate is multiplied with at update `step` (from 0) of `steps`.

    With w warm-up steps::

        (step + 1) / w                                       while step < w
        ½ · (1 + cos(π · (step − w) / (steps − w)))          "cosine"
        1                                                    "constant"

    Source: wise-ft's and RegFT's code. There w is 500 whatever the length of the run, so a run shorter than 500 steps
    never ends its warm-up; `warmup_fraction` of `ScheduleSettings` is our default instead.
    """
    if step < warmup:
        return (step + 1) / warmup
    if name == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
