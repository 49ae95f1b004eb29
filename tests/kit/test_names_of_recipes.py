"""Recipes on the kit name its toys as the kit does."""

from __future__ import annotations

from pathlib import Path

from gen2real.kit.world.vocabulary import KINDS

NAMES = Path(__file__).parents[2] / "recipes" / "generate" / "kit-names.txt"


def test_the_names_to_draw_are_the_kinds_of_toy() -> None:
    assert NAMES.read_text(encoding="utf-8").splitlines() == list(KINDS)
