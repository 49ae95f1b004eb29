from __future__ import annotations

import re

import pytest
from pictures import AWKWARD

from gen2real.imagesets.slugs import slug, unique_slugs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("golden retriever", "golden-retriever"),
        ("F-16A/B", "f-16a-b"),
        ("F/A-18", "f-a-18"),
        ("../x", "x"),
        ("crème brûlée", "creme-brulee"),
        ("straße", "strasse"),
        ("CON", "con-name"),
        ("lpt1", "lpt1-name"),
        ("console", "console"),
    ],
)
def test_readable_names_keep_their_letters(name: str, expected: str) -> None:
    assert slug(name) == expected


@pytest.mark.parametrize("name", ["", ".", "..", "🦊", "北京烤鸭", "///", "n" * 300, "\ud800"])
def test_names_without_ascii_letters_get_eight_digits_of_their_hash(name: str) -> None:
    assert re.fullmatch(r"(class|n{55})-[0-9a-f]{8}", slug(name))


def test_composed_and_decomposed_unicode_are_one_name() -> None:
    assert slug("북경") == slug("북경")


def test_awkward_names_get_safe_and_different_slugs() -> None:
    slugs = unique_slugs(AWKWARD)
    assert len(set(slugs)) == len(AWKWARD)
    assert all(re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?", found) for found in slugs)


def test_equal_names_are_numbered_in_order_even_around_a_name_that_looks_numbered() -> None:
    assert unique_slugs(["a", "a", "a-2", "A", "a"]) == ["a", "a-2", "a-2-2", "a-3", "a-4"]


def test_numbered_long_names_stay_within_the_limit() -> None:
    assert {len(found) for found in unique_slugs(["b" * 64] * 12)} == {64}
