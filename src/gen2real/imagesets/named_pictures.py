"""The pictures that a JSON Lines file names, whatever it is a file of: samples, tasks, what is looked up."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.imagesets.json_lines import id_of, read_json_lines

# What a line may call its pictures, at any depth.
_KEYS = ("image", "images", "target")


def named_pictures(path: Path) -> list[Path]:
    """Every picture that a line names and that is there, each once, in the file's order; absolute.

    A name is relative to the file's folder. What is not there is no fault: it may be an id in an image set.

    Raises: ImageSetError where there is no file, and with every fault and its line: not JSON, an id that is there
        twice.
    """
    lines = read_json_lines(path, _line, example='{"image": "a.png", …}', what="item")
    # Written paths go up by ".." as names do, as in `json_lines.PictureFiles`.
    found = (os.path.normpath(path.parent.absolute() / name) for line in lines for name in line.pictures)
    # A text under such a key may be longer than a name can be: os.path.isfile then says no, Path.is_file raises.
    return [Path(one) for one in dict.fromkeys(found) if os.path.isfile(one)]


@dataclass(frozen=True)
class _Line:
    id: str
    pictures: list[str]


def _line(values: Mapping[str, Any], number: int) -> _Line:
    return _Line(id_of(values, number), list(_names(values)))


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _names(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key in _KEYS:
                yield from (one for one in (inner if isinstance(inner, list) else [inner]) if isinstance(one, str))
            yield from _names(inner)
