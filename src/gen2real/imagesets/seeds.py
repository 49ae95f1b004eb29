"""Random numbers that belong to a place, not to a history: the same place gives the same numbers after a resume."""

from __future__ import annotations

import numpy as np
import torch


def row_generator(*numbers: int) -> torch.Generator:
    """A generator seeded by non-negative integers such as (seed, update, place in the batch)."""
    state = np.random.SeedSequence(list(numbers)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 32 | int(state[1]))
