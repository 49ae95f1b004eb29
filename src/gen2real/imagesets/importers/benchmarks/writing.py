"""Pictures of rows, as files or as bytes → paths relative to the file that is written, and a folder beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from gen2real.files import atomic_folder
from gen2real.imagesets.importers.benchmarks.source import Row, Rows
from gen2real.imagesets.importers.samples import LeftOut, left_out
from gen2real.imagesets.json_lines import Fault

# What a picture's file begins with.
_FORMATS = ((b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n\x1a\n", ".png"), (b"GIF8", ".gif"), (b"RIFF", ".webp"))


class RowPictures:
    """Gives rows their pictures as paths; those given as bytes are written at once, each content once.

    They go to `<out without suffix>-pictures`, which is there when the context ends without an error, and never half.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(f"{out.stem}-pictures")
        self.base = out.parent.absolute()
        self.named: set[str] = set()
        self._partial: Path | None = None
        self._stack = ExitStack()

    def __enter__(self) -> RowPictures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def of(self, rows: Iterable[Row | LeftOut]) -> Rows:
        """The rows with relative paths for pictures, without values that are None; bytes of no picture are faults."""
        yield from map(self._row, rows)

    def _row(self, row: Row | LeftOut) -> Row | LeftOut:
        if isinstance(row, LeftOut):
            return row
        try:
            return {key: self._value(one) for key, one in row.items() if one is not None}
        except Fault as fault:
            return left_out(row["id"], fault, "cannot be read")

    def _value(self, value: Any) -> Any:
        if isinstance(value, Path):
            return self._known(os.path.relpath(value, self.base))
        if isinstance(value, bytes):
            return self._known(f"{self.folder.name}/{self._save(value)}")
        if isinstance(value, Mapping):
            return {key: self._value(one) for key, one in value.items()}
        return [self._value(one) for one in value] if isinstance(value, list) else value

    def _known(self, name: str) -> str:
        self.named.add(name)
        return name

    def _save(self, content: bytes) -> str:
        suffix = next((suffix for begin, suffix in _FORMATS if content.startswith(begin)), None)
        if suffix is None:
            raise Fault(f"what stands for a picture is none: it begins with {content[:12]!r}")
        if self._partial is None:
            self._partial = self._stack.enter_context(atomic_folder(self.folder))
        name = f"{hashlib.sha256(content).hexdigest()[:24]}{suffix}"
        if not (path := self._partial / name).exists():
            path.write_bytes(content)
        return name
