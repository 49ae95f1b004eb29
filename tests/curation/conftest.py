"""A tiny CLIP, made once; features are cached in a folder of the session's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny import tiny_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("curation") / "clip")


@pytest.fixture(autouse=True)
def _own_cache(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEN2REAL_CACHE", str(clip.parent / "cache"))
