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
from gen2real.files import atomic_file
from gen2real.imagesets.manifest import ImageSet

QUESTIONS = "questions.jsonl"
_SHOWN = 20
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
    if not path.is_file():
        raise ImageSetError(f"{path} does not exist. Give a file with a question a line, as {_EXAMPLE}")
    known = None if image_set is None else _Known(image_set)
    questions: list[PictureQuestion] = []
    faults: list[str] = []
    lines: dict[str, int] = {}
    left_out = 0
    with path.open(encoding="utf-8-sig") as stream:
        for line, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                found = _read(text, line, path.parent.absolute(), known)
                if found.id in lines:
                    raise _Fault(f"the id {found.id!r} is on line {lines[found.id]} already")
            except _Fault as fault:
                faults.append(f"  line {line}: {fault}")
                continue
            lines[found.id] = line
            if known is not None and found.row is not None and not known.kept[found.row]:
                left_out += 1
                continue
            questions.append(found)
    if faults:
        more = [f"  … and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise ImageSetError(
            "\n".join(
                [f"{path}: {len(faults)} line(s) cannot be used:", *faults[:_SHOWN], *more, f"A line: {_EXAMPLE}"]
            )
        )
    if not questions:
        why = f"all {left_out} are about pictures that curation left out" if left_out else "the file is empty"
        raise ImageSetError(f"{path} holds nothing to ask: {why}. A line: {_EXAMPLE}")
    return questions


def write_questions(path: str | Path, questions: Iterable[Mapping[str, Any]]) -> None:
    """Writes a question a line, atomically; each needs the keys image, question, and answers or answer."""
    with atomic_file(Path(path)) as partial, partial.open("w", encoding="utf-8") as stream:
        for question in questions:
            stream.write(json.dumps(question, ensure_ascii=False) + "\n")


class _Fault(Exception):
    """What is wrong with a line."""


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
            raise _Fault(f"{self.name} has no picture with the id or path {image!r}")
        return found


def _read(text: str, line: int, folder: Path, known: _Known | None) -> PictureQuestion:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise _Fault(f"not JSON ({error})") from error
    if not isinstance(values, dict):
        raise _Fault("not an object with keys")
    image, question = (_text(values, name) for name in ("image", "question"))
    answers = _answers(values)
    if known is None:
        row, picture = None, folder / image
        if not picture.is_file():
            raise _Fault(f"there is no picture {picture}")
    else:
        row = known.row(image, folder)
        picture = known.paths[row]
    id = values.get("id")
    return PictureQuestion(str(line if id is None else id), picture, row, question, answers)


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value.strip():
        raise _Fault(f"{name!r} must be a text; got {json.dumps(value, ensure_ascii=False)}")
    return value.strip()


def _answers(values: Mapping[str, Any]) -> tuple[str, ...]:
    if ("answers" in values) == ("answer" in values):
        raise _Fault(
            "it needs 'answers', a list of texts, or 'answer', one text" + ("; not both" * ("answer" in values))
        )
    given = values["answers"] if "answers" in values else [values["answer"]]
    if not isinstance(given, list) or not given or not all(isinstance(one, str) and one.strip() for one in given):
        raise _Fault(f"answers must be texts, at least one; got {json.dumps(given, ensure_ascii=False)}")
    return tuple(one.strip() for one in given)
