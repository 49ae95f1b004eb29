"""JSON Lines that people write by hand: every line is looked at, and all that is wrong is told at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from gen2real.errors import ImageSetError
from gen2real.files import atomic_file

_SHOWN = 20


class Fault(Exception):
    """What is wrong with a line, as a person is told it."""


class MissingPicture(Fault):
    """A picture is not where a line says."""


@runtime_checkable
class Identified(Protocol):
    """What has an id."""

    @property
    def id(self) -> str:
        """Unique in its file."""


Line = TypeVar("Line", bound=Identified)


def read_json_lines(
    path: Path, read: Callable[[Mapping[str, Any], int], Line], *, example: str, what: str
) -> list[Line]:
    """What `read` makes of each line, in the file's order; lines of spaces are passed over.

    Args:
        read: is given a line's values and its number, from 1, and raises `Fault` where they cannot be used.
        example: a line as it should be, for messages.
        what: a line is called, as "question".

    Returns: nothing for a file without lines.
    Raises: ImageSetError where there is no file, and with every fault and its line: not JSON, no object, an id that is
        there twice, and whatever `read` finds.
    """
    if not path.is_file():
        raise ImageSetError(f"{path} does not exist. Give a file with a {what} a line, as {example}")
    found: list[Line] = []
    faults: list[str] = []
    lines: dict[str, int] = {}
    with path.open(encoding="utf-8-sig") as stream:
        for number, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                one = read(_values(text), number)
                if one.id in lines:
                    raise Fault(f"the id {one.id!r} is on line {lines[one.id]} already")
            except Fault as fault:
                faults.append(f"  line {number}: {fault}")
                continue
            lines[one.id] = number
            found.append(one)
    if faults:
        more = [f"  … and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise ImageSetError(
            "\n".join([f"{path}: {len(faults)} line(s) cannot be used:", *faults[:_SHOWN], *more, f"A line: {example}"])
        )
    return found


def write_json_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes an object a line, atomically."""
    with atomic_file(path) as partial, partial.open("w", encoding="utf-8") as stream:
        for line in lines:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def id_of(values: Mapping[str, Any], number: int) -> str:
    """A line's own id as text, or its number."""
    given = values.get("id")
    return str(number if given is None else given)


def text_of(values: Mapping[str, Any], name: str) -> str:
    """A text without its outer spaces. Raises: Fault where it is none, or empty."""
    value = values.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Fault(f"{name!r} must be a text; got {as_json(value)}")
    return value.strip()


def texts_of(values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts, as they are; none where the key is missing. Raises: Fault for anything else."""
    given = values.get(name, [])
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise Fault(f"{name!r} must be a list of texts; got {as_json(given)}")
    return tuple(given)


def as_json(value: Any) -> str:
    """A value as the file has it."""
    return json.dumps(value, ensure_ascii=False)


class PictureFiles:
    """Where pictures lie; each is looked for once, however many lines name it.

    folder: what paths are relative to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._there: dict[Path, bool] = {}

    def find(self, name: str) -> Path:
        """The absolute path of a picture. Raises: MissingPicture."""
        # Written paths go up by ".." as names do, through links to folders too.
        path = Path(os.path.normpath(self.folder / name))
        if path not in self._there:
            self._there[path] = path.is_file()
        if not self._there[path]:
            raise MissingPicture(f"there is no picture {path}")
        return path


def _values(text: str) -> Mapping[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise Fault(f"not JSON ({error})") from error
    if not isinstance(values, dict):
        raise Fault("not an object with keys")
    return values
