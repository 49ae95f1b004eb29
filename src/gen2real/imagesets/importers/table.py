"""CSV, TSV or JSON Lines with paths, captions and labels → an image set."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import Policy
from gen2real.imagesets.importers.writer import Entry, Link, write_entries
from gen2real.imagesets.manifest import COLUMNS, ImageSet

# What other tools call these columns, the first found is taken.
PATH_NAMES = ("path", "file_name", "filepath", "filename", "image_path", "image", "file")
CAPTION_NAMES = ("captions", "caption", "text", "title")
LABEL_NAMES = ("label", "class", "class_name", "category")

_NUMBERS = {"seed": int, "steps": int, "guidance": float}
_MADE_HERE = {"path", "label", "captions", "sha256", "phash"}


def import_table(
    source: str | Path,
    out: str | Path,
    *,
    path_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    root: str | Path | None = None,
    classes: Sequence[str] | None = None,
    origin: str = "real",
    link: Link = False,
    on_unreadable: Policy = "error",
) -> ImageSet:
    """Takes in the pictures that a `.csv`, `.tsv`, `.jsonl` or `.ndjson` file lists.

    path_column, caption_column, label_column: found by their usual names (path, file_name, …; caption, text, …; label,
        class, …) if not given. Captions and labels are optional; in JSON Lines a caption may be a list. Rows with the
        same path are one picture with several captions.
    root: what relative paths are relative to; the table's folder if not given.
    classes: the class names and their order; whole numbers as labels count in it. Without it, in order of appearance.

    A manifest's columns (pair_id, prompt, seed, …) go to their places, further ones are kept.
    See `write_entries` for link, origin and on_unreadable.

    Raises: ImageSetError with the line, UnreadablePictures.
    """
    source = Path(source)
    if not source.is_file():
        raise ImageSetError(f"{source} does not exist. Give a .csv, .tsv or .jsonl file with a column of paths.")
    rows = list(table_rows(source))
    if not rows:
        raise ImageSetError(f"{source} has no rows. Each line names one picture, e.g. path,caption,label.")
    known = list(dict.fromkeys(name for _, row in rows for name in row))
    path_name = _column(source, known, path_column, PATH_NAMES, "path")
    if path_name is None:
        raise ImageSetError(
            f"{source} has no column of paths; it has {known}. Say which it is: path_column={known[0]!r} "
            f"(--path-column {known[0]})."
        )
    caption_name = _column(source, known, caption_column, CAPTION_NAMES, "caption")
    label_name = _column(source, known, label_column, LABEL_NAMES, "label")
    names = list(classes) if classes is not None else _names_in_order(rows, label_name)
    base = Path(root) if root is not None else source.parent
    entries: dict[str, Entry] = {}
    for line, row in rows:
        path = str(row.get(path_name) or "").strip()
        if not path or "://" in path:
            raise ImageSetError(f"{source}, line {line}: {path_name} must be the path of a file; got {path!r}.")
        label = _label(source, line, row.get(label_name) if label_name else None, names, classes is not None)
        captions = texts_of(row.get(caption_name) if caption_name else None)
        if path in entries:
            first = entries[path]
            if first.label != label:
                raise ImageSetError(f"{source}, line {line}: {path} has another label than on an earlier line.")
            merged = [*first.captions, *(caption for caption in captions if caption not in first.captions)]
            entries[path] = Entry(first.source, first.name, label, merged, first.columns)
            continue
        used = {path_name, caption_name, label_name}
        columns = _further(source, line, {name: value for name, value in row.items() if name not in used})
        entries[path] = Entry(base / path, Path(path).stem, label, captions, columns)
    return write_entries(out, entries.values(), names, origin=origin, link=link, on_unreadable=on_unreadable)


def table_rows(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of each row of a `.csv`, `.tsv`, `.jsonl` or `.ndjson` file.

    Raises: ImageSetError with the line.
    """
    suffix = source.suffix.lower()
    if suffix not in (".csv", ".tsv", ".jsonl", ".ndjson"):
        raise ImageSetError(f"{source} must end in .csv, .tsv, .jsonl or .ndjson, so that its format is known.")
    with source.open(encoding="utf-8-sig", newline="") as stream:
        if suffix in (".csv", ".tsv"):
            reader = csv.DictReader(stream, delimiter="\t" if suffix == ".tsv" else ",", restkey="")
            for row in reader:
                if "" in row or None in row.values():
                    raise ImageSetError(
                        f"{source}, line {reader.line_num}: the number of fields differs from the header's "
                        f"{len(reader.fieldnames or ())}. Put quotes around fields that hold a separator."
                    )
                yield reader.line_num, row
            return
        for line, text in enumerate(stream, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise ImageSetError(f"{source}, line {line}: not JSON ({error}).") from error
            if not isinstance(row, dict):
                raise ImageSetError(f'{source}, line {line}: each line must be an object, e.g. {{"path": …}}.')
            yield line, row


def _column(source: Path, known: Sequence[str], asked: str | None, usual: Sequence[str], purpose: str) -> str | None:
    if asked is None:
        return next((name for name in usual if name in known), None)
    if asked not in known:
        raise ImageSetError(f"{source} has no column {asked!r} ({purpose}_column); it has {list(known)}.")
    return asked


def _names_in_order(rows: Sequence[tuple[int, Mapping[str, Any]]], label_name: str | None) -> list[str]:
    if label_name is None:
        return []
    values = (row.get(label_name) for _, row in rows)
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def _label(source: Path, line: int, value: Any, names: Sequence[str], given: bool) -> int | None:
    if value in (None, ""):
        return None
    text = str(value)
    if given and text not in names and text.isdigit() and int(text) < len(names):
        return int(text)
    if text in names:
        return names.index(text)
    raise ImageSetError(
        f"{source}, line {line}: {text!r} is not among the {len(names)} classes, e.g. {list(names)[:5]}."
    )


def texts_of(value: Any) -> list[str]:
    """The texts of a caption's cell, which may be a list; what is empty is none."""
    if value is None:
        return []
    texts = value if isinstance(value, list) else [value]
    return [str(text).strip() for text in texts if text is not None and str(text).strip()]


def _further(source: Path, line: int, row: Mapping[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, value in row.items():
        if name in _MADE_HERE or value in (None, ""):
            continue
        if name in _NUMBERS:
            try:
                columns[name] = _NUMBERS[name](value)
            except (TypeError, ValueError) as error:
                raise ImageSetError(f"{source}, line {line}: {name} must be a number; got {value!r}.") from error
        elif name == "kept":
            columns[name] = str(value).lower() in ("true", "1", "yes")
        elif name in COLUMNS or isinstance(value, (list, dict)):
            columns[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        else:
            columns[name] = value
    return columns
