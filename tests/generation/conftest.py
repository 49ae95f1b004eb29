"""One tiny pipeline of each kind for all tests here, and class names to draw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gen2real.generation import GenerateConfig
from tiny import tiny_stable_diffusion, tiny_stable_diffusion_xl


@pytest.fixture(scope="session")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stable_diffusion(tmp_path_factory.mktemp("pipelines") / "sd")


@pytest.fixture(scope="session")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_stable_diffusion_xl(tmp_path_factory.mktemp("pipelines") / "xl")


@pytest.fixture
def config(tmp_path: Path, sd: Path) -> Callable[..., GenerateConfig]:
    """A generation of three classes with the tiny pipeline in two steps; what is named is changed."""
    (tmp_path / "names.txt").write_text("cat\nred dog\nF-16A/B\n", encoding="utf-8")

    def make(*, drawing: dict[str, Any] | None = None, **changes: Any) -> GenerateConfig:
        values: dict[str, Any] = {
            "source": tmp_path / "names.txt",
            "output": tmp_path / "set",
            "generators": [{"name": str(sd), "steps": 2, **(drawing or {})}],
            "per_class": 2,
            "batch_size": 4,
            "dtype": "float32",
            "device": "cpu",
        }
        return GenerateConfig.model_validate(values | changes)

    return make
