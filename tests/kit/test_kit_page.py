"""docs/kit.md says what the code does: its tables are compared with the vocabulary."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image

from gen2real.kit import world
from gen2real.kit.world import COLOURS, DOMAINS, HELD_OUT, KINDS, SPLITS, Domain

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "kit.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]


def said(name: str) -> list[str]:
    """The cells of the row that begins with a name, without it."""
    (found,) = (row[1:] for row in ROWS if re.match(rf"`?{name}`?( \(|$)", row[0]))
    return found


def written(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple) and isinstance(value[0], str):
        return ", ".join(value)
    if isinstance(value, tuple):
        return f"{value[0]:g} to {value[1]:g}"
    return f"{value:g}"


@pytest.mark.parametrize("name", [field.name for field in fields(Domain)])
def test_the_table_of_domains_is_the_code(name: str) -> None:
    assert said(name) == [written(getattr(DOMAINS[domain], name)) for domain in ("web", "home")]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_table_of_splits_is_the_code(split: str) -> None:
    assert said(split) == [f"{SPLITS['web', split]:,}", f"{SPLITS['home', split]:,}"]  # type: ignore[index]
    assert len(SPLITS) == 6


def test_kinds_and_colours_are_listed_in_order() -> None:
    assert said("kinds") == [", ".join(KINDS)]
    assert said("colours") == [", ".join(COLOURS)]


def test_the_rule_of_what_is_held_out_is_the_code() -> None:
    assert "36 of the 144 pairs: those where (3·kind + 5·colour) mod 8 is 0 or 1" in PAGE
    by_rule = {
        (kind, colour)
        for k, kind in enumerate(said("kinds")[0].split(", "))
        for c, colour in enumerate(said("colours")[0].split(", "))
        if (3 * k + 5 * c) % 8 in (0, 1)
    }
    assert by_rule == HELD_OUT
    assert len(by_rule) == 36


def test_every_function_that_it_names_is_there() -> None:
    table = PAGE.partition("| in `gen2real.kit.world` |")[2].partition("\n\n")[0]
    names = [name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)", line.split("|")[1])]
    assert len(names) == 8
    assert all(callable(getattr(world, name)) for name in names)


@pytest.mark.parametrize("domain", ["web", "home"])
def test_the_sheets_are_small_and_whole(domain: str) -> None:
    path = DOCS / "pictures" / f"{domain}.png"
    assert f"](pictures/{domain}.png)" in PAGE
    assert path.stat().st_size < 300_000
    with Image.open(path) as sheet:
        assert sheet.size == (2 * (10 * 67 - 3), 2 * (5 * 67 - 3))
