"""Who belongs to whom: several generated pictures of one real one, and those that belong to none."""

from __future__ import annotations

from pathlib import Path

import pytest

from gen2real.errors import ImageSetError
from gen2real.imagesets import ImageSet, pair_up


def made(root: Path, rows: dict[str, str | None], origin: str = "generated") -> ImageSet:
    entries = [
        {"id": row_id, "path": f"{row_id}.png", "origin": origin, "pair_id": partner}
        for row_id, partner in rows.items()
    ]
    return ImageSet.write(root, entries, [])


@pytest.fixture
def real(tmp_path: Path) -> ImageSet:
    return made(tmp_path / "real", {"r0": None, "r1": None, "r2": None}, origin="real")


def test_each_generated_row_meets_its_partner(tmp_path: Path, real: ImageSet) -> None:
    generated = made(tmp_path / "g", {"a": "r2", "b": None, "c": "r0", "d": "r2", "e": "elsewhere"})
    pairs = pair_up(generated, real)
    assert pairs.generated.tolist() == [0, 2, 3]
    assert pairs.real.tolist() == [2, 0, 2]
    assert pairs.unmatched == ["b", "e"]
    assert len(pairs) == 3
    chosen = pair_up(generated.select([3, 0]), real.select([1, 2]))
    assert (chosen.generated.tolist(), chosen.real.tolist()) == ([0, 1], [1, 1])


def test_a_set_that_names_nobody_says_how_to_make_one_that_does(tmp_path: Path, real: ImageSet) -> None:
    with pytest.raises(ImageSetError, match=r"none of the 2 pictures .*pair_id.*gen2real generate .*import table"):
        pair_up(made(tmp_path / "g", {"a": None, "b": None}), real)


def test_the_wrong_real_set_is_told_by_its_ids(tmp_path: Path, real: ImageSet) -> None:
    with pytest.raises(ImageSetError, match=r"asks for ids such as 'photo-7', and there are ids such as 'r0'"):
        pair_up(made(tmp_path / "g", {"a": "photo-7"}), real)
