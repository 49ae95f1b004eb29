"""Scenes that many tests look at; sampling them costs a second, rendering none of them is needed."""

from __future__ import annotations

import pytest

from gen2real.kit.world import Scene, sample_scene


@pytest.fixture(scope="session")
def web() -> list[Scene]:
    """The first 2,000 scenes of `web` train."""
    return [sample_scene("web", "train", index) for index in range(2_000)]


@pytest.fixture(scope="session")
def home() -> list[Scene]:
    """The first 1,000 scenes of `home` test."""
    return [sample_scene("home", "test", index) for index in range(1_000)]
