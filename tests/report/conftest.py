"""A headless Chromium for all of this folder, and finished runs to report on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from measured_worlds import MeasuredRuns, make_measured
from odd_worlds import Runs, make_runs

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium; without one the test is skipped, and fails where GEN2REAL_REQUIRE_BROWSER=1."""
    chromium = shutil.which("chromium")
    required = os.environ.get("GEN2REAL_REQUIRE_BROWSER") == "1"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        if required:
            raise
        pytest.skip("playwright is not installed")
    if chromium is None:
        if required:
            pytest.fail("GEN2REAL_REQUIRE_BROWSER=1, and there is no chromium on PATH")
        pytest.skip("there is no chromium on PATH")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS, timeout=120_000)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """A run of three classes, one of them called like a script, and a comparison of two arms over two seeds."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        yield make_runs(root)


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> MeasuredRuns:
    """Runs that are judged by measures, written by hand."""
    return make_measured(tmp_path_factory.mktemp("measured"))
