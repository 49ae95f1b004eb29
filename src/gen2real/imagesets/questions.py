"""Questions about pictures, with their answers: a JSON Lines file beside the pictures, a question a line.

    {"id": "17", "image": "images/000003.png", "question": "what colour is the ball?", "answers": ["red"]}

`image` is a picture's id in an image set or a path; `answers` is what people said, or `answer` the one right answer;
`id` may be left out. Further keys are allowed and passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.errors import ImageSetError
from gen2real.imagesets.json_lines import Fault, PictureFiles, id_of, read_json_lines, text_of, write_json_lines
from gen2real.imagesets.manifest import ImageSet

QUESTIONS = "questions.jsonl"
_EXAMPLE = '{"image": "images/1.png", "question": "what is this?", "answers": ["ball"]}'


@dataclass(frozen=True)
class PictureQuestion:
    """A question about one picture.

    id: the file's own, or its line number. picture: where it lies, absolute. row: its place in the image set that was
    given, else None. answers: one or several, as written.
    """

    id: str
    picture: Path
    row: int | None
    question: str
    answers: tuple[str, ...]


def read_questions(path: str | Path, image_set: ImageSet | None = None) -> list[PictureQuestion]:
    """The questions of a JSON Lines file, in its order.

    Args:
        image_set: whose pictures they are about: `image` is an id in it, or a path as its manifest or this file has
            it. Questions about a picture that curation left out are left out too. None: `image` is a path, relative to
            the file's folder, of a picture that must be there.

    Raises: ImageSetError with every fault and its line: not JSON, no question, no answer, a picture that is missing,
        an id that is there twice; and where nothing is left to ask.
    """
    path = Path(path)
    pictures = PictureFiles(path.parent)
    known = None if image_set is None else _Known(image_set)
    every = read_json_lines(
        path, lambda values, line: _read(values, line, pictures, known), example=_EXAMPLE, what="question"
    )
    questions = [one for one in every if known is None or one.row is None or known.kept[one.row]]
    if not questions:
        why = f"all {len(every)} are about pictures that curation left out" if every else "the file is empty"
        raise ImageSetError(f"{path} holds nothing to ask: {why}. A line: {_EXAMPLE}")
    return questions


def write_questions(path: str | Path, questions: Iterable[Mapping[str, Any]]) -> None:
    """Writes a question a line, atomically; each needs the keys image, question, and answers or answer."""
    write_json_lines(Path(path), questions)


class _Known:
    """Where a set's pictures are, by id and by path."""

    def __init__(self, image_set: ImageSet) -> None:
        self.paths = image_set.paths
        self.by_id = {name: row for row, name in enumerate(image_set.ids)}
        self.by_path = {picture: row for row, picture in enumerate(self.paths)}
        self.kept = [kept is not False for kept in image_set.table["kept"].to_pylist()]
        self.root = image_set.root.absolute()
        self.name = image_set.manifest

    def row(self, image: str, folder: Path) -> int:
        places = (self.by_id.get(image), self.by_path.get(self.root / image), self.by_path.get(folder / image))
        found = next((place for place in places if place is not None), None)
        if found is None:
            raise Fault(f"{self.name} has no picture with the id or path {image!r}")
        return found


def _read(values: Mapping[str, Any], line: int, pictures: PictureFiles, known: _Known | None) -> PictureQuestion:
    image, question = (text_of(values, name) for name in ("image", "question"))
    answers = _answers(values)
    if known is None:
        row, picture = None, pictures.find(image)
    else:
        row = known.row(image, pictures.folder)
        picture = known.paths[row]
    return PictureQuestion(id_of(values, line), picture, row, question, answers)


def _answers(values: Mapping[str, Any]) -> tuple[str, ...]:
    if ("answers" in values) == ("answer" in values):
        raise Fault(
            "it needs 'answers', a list of texts, or 'answer', one text" + ("; not both" * ("answer" in values))
        )
    given = values["answers"] if "answers" in values else [values["answer"]]
    if not isinstance(given, list) or not given or not all(isinstance(one, str) and one.strip() for one in given):
        raise Fault(f"answers must be texts, at least one; got {json.dumps(given, ensure_ascii=False)}")
    return tuple(one.strip() for one in given)
