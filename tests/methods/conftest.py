"""A tiny CLIP, generated pictures to learn from, real ones to be tested on; made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from paired_runs import Pairs, pairs_in
from small_runs import World

from tiny import tiny_clip
from tiny_sets import colour_set


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    return World(
        clip=tiny_clip(root / "clip"),
        generated=colour_set(root / "generated").root,
        real=colour_set(root / "real", origin="real", per_class=4).root,
        cache=root / "cache",
    )


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    return pairs_in(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(autouse=True)
def _own_cache(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEN2REAL_CACHE", str(world.cache))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"
