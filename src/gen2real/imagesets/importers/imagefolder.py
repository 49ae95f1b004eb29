"""A folder with one folder a class (or a flat folder of pictures) → an image set."""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import Policy
from gen2real.imagesets.importers.writer import Entry, Link, write_entries
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.slugs import slug

PICTURE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2", ".qoi", ".heic", ".heif"),
    )
)
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_RUBBISH = {"__MACOSX", "Thumbs.db", "desktop.ini"}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"qoif")


@dataclass(frozen=True)
class _Found:
    path: Path
    folder: str  # of the picture, relative to the root, with forward slashes; "" for the root


def import_imagefolder(
    source: str | Path,
    out: str | Path,
    *,
    names: str | Path | Mapping[str, str] | None = None,
    nested: Literal["top", "leaf"] = "top",
    origin: str = "real",
    link: Link = False,
    on_unreadable: Policy = "error",
) -> ImageSet:
    """Takes in `source/<class>/…`, or a flat folder of pictures without classes.

    names: what the classes are called and their order. A mapping or JSON object {folder: name}; or a text file whose
        lines are "folder<TAB>name", or "folder name" where the first word is a folder (ImageNet's lists), or just
        class names, each of which finds its folder by its name or its slug (also a nested one: "F-16A/B"). Names
        without a folder stay as empty classes, with a warning. Without it, folder names in alphabetical order.
    nested: folders within class folders: "top" counts their pictures to the folder below `source`; "leaf" makes every
        folder that holds pictures a class named by its path. A folder that `names` lists is a class at any depth.

    A text file beside a picture (x.txt for x.jpg) gives its captions, one a line. Hidden files are passed over, other
    files that are no pictures are counted in a warning. See `write_entries` for link, origin and on_unreadable.

    Raises: ImageSetError, UnreadablePictures.
    """
    source = Path(source)
    if not source.is_dir():
        raise ImageSetError(f"{source} is not a folder. Give the folder that holds one folder a class.")
    found = _pictures(source)
    folders = sorted(
        path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_dir() and not _hidden(path, source)
    )
    if not found:
        raise ImageSetError(f"{source} holds no pictures (looked for {' '.join(sorted(PICTURE_SUFFIXES))}).")
    if names is None:
        _refuse_splits(source, found, folders)
    named = None if names is None else _named_folders(names, folders)
    if all(not picture.folder for picture in found) and named is None and not folders:
        entries = (Entry(item.path, item.path.stem, None, _captions(item.path)) for item in found)
        return write_entries(out, entries, [], origin=origin, link=link, on_unreadable=on_unreadable)
    classes = named if named is not None else _folders_as_classes(source, found, folders, nested)
    class_of = _class_of_folder(classes, found, source)
    loose = [item for item in found if class_of[item.folder] is None]
    if loose:
        _loose_pictures(source, loose, named is not None)
    entries = (
        Entry(item.path, item.path.stem, class_of[item.folder], _captions(item.path))
        for item in found
        if class_of[item.folder] is not None
    )
    return write_entries(
        out, entries, [name for _, name in classes], origin=origin, link=link, on_unreadable=on_unreadable
    )


def _pictures(source: Path) -> list[_Found]:
    found, strange = [], []
    for path in _files(source):
        if path.suffix.lower() in PICTURE_SUFFIXES or _looks_like_picture(path):
            folder = path.parent.relative_to(source).as_posix()
            found.append(_Found(path, "" if folder == "." else folder))
        else:
            strange.append(path)
    beside = {item.path.with_suffix("") for item in found}
    strange = [path for path in strange if path.suffix.lower() != ".txt" or path.with_suffix("") not in beside]
    if strange:
        shown = ", ".join(str(path.relative_to(source)) for path in strange[:5])
        warnings.warn(f"{len(strange)} file(s) that are no pictures passed over: {shown}", stacklevel=3)
    return found


def _files(source: Path) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        if path.is_file() and not _hidden(path, source):
            yield path


def _hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") or part in _RUBBISH for part in path.relative_to(source).parts)


def _looks_like_picture(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(12)
    return head.startswith(_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _captions(picture: Path) -> list[str]:
    text = picture.with_suffix(".txt")
    if not text.is_file():
        return []
    return [line.strip() for line in text.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def _refuse_splits(source: Path, found: list[_Found], folders: list[str]) -> None:
    tops = {folder.split("/")[0] for folder in folders}
    deep = any("/" in item.folder for item in found)
    if tops and deep and {top.lower() for top in tops} <= _SPLITS:
        one = sorted(tops)[-1]
        raise ImageSetError(
            f"{source} holds splits ({', '.join(sorted(tops))}), not classes. Import one at a time: "
            f"gen2real import imagefolder {source / one} --out {one}-set"
        )


def _folders_as_classes(source: Path, found: list[_Found], folders: list[str], nested: str) -> list[tuple[str, str]]:
    if nested == "leaf":
        leaves = sorted({item.folder for item in found if item.folder})
        return [(folder, folder) for folder in leaves]
    if nested != "top":
        raise ImageSetError(f'nested must be "top" or "leaf"; got {nested!r}.')
    tops = [folder for folder in folders if "/" not in folder]
    for top in tops:
        below = sorted({item.folder for item in found if item.folder.startswith(f"{top}/")})
        if len(below) > 1 and not any(item.folder == top for item in found):
            warnings.warn(
                f"the pictures of {below[0]!r}, {below[1]!r}{' and others' if len(below) > 2 else ''} all become class "
                f'{top!r}. If each folder is a class of its own, pass nested="leaf" (--nested leaf).',
                stacklevel=3,
            )
            break
    return [(top, top) for top in tops]


def _class_of_folder(classes: list[tuple[str, str]], found: list[_Found], source: Path) -> dict[str, int | None]:
    index = {folder: number for number, (folder, _) in enumerate(classes) if folder}
    result: dict[str, int | None] = {}
    for folder in {item.folder for item in found}:
        above = [folder, *(parent.as_posix() for parent in PurePosixPath(folder).parents)] if folder else []
        result[folder] = next((index[parent] for parent in above if parent in index), None)
    return result


def _loose_pictures(source: Path, loose: list[_Found], by_names: bool) -> None:
    folders = sorted({item.folder for item in loose})
    if by_names and any(folders):
        raise ImageSetError(
            f"{len(loose)} picture(s) lie in folders that the names do not mention: "
            f"{[folder or '.' for folder in folders[:10]]}. Add a line for each, e.g. {folders[-1]!r}<TAB>its name."
        )
    warnings.warn(
        f"{len(loose)} picture(s) directly in {source} belong to no class and are left out: "
        f"{', '.join(item.path.name for item in loose[:5])}",
        stacklevel=3,
    )


def _named_folders(names: str | Path | Mapping[str, str], folders: list[str]) -> list[tuple[str, str]]:
    """(folder, class name) in the order of the names; folder "" where the class has none."""
    if isinstance(names, Mapping):
        return _from_mapping(names, folders)
    path = Path(names)
    if not path.is_file():
        raise ImageSetError(f"the names file {path} does not exist.")
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        content = json.loads(text)
        if isinstance(content, dict):
            return _from_mapping(content, folders)
        lines = [str(name) for name in content]
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
    if all("\t" in line for line in lines):
        return _from_pairs([tuple(line.split("\t", 1)) for line in lines], folders)
    known = set(folders)
    pairs = [tuple(line.split(None, 1)) for line in lines]
    if all(len(pair) == 2 and pair[0] in known for pair in pairs):
        return _from_pairs(pairs, folders)
    return _by_name(lines, folders)


def _from_mapping(names: Mapping[str, str], folders: list[str]) -> list[tuple[str, str]]:
    return _from_pairs(list(names.items()), folders)


def _from_pairs(pairs: list[tuple[str, ...]], folders: list[str]) -> list[tuple[str, str]]:
    known = set(folders)
    strange = [pair[0] for pair in pairs if pair[0].strip("/") not in known]
    if len(strange) == len(pairs):
        near = difflib.get_close_matches(strange[0], folders, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ImageSetError(f"none of the names' folders exist, e.g. {strange[:3]}; there are {folders[:3]}.{hint}")
    return [(pair[0].strip("/") if pair[0].strip("/") in known else "", pair[1].strip()) for pair in pairs]


def _by_name(lines: list[str], folders: list[str]) -> list[tuple[str, str]]:
    free = list(folders)
    result = []
    for name in lines:
        spelled = next((folder for folder in free if folder == name), None)
        folder = spelled or next((folder for folder in free if slug(folder) == slug(name)), None) or ""
        if folder:
            free.remove(folder)
        result.append((folder, name))
    if not any(folder for folder, _ in result):
        raise ImageSetError(
            f"no line of the names matches a folder, e.g. {lines[:3]}; there are {folders[:3]}. "
            'Write "folder<TAB>name" on each line.'
        )
    return result
