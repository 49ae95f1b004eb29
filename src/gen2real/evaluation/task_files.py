"""The files of tasks, JSON Lines with an item a line, or an image set: what several of them have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.errors import ImageSetError
from gen2real.imagesets.json_lines import Fault, Line, PictureFiles, as_json, read_json_lines, text_of
from gen2real.imagesets.manifest import ImageSet

Values = Mapping[str, Any]

_SHOWN = 20


@dataclass(frozen=True)
class Pair:
    """A text with its picture, or without one: a source that an answer may rest on."""

    picture: Path | None
    text: str


def read_items(
    path: Path, read: Callable[[Values, int, PictureFiles], Line], *, example: str, what: str = "question"
) -> list[Line]:
    """Every line's item, in the file's order.

    Args:
        read: a line's values, its number, and where its pictures lie (relative to the file); it raises `Fault`.

    Raises: ImageSetError as `read_json_lines`, and for a file without lines.
    """
    pictures = PictureFiles(path.parent)
    found = read_json_lines(path, lambda values, number: read(values, number, pictures), example=example, what=what)
    if not found:
        raise ImageSetError(f"{path} holds nothing to ask: the file is empty. A line: {example}")
    return found


def read_captioned(path: Path) -> ImageSet:
    """The captioned pictures of an image set, for tasks that are not asked by a file.

    Raises: ImageSetError where no picture has a caption, and for pictures that are not there.
    """
    kept = ImageSet.read(path).kept()
    captioned = kept.select([row for row, own in enumerate(kept.captions) if any(text.strip() for text in own)])
    if not len(captioned):
        raise ImageSetError(f"{path} has no captions on its {len(kept)} kept picture(s) to search by or score against.")
    there = zip(captioned.ids, captioned.paths, strict=True)
    missing = [f"  {name}: {picture}" for name, picture in there if not picture.is_file()]
    if missing:
        more = [f"  … and {len(missing) - _SHOWN} more"] if len(missing) > _SHOWN else []
        head = f"{path}: {len(missing)} of {len(captioned)} captioned pictures are not there:"
        raise ImageSetError("\n".join([head, *missing[:_SHOWN], *more]))
    return captioned


def pictures_of(values: Values, files: PictureFiles) -> tuple[Path, ...]:
    """`images`, a list of paths, or `image`, one; none where neither is there. Raises: Fault."""
    if "images" in values and "image" in values:
        raise Fault("it has 'images' and 'image'; give one of them")
    if "image" in values:
        return (files.find(text_of(values, "image")),)
    return tuple(files.find(name) for name in filled_texts(values, "images", least=0))


def filled_texts(values: Values, key: str, *, least: int = 1) -> tuple[str, ...]:
    """A list of at least so many texts, none blank, without their outer spaces. Raises: Fault."""
    given = values.get(key, [])
    good = isinstance(given, list) and all(isinstance(one, str) and one.strip() for one in given)
    if not good or len(given) < least:
        raise Fault(f"{key!r} must be a list of {f'at least {least} ' if least else ''}texts; got {as_json(given)}")
    return tuple(one.strip() for one in given)


def answers_of(values: Values) -> tuple[str, ...]:
    """`answers`, a list of texts, or `answer`, one. Raises: Fault."""
    if ("answers" in values) == ("answer" in values):
        raise Fault("it needs 'answers', a list of texts, or 'answer', one text" + "; not both" * ("answer" in values))
    return (text_of(values, "answer"),) if "answer" in values else filled_texts(values, "answers")


def place_of(values: Values, key: str, count: int) -> int:
    """A number from 0 to `count` − 1. Raises: Fault."""
    given = values.get(key)
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < count:
        raise Fault(f"{key!r} must be a number from 0 to {count - 1}; got {as_json(given)}")
    return given


def category_of(values: Values) -> str:
    """`category`; empty where there is none. Raises: Fault."""
    return text_of(values, "category") if values.get("category") is not None else ""


def pairs_of(values: Values, key: str, files: PictureFiles, *, least: int) -> tuple[Pair, ...]:
    """A list of texts, or of objects with `text` and, where it has one, `image`. Raises: Fault."""
    given = values.get(key, [])
    if not isinstance(given, list) or len(given) < least:
        raise Fault(f"{key!r} must be a list of at least {least}; got {as_json(given)}")
    return tuple(_pair(one, key, files) for one in given)


def _pair(given: Any, key: str, files: PictureFiles) -> Pair:
    values = {"text": given} if isinstance(given, str) else given
    if not isinstance(values, dict):
        raise Fault(f"{key!r} holds texts, or objects with 'image' and 'text'; got {as_json(given)}")
    picture = files.find(text_of(values, "image")) if values.get("image") is not None else None
    return Pair(picture, text_of(values, "text"))


def check_marks(question: str, pictures: Sequence[Path]) -> None:
    """Raises: Fault unless a question has a mark `<image>` for each of its pictures, or none at all."""
    marks = question.count("<image>")
    if marks not in (0, len(pictures)):
        raise Fault(f"the question has {marks} mark(s) <image> and {len(pictures)} picture(s)")
