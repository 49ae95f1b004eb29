"""Questions about pictures, read from a file: what is taken, and what is told of every line that is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gen2real.errors import ImageSetError
from gen2real.imagesets import ImageSet, PictureQuestion, read_questions, write_questions
from tiny_sets import colour_set


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Red and green, two of each; the last is left out."""
    root = tmp_path_factory.mktemp("asked")
    whole = colour_set(root, per_class=2, names=("red", "green"))
    rows = [{**row, "kept": row["id"] != "green-1"} for row in whole.rows()]
    return ImageSet.write(root, rows, whole.classes, name="some.parquet")


def lines(path: Path, *values: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in values))
    return path


def test_pictures_are_found_by_id_and_by_path(pictures: ImageSet, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    absolute = str(pictures.paths[2])
    asked = [
        {"image": "red-0", "question": " what colour? ", "answers": ["red", "dark red"]},
        "",
        {"image": "red/1.png", "question": "is it red?", "answer": "yes", "id": 7, "topic": "colour"},
        {"image": absolute, "question": "and this?", "answer": " green "},
    ]
    found = read_questions(lines(tmp_path / "sub" / "asked.jsonl", *asked), pictures)
    assert found == [
        PictureQuestion("1", pictures.paths[0], 0, "what colour?", ("red", "dark red")),
        PictureQuestion("7", pictures.paths[1], 1, "is it red?", ("yes",)),
        PictureQuestion("4", pictures.paths[2], 2, "and this?", ("green",)),
    ]


def test_without_a_set_paths_are_relative_to_the_file(pictures: ImageSet) -> None:
    file = lines(pictures.root / "asked.jsonl", {"image": "red/0.png", "question": "what colour?", "answer": "red"})
    assert read_questions(file) == [PictureQuestion("1", pictures.paths[0], None, "what colour?", ("red",))]
    assert read_questions(file, pictures)[0].row == 0


def test_what_is_written_is_read(pictures: ImageSet, tmp_path: Path) -> None:
    asked = [{"image": "red-0", "question": "quelle couleur ? é", "answers": ["rouge"]}]
    write_questions(tmp_path / "asked.jsonl", asked)
    assert "é" in (tmp_path / "asked.jsonl").read_text(encoding="utf-8")
    assert read_questions(tmp_path / "asked.jsonl", pictures)[0].answers == ("rouge",)


def test_pictures_that_curation_left_out_are_not_asked_about(pictures: ImageSet, tmp_path: Path) -> None:
    about = [{"image": image, "question": "what colour?", "answer": "x"} for image in ("green-1", "green-0")]
    assert [one.row for one in read_questions(lines(tmp_path / "two.jsonl", *about), pictures)] == [2]
    with pytest.raises(ImageSetError, match="nothing to ask: all 1 are about pictures that curation left out"):
        read_questions(lines(tmp_path / "one.jsonl", about[0]), pictures)


def test_every_fault_is_told_with_its_line(pictures: ImageSet, tmp_path: Path) -> None:
    good = {"image": "red-0", "question": "what colour?", "answer": "red"}
    file = lines(
        tmp_path / "faults.jsonl",
        {**good, "id": "a"},
        "{no JSON",
        "[1]",
        {**good, "image": "red-9"},
        {**good, "question": " "},
        {"image": "red-0", "question": "what colour?"},
        {**good, "answers": ["red"]},
        {"image": "red-0", "question": "what colour?", "answers": []},
        {"image": "red-0", "question": "how many?", "answer": 2},
        {**good, "id": "a"},
        {"image": 3, "question": "what colour?", "answer": "red"},
    )
    with pytest.raises(ImageSetError) as caught:
        read_questions(file, pictures)
    told = str(caught.value).splitlines()
    assert told[0] == f"{file}: 10 line(s) cannot be used:"
    expected = [
        "line 2: not JSON",
        "line 3: not an object",
        f"line 4: {pictures.manifest} has no picture with the id or path 'red-9'",
        "line 5: 'question' must be a text; got \" \"",
        "line 6: it needs 'answers', a list of texts, or 'answer', one text",
        "line 7: it needs 'answers', a list of texts, or 'answer', one text; not both",
        "line 8: answers must be texts, at least one; got []",
        "line 9: answers must be texts, at least one; got [2]",
        "line 10: the id 'a' is on line 1 already",
        "line 11: 'image' must be a text; got 3",
    ]
    assert all(line.startswith(f"  {start}") for line, start in zip(told[1:11], expected, strict=True)), told
    assert told[11].startswith('A line: {"image"')


def test_many_faults_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match=r"(?s)25 line\(s\) cannot be used.*line 20: .*… and 5 more\nA line"):
        read_questions(lines(tmp_path / "faults.jsonl", *["?"] * 25))


def test_a_missing_picture_a_missing_file_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match=r"line 1: there is no picture .*nowhere\.png"):
        read_questions(lines(tmp_path / "a.jsonl", {"image": "nowhere.png", "question": "what?", "answer": "x"}))
    with pytest.raises(ImageSetError, match=r"does not exist\. Give a file with a question a line"):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(ImageSetError, match="nothing to ask: the file is empty"):
        read_questions(lines(tmp_path / "empty.jsonl"))
