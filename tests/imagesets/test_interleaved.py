"""Texts and pictures in any order: what is read, what is told of lines that cannot be, what slices a sample has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gen2real.errors import ImageSetError
from gen2real.imagesets import Interleaved, Slice, Turn, read_interleaved, slices, write_interleaved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def lines(folder: Path, *values: Any) -> Path:
    path = folder / "samples.jsonl"
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in values))
    return path


def test_parts_stand_in_the_order_of_their_marks(folder: Path) -> None:
    a, b, c = folder / "a.png", folder / "b.png", folder / "sub" / "c.png"
    found = read_interleaved(
        lines(
            folder,
            {"id": "7", "text": "<image> A duck came. <image>\nIt went. ", "images": ["a.png", "sub/c.png"]},
            "",
            {"text": "What is it?<image><image>", "images": ["b.png", "b.png"], "answer": " a duck ", "topic": "x"},
            {"id": 9, "images": ["b.png", "a.png"], "turns": [
                {"text": "<image>\nWhat?", "answer": "a duck"}, {"text": "And <image>?", "answer": "none"},
                {"text": "Sure?", "answer": "yes"},
            ]},
            {"text": "Only words.", "answer": "so it is"},
        )
    )  # fmt: skip
    assert found == [
        Interleaved("7", (Turn((a, " A duck came. ", c, "\nIt went.")),)),
        Interleaved("3", (Turn(("What is it?", b, b), "a duck"),)),
        Interleaved("9", (Turn((b, "\nWhat?"), "a duck"), Turn(("And ", a, "?"), "none"), Turn(("Sure?",), "yes"))),
        Interleaved("5", (Turn(("Only words.",), "so it is"),)),
    ]
    assert found[2].parts == (b, "\nWhat?", "And ", a, "?", "Sure?")
    assert found[2].pictures == (b, a)
    assert found[0].turns[0].text == "<image> A duck came. <image>\nIt went."
    assert found[0].turns[0].pictures == (a, c)
    assert [one.is_document for one in found] == [True, False, False, False]


def test_what_is_written_is_read_from_anywhere(folder: Path) -> None:
    samples = read_interleaved(
        lines(
            folder,
            {"id": "é", "text": "<image> <image> A duck.", "images": ["a.png", "sub/c.png"]},
            {"images": ["b.png"], "turns": [{"text": "<image> x", "answer": "y"}, {"text": "z", "answer": "w"}]},
            {"text": "no picture", "answer": "none"},
        )
    )
    write_interleaved(folder / "other" / "again.jsonl", samples)
    assert read_interleaved(folder / "other" / "again.jsonl") == samples
    written = [json.loads(line) for line in (folder / "other" / "again.jsonl").read_text().splitlines()]
    assert written[0] == {"id": "é", "text": "<image> <image> A duck.", "images": ["../a.png", "../sub/c.png"]}
    assert written[1] == {
        "id": "2", "images": ["../b.png"],
        "turns": [{"text": "<image> x", "answer": "y"}, {"text": "z", "answer": "w"}],
    }  # fmt: skip
    assert written[2] == {"id": "3", "text": "no picture", "answer": "none", "images": []}


def test_what_could_not_be_read_is_not_written(folder: Path) -> None:
    path = folder / "out.jsonl"
    for turn in (Turn(("a <image>",)), Turn(("a",), "<image>")):
        with pytest.raises(ImageSetError, match="sample '1' holds the mark <image> in a text"):
            write_interleaved(path, [Interleaved("1", (turn,))])
    with pytest.raises(ImageSetError, match="the id '1' is there twice"):
        write_interleaved(path, [Interleaved("1", (Turn(("a",)),))] * 2)
    assert not path.exists()


def test_every_fault_is_told_with_its_line(folder: Path) -> None:
    good = {"text": "<image> a duck", "images": ["a.png"]}
    file = lines(
        folder,
        {**good, "id": "a"},
        "{no JSON",
        "[1]",
        {**good, "images": ["a.png", "b.png"]},
        {**good, "text": "a duck"},
        {**good, "images": ["nowhere.png"]},
        {**good, "text": " "},
        {**good, "images": "a.png"},
        {"images": ["a.png"]},
        {**good, "turns": []},
        {"turns": []},
        {"turns": ["a", "b"]},
        {"turns": [{"text": "a", "answer": "b"}, {"text": "c"}]},
        {**good, "answer": ""},
        {**good, "answer": "<image>"},
        {**good, "id": "a"},
    )
    with pytest.raises(ImageSetError) as caught:
        read_interleaved(file)
    told = str(caught.value).splitlines()
    assert told[0] == f"{file}: 15 line(s) cannot be used:"
    expected = [
        "line 2: not JSON",
        "line 3: not an object",
        "line 4: there are 1 marks <image> and 2 images",
        "line 5: there are 0 marks <image> and 1 images",
        f"line 6: there is no picture {folder / 'nowhere.png'}",
        "line 7: 'text' must be a text; got \" \"",
        "line 8: 'images' must be a list of texts; got \"a.png\"",
        "line 9: it needs 'text', or 'turns', a list of texts and answers",
        "line 10: it needs 'text', or 'turns', a list of texts and answers; not both",
        "line 11: 'turns' must be a list of objects with a text and an answer; got []",
        "line 12: 'turns' must be a list of objects",
        "line 13: turn 2 has no answer; only a sample of one turn may be a document",
        "line 14: 'answer' must be a text; got \"\"",
        "line 15: an answer holds the mark <image>",
        "line 16: the id 'a' is on line 1 already",
    ]
    assert all(line.startswith(f"  {start}") for line, start in zip(told[1:16], expected, strict=True)), told
    assert told[16].startswith('A line: {"text"')


def test_no_file_and_an_empty_one(folder: Path) -> None:
    with pytest.raises(ImageSetError, match=r"does not exist\. Give a file with a sample a line, as \{"):
        read_interleaved(folder / "none.jsonl")
    with pytest.raises(ImageSetError, match="holds no samples: the file is empty"):
        read_interleaved(lines(folder, ""))


def test_slices_are_pictures_and_sentences_of_what_users_say(folder: Path) -> None:
    a, b = folder / "a.png", folder / "b.png"
    sample = Interleaved(
        "1",
        (
            Turn((a, ", ", b, "  A duck came. \n It went!"), "An answer. It is none."),
            Turn(("Sure? ",), "yes"),
        ),
    )
    found = slices(sample)
    assert found == [
        Slice("image", a, 0, 0),
        Slice("image", b, 0, 2),
        Slice("text", "A duck came.", 0, 3, 0, 2, 14),
        Slice("text", "It went!", 0, 3, 1, 17, 25),
        Slice("text", "Sure?", 1, 0, 0, 0, 5),
    ]
    assert [one.place for one in found] == [(0, 0, 0), (0, 2, 0), (0, 3, 0), (0, 3, 1), (1, 0, 0)]
    for one in found[2:]:
        assert sample.turns[one.turn].parts[one.part][one.begin : one.end] == one.content  # type: ignore[index]
