"""The one writer behind every importer: entries in, a checked image set out."""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gen2real.errors import ImageSetError, Offender
from gen2real.files import atomic_folder
from gen2real.imagesets.decoding import (
    Policy,
    check_policy,
    decode,
    format_of,
    over_pictures,
    read_picture_file,
    report_offenders,
)
from gen2real.imagesets.hashing import perceptual_hash
from gen2real.imagesets.manifest import COLUMNS, ORIGINS, ClassName, ImageSet
from gen2real.imagesets.slugs import SlugBook, unique_slugs

Link = bool | Literal["reference"]

PICTURES = "pictures"
# No slug begins with "_", so no class can be stored in this folder.
UNLABELLED = "_unlabelled"

_SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2", "TIFF": "tif", "PPM": "pnm", "DIB": "bmp"}


@dataclass(frozen=True)
class Entry:
    """One picture to take in.

    source: the file, or the bytes where there is no file; `name` says where they came from.
    name: what the stored file is called after, and what an error calls bytes.
    label: index into the class names, or None.
    columns: further columns of the manifest by name (`id` replaces the id that would be made).
    """

    source: Path | bytes
    name: str
    label: int | None = None
    captions: Sequence[str] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Seen:
    entry: Entry
    suffix: str
    sha256: str
    phash: str


def write_entries(
    out: str | Path,
    entries: Iterable[Entry],
    class_names: Sequence[str],
    *,
    origin: str = "real",
    link: Link = False,
    on_unreadable: Policy = "error",
) -> ImageSet:
    """Decodes, hashes and stores every entry under `out` and writes the manifest; nothing is left of a failure.

    Pictures lie in `pictures/<class slug>/<name slug>.<true format>`, in the entries' order. Entries may be a
    generator; only a few pictures are in memory at a time.

    link: False copies. True makes hard links, or symbolic ones where the file system has no others. "reference"
        stores the absolute path and touches no picture. Bytes are always written.
    on_unreadable: "error" lists all that do not decode; "skip" leaves them out and warns with their number.

    Raises: ImageSetError (`out` exists, no pictures), UnreadablePictures.
    """
    out = Path(out)
    check_policy(on_unreadable)
    if origin not in ORIGINS:
        raise ImageSetError(f"origin must be 'real' or 'generated'; got {origin!r}.")
    if link not in (False, True, "reference"):
        raise ImageSetError(f'link must be False (copy), True (link) or "reference"; got {link!r}.')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ImageSetError(f"{out} exists already. Choose another folder with --out, or remove it first: rm -r {out}")
    labels = unique_slugs(class_names)
    classes = [ClassName(label, name) for label, name in zip(labels, class_names, strict=True)]
    folders: dict[str, SlugBook] = {}
    rows: list[dict[str, Any]] = []
    offenders: list[Offender] = []
    total = 0
    with atomic_folder(out) as partial:
        for entry, seen in _looked_at(entries):
            total += 1
            if isinstance(seen, str):
                source = entry.source if isinstance(entry.source, Path) else Path(entry.name)
                offenders.append(Offender(source, seen))
                continue
            if offenders and on_unreadable == "error":
                # The rest is only read for what else cannot be; copying it would be for nothing.
                continue
            folder = UNLABELLED if entry.label is None else labels[entry.label]
            stem = folders.setdefault(folder, SlugBook()).unique(entry.name)
            path = _store(partial, f"{PICTURES}/{folder}/{stem}.{seen.suffix}", entry.source, link)
            rows.append(_row(seen, path, f"{folder}/{stem}", None if entry.label is None else folder, origin))
        report_offenders(offenders, total, on_unreadable)
        if not rows:
            raise ImageSetError(f"there is no picture to put into {out}: {total} found, {len(offenders)} unreadable.")
        _one_type_a_column(rows)
        ImageSet.write(partial, rows, classes)
    _warn_of_empty(classes, rows)
    return ImageSet.read(out)


def _looked_at(entries: Iterable[Entry]) -> Iterator[tuple[Entry, _Seen | str]]:
    waiting: list[Entry] = []

    def remembered() -> Iterator[Entry]:
        for entry in entries:
            waiting.append(entry)
            yield entry

    for seen in over_pictures(_look, remembered()):
        yield waiting.pop(0), seen


def _look(entry: Entry) -> _Seen:
    content = entry.source if isinstance(entry.source, bytes) else read_picture_file(entry.source)
    picture, kind = decode(content), format_of(content)
    suffix = _SUFFIXES.get(kind, kind.lower())
    return _Seen(entry, suffix, hashlib.sha256(content).hexdigest(), perceptual_hash(picture))


def _store(root: Path, stored: str, source: Path | bytes, link: Link) -> str:
    if isinstance(source, Path) and link == "reference":
        return str(source.absolute())
    target = root / stored
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, bytes):
        target.write_bytes(source)
    elif link:
        original = source.resolve()
        try:
            os.link(original, target)
        except OSError:
            target.symlink_to(original)
    else:
        shutil.copyfile(source, target)
    return stored


def _row(seen: _Seen, path: str, made_id: str, label: str | None, origin: str) -> dict[str, Any]:
    entry = seen.entry
    ours = {"path": path, "label": label, "captions": list(entry.captions), "sha256": seen.sha256, "phash": seen.phash}
    return {"id": made_id, "origin": origin, **entry.columns, **ours}


def _one_type_a_column(rows: Sequence[dict[str, Any]]) -> None:
    """Makes further columns whose values are of several kinds text, so that any source's columns can be kept."""
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None and name not in COLUMNS:
                kinds.setdefault(name, set()).add(type(value))
    for name, found in kinds.items():
        if len(found) > 1 and not found <= {int, float}:
            for row in rows:
                if row.get(name) is not None:
                    row[name] = str(row[name])


def _warn_of_empty(classes: Sequence[ClassName], rows: Sequence[Mapping[str, Any]]) -> None:
    used = {row["label"] for row in rows}
    empty = [item.name for item in classes if item.label not in used]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        warnings.warn(
            f"{len(empty)} of {len(classes)} classes have no picture: {empty[:5]}{more}. They stay classes of the set.",
            stacklevel=3,
        )
