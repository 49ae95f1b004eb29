"""Pictures as small data: URIs, until a page has grown to its budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import decode

_AT_ONCE, _WORKERS = 64, 2


@dataclass(frozen=True)
class Thumbnail:
    """uri: data:image/webp;base64,… ; width, height: in pixels."""

    uri: str
    width: int
    height: int


class Thumbnails:
    """Each picture is made once, kept, and counted once against the budget.

    Args:
        budget: bytes of base64 in all; what comes later is left out and counted in `left_out`.
        side: of the longer side, in pixels; smaller pictures stay as they are.
    """

    def __init__(self, *, budget: int, side: int = 160) -> None:
        self.budget, self.side = budget, side
        self.spent = 0
        self.left_out = 0
        self.unreadable: list[Path] = []
        self._made: dict[Path, Thumbnail | None] = {}

    def of(self, path: Path) -> Thumbnail | None:
        """The picture's thumbnail; None past the budget and where it does not decode."""
        self.prepare([path])
        return self._made[path]

    def prepare(self, paths: Sequence[Path]) -> None:
        """Makes the thumbnails of many pictures at once; which ones fit the budget depends on their order alone."""
        new = [path for path in dict.fromkeys(paths) if path not in self._made]
        for start in range(0, len(new), _AT_ONCE):
            part = new[start : start + _AT_ONCE]
            if self.spent >= self.budget:
                self._made |= dict.fromkeys(part)
                self.left_out += len(part)
            else:
                for path, made in zip(part, self._all(part), strict=True):
                    self._made[path] = self._counted(path, made)

    def _all(self, paths: Sequence[Path]) -> list[Thumbnail | None]:
        if len(paths) == 1:
            return [self._make(paths[0])]
        with ThreadPoolExecutor(_WORKERS) as pool:
            return list(pool.map(self._make, paths))

    def _counted(self, path: Path, made: Thumbnail | None) -> Thumbnail | None:
        if made is None:
            self.unreadable.append(path)
        elif self.spent + len(made.uri) > self.budget:
            self.left_out += 1
        else:
            self.spent += len(made.uri)
            return made
        return None

    def _make(self, path: Path) -> Thumbnail | None:
        try:
            picture = decode(path, shortest_side=self.side)
        except (ImageSetError, OSError):
            return None
        picture.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        picture.save(stream, "WEBP", quality=82, method=2)
        uri = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
        return Thumbnail(uri, *picture.size)
