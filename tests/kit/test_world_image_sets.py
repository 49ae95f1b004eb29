from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_language import could_be_true, is_true, read

from commands import gen2real_
from gen2real.errors import ImageSetError
from gen2real.files import sha256_of
from gen2real.imagesets import ImageSet, read_questions
from gen2real.kit.world import KINDS, Scene, long_caption, questions, render, sample_scene, write_image_set

COUNT = 12


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Twelve pictures of `home`, read back from disk."""
    root = tmp_path_factory.mktemp("sets") / "home"
    write_image_set(root, "home", "validation", COUNT, captions=2)
    return ImageSet.read(root)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [sample_scene("home", "validation", index) for index in range(COUNT)]


def test_the_files_are_the_pictures(written: ImageSet, scenes: list[Scene]) -> None:
    stored = np.stack([np.asarray(Image.open(path)) for path in written.paths])
    assert np.array_equal(stored, render(scenes))
    assert written.table["sha256"].to_pylist() == [sha256_of(path) for path in written.paths]


def test_the_rows_say_what_is_in_the_pictures(written: ImageSet, scenes: list[Scene]) -> None:
    for row, scene in zip(written.rows(), scenes, strict=True):
        assert row["kinds"] == [toy.kind for toy in scene.toys]
        assert row["colours"] == [toy.colour for toy in scene.toys]
        assert row["ground"] == scene.ground
        assert row["long_caption"] == long_caption(scene)
        assert len(row["captions"]) == 2
        assert all(is_true(read(text), scene) for text in row["captions"])
        assert (row["origin"], row["kept"], row["prompt"]) == ("real", True, None)


def test_only_a_toy_that_is_alone_is_a_label(written: ImageSet, scenes: list[Scene]) -> None:
    assert written.class_names == list(KINDS)
    wanted = [KINDS.index(scene.toys[0].kind) if len(scene.toys) == 1 else -1 for scene in scenes]
    assert written.labels.tolist() == wanted
    assert {-1} < set(wanted)


def test_the_questions_lie_beside_the_pictures(written: ImageSet, scenes: list[Scene]) -> None:
    found = read_questions(written.root / "questions.jsonl", written)
    assert [(one.row, one.question, one.answers) for one in found] == [
        (row, one.question, (one.answer,)) for row, scene in enumerate(scenes) for one in questions(scene)
    ]
    assert found[0].id == "home-validation-000000-0"
    alone = read_questions(written.root / "questions.jsonl")
    assert [(one.picture, one.question) for one in alone] == [(one.picture, one.question) for one in found]
    first = json.loads((written.root / "questions.jsonl").read_text().splitlines()[0])
    assert list(first) == ["id", "image", "question", "answer", "topic"]


def test_so_many_toys_as_asked_for_give_all_a_label(tmp_path: Path) -> None:
    made = write_image_set(tmp_path / "one", "home", "test", 5, toys=1)
    assert (made.labels >= 0).all()
    assert [len(row["kinds"]) for row in write_image_set(tmp_path / "three", "home", "test", 5, toys=3).rows()] == [
        3
    ] * 5


def test_ids_tell_the_split(written: ImageSet, tmp_path: Path) -> None:
    other = write_image_set(tmp_path, "home", "test", 2, captions=0)
    assert written.ids[:2] == ["home-validation-000000", "home-validation-000001"]
    assert other.ids == ["home-test-000000", "home-test-000001"]
    assert other.captions == [[], []]


def test_captions_of_web_are_noisy_and_the_long_ones_right(tmp_path: Path) -> None:
    made = write_image_set(tmp_path, "web", "test", 60, captions=4)
    scenes = [sample_scene("web", "test", index) for index in range(60)]
    wrong = [
        not could_be_true(read(text), scene) for told, scene in zip(made.captions, scenes, strict=True) for text in told
    ]
    assert 0.1 < np.mean(wrong) < 0.3
    assert made.table["long_caption"].to_pylist() == [long_caption(scene) for scene in scenes]


def test_the_same_again_is_the_same_bytes(written: ImageSet, tmp_path: Path) -> None:
    told = []
    again = write_image_set(tmp_path, "home", "validation", COUNT, captions=2, on_progress=told.append)
    assert again.fingerprint == written.fingerprint
    assert again.captions == written.captions
    assert told == [COUNT]
    assert write_image_set(tmp_path / "1", "home", "validation", 1, seed=1).fingerprint != written.fingerprint


def test_a_set_that_is_there_is_left_as_it_is(written: ImageSet) -> None:
    before = {path: path.read_bytes() for path in written.root.rglob("*") if path.is_file()}
    with pytest.raises(ImageSetError, match=r"manifest.parquet exists and is never rewritten. Choose another folder"):
        write_image_set(written.root, "web", "test", COUNT)
    assert {path: path.read_bytes() for path in written.root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("home", "train", 501), "home train has 500 scenes; a set takes 1 to 500 of them, not 501"),
        (("home", "train", 0), "takes 1 to 500 of them, not 0"),
        (("mars", "train", 1), "no split 'train' of domain 'mars'"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(
    arguments: tuple[str, str, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ImageSetError, match=message):
        write_image_set(tmp_path / "set", *arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "set").exists()
    with pytest.raises(ImageSetError, match="0 captions or more; got -1"):
        write_image_set(tmp_path / "set", "home", "train", 1, captions=-1)


def test_the_command_writes_the_same_set(written: ImageSet, tmp_path: Path) -> None:
    words = ("home", "--split", "validation", "--count", COUNT, "--out", tmp_path / "set")
    done = gen2real_("kit", *words, "--json")
    assert (done.code, done.err) == (0, "")
    labelled = int((written.labels >= 0).sum())
    assert json.loads(done.out) == {
        "set": str(tmp_path / "set"), "pictures": COUNT, "labelled": labelled, "classes": 18,
        "questions": str(tmp_path / "set" / "questions.jsonl"),
    }  # fmt: skip
    assert ImageSet.read(tmp_path / "set").fingerprint == written.fingerprint
    done = gen2real_("kit", *words)
    assert (done.code, done.out) == (2, "")
    assert "is never rewritten. Choose another folder" in done.err
    done = gen2real_("kit", "home", "--toys", 1, "--captions", 3, "--count", 2, "--out", tmp_path / "one")
    assert (done.code, done.out) == (0, f"{tmp_path / 'one'}: 2 pictures, 2 of them labelled, 18 classes\n")
    assert [len(captions) for captions in ImageSet.read(tmp_path / "one").captions] == [3, 3]
