"""Pictures as small data: URIs, until a page has grown to its budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import decode


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
        if path not in self._made:
            self._made[path] = self._make(path)
        return self._made[path]

    def first(self, paths: Sequence[Path], count: int) -> list[Thumbnail]:
        """Those of the first `count` pictures, less those that cannot be shown."""
        return [found for path in paths[:count] if (found := self.of(path)) is not None]

    def _make(self, path: Path) -> Thumbnail | None:
        if self.spent >= self.budget:
            self.left_out += 1
            return None
        try:
            picture = decode(path, shortest_side=self.side)
        except (ImageSetError, OSError):
            self.unreadable.append(path)
            return None
        picture.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        picture.save(stream, "WEBP", quality=82, method=4)
        uri = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
        if self.spent + len(uri) > self.budget:
            self.left_out += 1
            return None
        self.spent += len(uri)
        return Thumbnail(uri, *picture.size)
