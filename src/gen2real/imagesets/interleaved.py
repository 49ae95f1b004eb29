"""Texts and pictures in any order, to learn from and to embed: a JSON Lines file, a sample a line.

    {"id": "7", "text": "<image> A duck came. <image> It went.", "images": ["a.png", "b.png"]}
    {"id": "8", "text": "<image>\\nWhat is it?", "images": ["a.png"], "answer": "a duck"}
    {"id": "9", "images": ["a.png"], "turns": [{"text": "<image> What is it?", "answer": "a duck"}, …]}

A mark `<image>` says where a picture stands; pictures are those of `images`, in order, paths relative to the file's
folder. The first is a document, whose own text is learnt; where there are answers, they alone are. Further keys are
allowed and passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gen2real.errors import ImageSetError
from gen2real.imagesets.json_lines import (
    Fault,
    PictureFiles,
    as_json,
    id_of,
    read_json_lines,
    text_of,
    texts_of,
    write_json_lines,
)
from gen2real.imagesets.sentences import sentences

MARK = "<image>"
"""Where a picture stands in a text."""

Part = str | Path
"""A text, or a picture's file."""

_EXAMPLE = '{"text": "<image> A duck came.", "images": ["1.png"]}, with an "answer" if it is a question'


@dataclass(frozen=True)
class Turn:
    """What the user says, and what is answered.

    parts: texts as written (spaces between pictures too) and pictures; without parts that are empty. answer: None in a
    document.
    """

    parts: tuple[Part, ...]
    answer: str | None = None

    @property
    def text(self) -> str:
        """The parts as one text, a mark `<image>` for each picture."""
        return "".join(part if isinstance(part, str) else MARK for part in self.parts)

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The pictures, in order."""
        return tuple(part for part in self.parts if isinstance(part, Path))


@dataclass(frozen=True)
class Interleaved:
    """A sample: a document (one turn without an answer), or a conversation (an answer in every turn)."""

    id: str
    turns: tuple[Turn, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every turn's parts, in order; no answers."""
        return tuple(part for turn in self.turns for part in turn.parts)

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Every turn's pictures, in order."""
        return tuple(part for part in self.parts if isinstance(part, Path))

    @property
    def is_document(self) -> bool:
        """Whether its own text is what is learnt."""
        return all(turn.answer is None for turn in self.turns)


@dataclass(frozen=True)
class Slice:
    """One picture, or one sentence, of what a user says.

    Attributes:
        content: the picture's file; or the sentence, without outer spaces.
        turn, part: where it is in its sample: `sample.turns[turn].parts[part]`.
        sentence: which of the part's sentences, as `sentences` counts them; 0 for a picture.
        begin, end: the sentence is `parts[part][begin:end]`; 0, 0 for a picture.
    """

    kind: Literal["image", "text"]
    content: Part
    turn: int
    part: int
    sentence: int = 0
    begin: int = 0
    end: int = 0

    @property
    def place(self) -> tuple[int, int, int]:
        """(turn, part, sentence)."""
        return self.turn, self.part, self.sentence


def slices(sample: Interleaved) -> list[Slice]:
    """A sample's pictures and sentences in order; of what users say alone, answers are none (ours: what is read is
    read before it is answered). A sentence without a letter or digit, as the comma between two pictures, is none.
    """
    found: list[Slice] = []
    for turn, said in enumerate(sample.turns):
        for place, part in enumerate(said.parts):
            if isinstance(part, Path):
                found.append(Slice("image", part, turn, place))
            else:
                found += _text_slices(part, turn, place)
    return found


def parts_of(text: str, pictures: Iterable[Path]) -> tuple[Part, ...]:
    """A text with marks, cut at them. Raises: Fault where there are not as many marks as pictures."""
    pieces, found = text.split(MARK), list(pictures)
    if len(pieces) - 1 != len(found):
        raise Fault(f"there are {len(pieces) - 1} marks {MARK} and {len(found)} pictures")
    parts: list[Part] = [pieces[0]]
    for picture, piece in zip(found, pieces[1:], strict=True):
        parts += [picture, piece]
    return tuple(part for part in parts if part != "")


def read_interleaved(path: str | Path) -> list[Interleaved]:
    """The samples of a JSON Lines file, in its order; pictures as absolute paths.

    Raises: ImageSetError with every fault and its line: not JSON, other numbers of marks and pictures, pictures that
        are missing, no text, an answer that is empty or holds a mark, a turn of several without an answer, an id that
        is there twice; and for a file without samples.
    """
    path = Path(path)
    files = PictureFiles(path.parent)
    found = read_json_lines(
        path, lambda values, number: _sample(values, number, files), example=_EXAMPLE, what="sample"
    )
    if not found:
        raise ImageSetError(f"{path} holds no samples: the file is empty. A line: {_EXAMPLE}")
    return found


def write_interleaved(path: str | Path, samples: Iterable[Interleaved]) -> None:
    """Writes a sample a line, atomically; pictures relative to the file's folder.

    Raises: ImageSetError for a text that holds a mark of no picture, and an id that is there twice.
    """
    path = Path(path)
    write_json_lines(path, _lines(samples, path.parent.absolute()))


def _text_slices(text: str, turn: int, part: int) -> Iterator[Slice]:
    begin = len(text) - len(text.lstrip())
    for number, sentence in enumerate(sentences(text)):
        content = sentence.strip()
        if any(letter.isalnum() for letter in content):
            yield Slice("text", content, turn, part, number, begin, begin + len(content))
        begin += len(sentence)


def _sample(values: Mapping[str, Any], number: int, files: PictureFiles) -> Interleaved:
    if ("text" in values) == ("turns" in values):
        raise Fault("it needs 'text', or 'turns', a list of texts and answers" + "; not both" * ("text" in values))
    given = values.get("turns", [values])
    if not isinstance(given, list) or not given or not all(isinstance(turn, Mapping) for turn in given):
        raise Fault(f"'turns' must be a list of objects with a text and an answer; got {as_json(given)}")
    said = [(text_of(turn, "text"), None if turn.get("answer") is None else text_of(turn, "answer")) for turn in given]
    if len(said) > 1 and (silent := [str(place) for place, (_, answer) in enumerate(said, start=1) if answer is None]):
        raise Fault(f"turn {', '.join(silent)} has no answer; only a sample of one turn may be a document")
    if any(MARK in (answer or "") for _, answer in said):
        raise Fault(f"an answer holds the mark {MARK}; pictures stand in the user's text only")
    names = texts_of(values, "images")
    marks = [text.count(MARK) for text, _ in said]
    if sum(marks) != len(names):
        raise Fault(f"there are {sum(marks)} marks {MARK} and {len(names)} images")
    pictures = iter([files.find(name) for name in names])
    turns = [
        Turn(parts_of(text, [next(pictures) for _ in range(own)]), answer)
        for (text, answer), own in zip(said, marks, strict=True)
    ]
    return Interleaved(id_of(values, number), tuple(turns))


def _lines(samples: Iterable[Interleaved], folder: Path) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise ImageSetError(f"the id {sample.id!r} is there twice; a file's ids are unique.")
        seen.add(sample.id)
        texts = [part for part in sample.parts if isinstance(part, str)] + [turn.answer or "" for turn in sample.turns]
        if any(MARK in text for text in texts):
            raise ImageSetError(f"sample {sample.id!r} holds the mark {MARK} in a text; give the picture as a Path.")
        turns = [
            {"text": turn.text, **({} if turn.answer is None else {"answer": turn.answer})} for turn in sample.turns
        ]
        images = [os.path.relpath(picture.absolute(), folder) for picture in sample.pictures]
        said = {**turns[0], "images": images} if len(turns) == 1 else {"images": images, "turns": turns}
        yield {"id": sample.id, **said}
