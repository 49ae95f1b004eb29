"""Settings of every test: one thread, offline, shapes checked."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["COLUMNS"] = "120"

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)

# Before any of these rooms is imported: their shape annotations are checked at every call.
install_import_hook(["gen2real.losses", "gen2real.evaluation", "gen2real.models"], "beartype.beartype")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20261101)


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers for torch, the same in every run."""
    return torch.Generator().manual_seed(20261101)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """No test depends on the ones before it through torch's own generator."""
    torch.manual_seed(20261101)
