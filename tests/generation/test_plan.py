"""Names and captions become rows: how many, in which words, by whom, with which seed."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gen2real.errors import ImageSetError, RecipeError
from gen2real.generation import GenerateConfig, make_plan
from gen2real.generation.plan import ordered, seed_of
from gen2real.prompts import GENERATION_TEMPLATES, TEMPLATES
from tiny_sets import colour_set

Make = Callable[..., GenerateConfig]


def test_each_class_has_as_many_pictures_and_takes_its_templates_in_turn(config: Make) -> None:
    plan = make_plan(config(per_class=3, templates=["a {}", "the {}"]))
    assert [(one.id, one.prompt, one.label, one.wording) for one in plan.pictures[:4]] == [
        ("cat/00000", "a cat", "cat", 0),
        ("cat/00001", "the cat", "cat", 1),
        ("cat/00002", "a cat", "cat", 0),
        ("red-dog/00000", "a red dog", "red-dog", 0),
    ]
    assert [(known.label, known.name) for known in plan.classes][2] == ("f-16a-b", "F-16A/B")
    assert len(plan.pictures) == 9


def test_ten_of_each_class_if_nothing_is_said(config: Make) -> None:
    assert len(make_plan(config(per_class=None)).pictures) == 30


def test_cupl_files(config: Make, tmp_path: Path) -> None:
    (tmp_path / "cupl.json").write_text(
        json.dumps({"cat": ["furry"], "Red_Dog": ["barks", "bites"], "F-16A/B": ["jet"]})
    )
    plan = make_plan(config(per_class=2, prompts=tmp_path / "cupl.json"))
    assert [one.prompt for one in plan.pictures] == ["furry", "furry", "barks", "bites", "jet", "jet"]


def test_a_datasets_name_takes_the_template_its_authors_drew_with(config: Make) -> None:
    assert GENERATION_TEMPLATES["dtd"] not in TEMPLATES["dtd"]
    first = make_plan(config(templates="dtd")).pictures[0]
    assert first.prompt == GENERATION_TEMPLATES["dtd"].replace("{}", "cat")


def test_generators_share_every_wording(config: Make, sd: Path, xl: Path) -> None:
    plan = make_plan(config(per_class=8, templates=["a {}", "the {}"], generators=[str(sd), str(xl)]))
    dealt = Counter((one.prompt, one.generator) for one in plan.pictures if one.label == "cat")
    assert dealt == {("a cat", 0): 2, ("a cat", 1): 2, ("the cat", 0): 2, ("the cat", 1): 2}


def test_generators_share_captions_of_one_picture_each(config: Make, sd: Path, xl: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("one\ntwo\nthree\nfour\n")
    made = config(source=tmp_path / "captions.txt", per_class=None, per_caption=1, generators=[str(sd), str(xl)])
    assert [one.generator for one in make_plan(made).pictures] == [0, 1, 0, 1]


def test_a_text_file_of_captions(config: Make, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a cat\n\n a dog \na cat\n", encoding="utf-8")
    plan = make_plan(config(source=tmp_path / "captions.txt", per_class=None, per_caption=2))
    assert [(one.id, one.prompt, one.caption_row, one.label) for one in plan.pictures] == [
        ("caption-000000-00000", "a cat", 0, None),
        ("caption-000000-00001", "a cat", 0, None),
        ("caption-000001-00000", "a dog", 1, None),
        ("caption-000001-00001", "a dog", 1, None),
        ("caption-000002-00000", "a cat", 2, None),
        ("caption-000002-00001", "a cat", 2, None),
    ]
    assert plan.classes == ()


TABLES = {
    "captions.jsonl": '{"caption": ["a cat", "furry"], "label": "Cat"}\n{"caption": "a dog", "pair_id": "r7"}\n',
    "captions.csv": "text,class,pair_id\na cat,Cat,\nfurry,Cat,\na dog,,r7\n",
    "captions.tsv": "prompt\tlabel\tpair_id\na cat\tCat\t\nfurry\tCat\t\na dog\t\tr7\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_captions_may_have_classes_and_pairs(config: Make, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TABLES[name])
    plan = make_plan(config(source=tmp_path / name, per_class=None))
    assert [(one.prompt, one.label, one.pair_id) for one in plan.pictures] == [
        ("a cat", "cat", None), ("furry", "cat", None), ("a dog", None, "r7"),
    ]  # fmt: skip
    assert [known.name for known in plan.classes] == ["Cat"]


def test_an_image_set_gives_its_captions_classes_and_partners(config: Make, tmp_path: Path) -> None:
    real = colour_set(tmp_path / "real", origin="real", per_class=2)
    plan = make_plan(config(source=real.root, per_class=None, per_caption=2))
    assert len(plan.pictures) == 16
    first = plan.pictures[0]
    assert (first.prompt, first.label, first.pair_id) == ("a red square", "red", "red-0")
    assert {one.pair_id for one in plan.pictures} == set(real.ids)
    assert plan.classes == real.classes


def test_a_seed_is_a_hash_of_run_id_and_redraw() -> None:
    """By the standard library alone: the first 53 bits of SHA-256."""
    digest = hashlib.sha256(b"7\0cat/00003\x002").digest()
    assert seed_of(7, "cat/00003", 2) == int.from_bytes(digest, "big") >> (256 - 53)
    assert len({seed_of(seed, f"cat/{n}", k) for seed in range(5) for n in range(100) for k in range(3)}) == 1500


def test_shares_are_all_of_it_and_none_of_it_twice(config: Make) -> None:
    plan = make_plan(config(per_class=40))
    shares = [plan.share(place, 3) for place in range(3)]
    assert sorted(one.id for share in shares for one in share) == sorted(one.id for one in plan.pictures)
    assert min(map(len, shares)) > 25
    assert plan.share(0, 1) == list(plan.pictures)


def test_equal_prompts_lie_side_by_side(config: Make) -> None:
    prompts = [one.prompt for one in ordered(make_plan(config(per_class=9, templates=["a {}", "b {}"])).pictures)]
    changes = sum(first != second for first, second in pairwise(prompts))
    assert changes == len(set(prompts)) - 1


def test_the_fingerprint_tells_content_not_place(config: Make, tmp_path: Path) -> None:
    before = make_plan(config()).fingerprint
    (tmp_path / "other.txt").write_text("cat\nred dog\nF-16A/B\n")
    assert make_plan(config(source=tmp_path / "other.txt", output=tmp_path / "elsewhere")).fingerprint == before
    (tmp_path / "other.txt").write_text("cat\nred dog\nF-16C/D\n")
    assert make_plan(config(source=tmp_path / "other.txt")).fingerprint != before


WRONG_SOURCES: list[tuple[str, str, str]] = [
    ("nowhere.txt", "", "nowhere.txt"),
    ("empty.jsonl", "", "holds no captions"),
    ("no.csv", "colour\nred\n", "no column of captions"),
    ("broken.jsonl", "{caption}\n", "line 1: not JSON"),
    ("nowhere.jsonl", "", "does not exist"),
]


@pytest.mark.parametrize(("name", "content", "said"), WRONG_SOURCES)
def test_a_source_that_does_not_fit(config: Make, tmp_path: Path, name: str, content: str, said: str) -> None:
    if not name.startswith("nowhere"):
        (tmp_path / name).write_text(content)
    with pytest.raises(ImageSetError, match=said):
        make_plan(config(source=tmp_path / name, per_class=None))


def test_an_image_set_without_captions_has_nothing_to_draw(config: Make, tmp_path: Path) -> None:
    real = colour_set(tmp_path / "real", per_class=1).select([])
    (tmp_path / "bare").mkdir()
    bare = type(real).write(tmp_path / "bare", real.table, real.classes)
    with pytest.raises(ImageSetError, match="has a caption to draw"):
        make_plan(config(source=bare.root, per_class=None))


def test_cupl_without_a_class(config: Make, tmp_path: Path) -> None:
    (tmp_path / "cupl.json").write_text('{"cat": ["furry"]}')
    with pytest.raises(RecipeError, match="red dog"):
        make_plan(config(prompts=tmp_path / "cupl.json"))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"per_caption": 1}, "give one of them"),
    ({"source": "captions.jsonl"}, "give per_caption"),
    ({"source": "a.jsonl", "per_class": None, "prompts": "cupl.json"}, "texts already"),
    ({"drawing": {"scheduler": "eular"}}, "did you mean euler?"),
    ({"drawing": {"width": 60}}, "multiple of 8"),
    ({"generators": []}, "at least 1"),
    ({"per_class": 0}, "greater than or equal to 1"),
    ({"picture_format": "jpg"}, "'png' or 'webp'"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_settings_that_do_not_fit(config: Make, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**changes)
