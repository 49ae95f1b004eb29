"""For tests of our own error messages, which the shape checker would otherwise forestall."""

from __future__ import annotations

import jaxtyping
import pytest


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run it: shapes are not checked at run time."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
