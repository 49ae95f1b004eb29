"""A user's folder with a benchmark in it: where its files and pictures are, and rows of what they hold."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeVar

from gen2real.errors import ImageSetError
from gen2real.imagesets.importers.samples import LeftOut, left_out, read_json_of
from gen2real.imagesets.interleaved import MARK
from gen2real.imagesets.json_lines import Fault, MissingPicture

Picture = Path | bytes
"""Where a picture lies; or its file's content, where it lies inside a table."""

Row = dict[str, Any]
"""A line of a task's file, as `evaluation.tasks` reads it, its pictures as `Picture`."""

Rows = Iterator[Row | LeftOut]
Raw = TypeVar("Raw")

PICTURE_SUFFIXES = (".jpg", ".png", ".jpeg", ".webp", ".gif")


class NotMeant(Exception):
    """An item that no task can ask, as a question about a video; the text is what is counted."""


@dataclass(frozen=True)
class Source:
    """Where a benchmark lies.

    Attributes:
        folder: with its annotations, at any depth. pictures: with its pictures, at any depth; may be the same.
        split: which part of it is wanted. layout: what files it has, for messages.
        distractors: how many other sources are to stand among a question's facts.
    """

    folder: Path
    pictures: Path
    split: str
    layout: str
    distractors: int = 0

    def files(self, pattern: str) -> list[Path]:
        """The files whose path ends like this, in order. Raises: ImageSetError where there is none."""
        found = [self.folder / name for name in self._names if _ends_like(name, pattern)]
        if not found:
            raise ImageSetError(f"{self.folder} holds no file {pattern}. It is to hold {self.layout}.")
        return found

    def file(self, pattern: str) -> Path:
        """The one file whose path ends like this. Raises: ImageSetError where there is none, or several."""
        found = self.files(pattern)
        if len(found) > 1:
            raise ImageSetError(
                f"{self.folder} holds {len(found)} files {pattern}: {', '.join(map(str, found[:5]))}. Name its own "
                "folder, or another part with --split."
            )
        return found[0]

    def optional(self, pattern: str) -> Path | None:
        """As `file`; None where there is none."""
        return self.file(pattern) if any(_ends_like(name, pattern) for name in self._names) else None

    def json(self, pattern: str) -> Any:
        """What the one JSON file holds. Raises: ImageSetError."""
        return read_json_of(self.file(pattern), self.layout)

    def listed(self, pattern: str, key: str | None = None) -> list[Any]:
        """The list in a JSON file, or behind a key of it. Raises: ImageSetError where it is none."""
        content = self.json(pattern)
        found = content.get(key) if key is not None and isinstance(content, Mapping) else content
        if not isinstance(found, list):
            where = "" if key is None else f' "{key}"'
            raise ImageSetError(f"{self.file(pattern)} holds no list{where}. It is to be of {self.layout}.")
        return found

    def mapped(self, pattern: str) -> Mapping[str, Any]:
        """The object in a JSON file. Raises: ImageSetError where it is none."""
        content = self.json(pattern)
        if not isinstance(content, Mapping):
            raise ImageSetError(f"{self.file(pattern)} holds no object. It is to be of {self.layout}.")
        return content

    def picture(self, name: str) -> Path:
        """The picture with this path in the folder, else the one whose path ends so; its suffix given or not.

        Raises: MissingPicture; Fault for several.
        """
        for ending in (name, *(f"{name}{suffix}" for suffix in PICTURE_SUFFIXES)):
            parts = Path(ending).parts
            among = self._pictures.get(parts[-1], []) if parts else []
            found = [path for path in among if path.parts[-len(parts) :] == parts]
            if Path(ending) in found:
                return self.pictures / ending
            if len(found) > 1:
                raise Fault(f"{len(found)} pictures are called {ending}: {found[0]}, {found[1]}")
            if found:
                return self.pictures / found[0]
        raise MissingPicture(f"there is no picture {name} in {self.pictures}")

    @cached_property
    def _names(self) -> list[str]:
        return sorted(path.as_posix() for path in _files(self.folder))

    @cached_property
    def _pictures(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in sorted(_files(self.pictures)):
            found.setdefault(path.name, []).append(path)
        return found


def rows(items: Iterable[tuple[Any, Raw]], make: Callable[[Raw], Row]) -> Rows:
    """A row of each (id, item), or why there is none: whatever `make` raises, and keys that are missing."""
    for id, one in items:
        try:
            yield {"id": str(id), **make(one)}
        except NotMeant as kind:
            yield LeftOut(str(id), str(kind), str(kind), meant=True)
        except Fault as fault:
            yield left_out(str(id), fault, "cannot be read")
        except KeyError as error:
            yield left_out(str(id), Fault(f"it has no {error}"), "cannot be read")
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            yield left_out(str(id), Fault(f"it is not as it should be ({error})"), "cannot be read")


def json_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file, one a line. Raises: ImageSetError with the first line that is none."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            try:
                one = json.loads(line)
            except ValueError as error:
                raise ImageSetError(f"{file}, line {number}: not JSON ({error}).") from error
            if not isinstance(one, dict):
                raise ImageSetError(f"{file}, line {number}: not an object with keys.")
            found.append(one)
    return found


def text(value: Any) -> str:
    """A text without its outer spaces. Raises: Fault where it is none, or empty."""
    if not isinstance(value, str) or not value.strip():
        raise Fault(f"a text is missing; got {value!r}")
    return value.strip()


def letter_place(letter: Any, options: Sequence[str]) -> int:
    """The place of the option with this letter. Raises: Fault."""
    place = ascii_uppercase.find(letter.strip().upper()) if isinstance(letter, str) and len(letter.strip()) == 1 else -1
    if not 0 <= place < len(options):
        raise Fault(f"the answer {letter!r} is no letter of {len(options)} options")
    return place


def with_marks(
    texts: Sequence[str], numbered: re.Pattern[str], pictures: Mapping[int, Picture]
) -> tuple[list[str], list[Picture]]:
    """Texts that name pictures by number → the same with marks `<image>`, and the pictures in the marks' order.

    A picture that is named again is named by its number there. Raises: Fault for a number without a picture.
    """
    shown: list[int] = []

    def mark(found: re.Match[str]) -> str:
        number = int(found[1])
        if number not in pictures:
            raise MissingPicture(f"there is no picture for {found[0]}")
        if number in shown:
            return f"image {number}"
        shown.append(number)
        return MARK

    marked = [numbered.sub(mark, one) for one in texts]
    return marked, [pictures[number] for number in shown]


def _ends_like(name: str, pattern: str) -> bool:
    # The same benchmark is dev in one release and DEV in another.
    name, pattern = name.lower(), pattern.lower()
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*/{pattern}")


def _files(folder: Path) -> Iterator[Path]:
    """Every file, relative; links to folders are followed, each folder once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(place, name).relative_to(folder) for name in names)
