"""WebDataset tars, in and out. Samples are read from the tar; nothing is ever unpacked from it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gen2real.errors import ImageSetError
from gen2real.files import atomic_folder, write_json
from gen2real.imagesets.decoding import Policy
from gen2real.imagesets.importers.imagefolder import PICTURE_SUFFIXES
from gen2real.imagesets.importers.table import CAPTION_NAMES
from gen2real.imagesets.importers.writer import Entry, write_entries
from gen2real.imagesets.manifest import ImageSet

CLASSES = "classes.json"
_MADE_HERE = {"path", "label", "captions", "sha256", "phash", "class_name", "class_index"}


def export_webdataset(image_set: ImageSet, out: str | Path, *, shard_size: int = 1000) -> list[Path]:
    """Writes the kept rows as tars of `shard_size` pictures, and gives their paths.

    Each sample is NNNNNNNN.<jpg|png|…> with .json (the manifest's row, class_name and class_index), .txt (the first
    caption, if there is one) and .cls (the class index, if there is one). `classes.json` beside them holds the names.

    Raises: ImageSetError where `out` exists or a picture is missing.
    """
    out = Path(out)
    if shard_size < 1:
        raise ImageSetError(f"shard_size must be at least 1; got {shard_size}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ImageSetError(f"{out} exists already. Choose another folder, or remove it first: rm -r {out}")
    kept = image_set.kept()
    missing = [path for path in kept.paths if not path.is_file()]
    if missing:
        raise ImageSetError(f"{len(missing)} picture(s) of {kept.manifest} are missing, e.g. {missing[0]}.")
    shards = []
    rows = kept.rows()
    with atomic_folder(out) as partial:
        for shard, start in enumerate(range(0, len(kept), shard_size)):
            name = f"{shard:06d}.tar"
            with tarfile.open(partial / name, "w", format=tarfile.PAX_FORMAT) as tar:
                for number in range(start, min(start + shard_size, len(kept))):
                    _write_sample(tar, kept, number, next(rows))
            shards.append(out / name)
        write_json(partial / CLASSES, [{"label": item.label, "name": item.name} for item in kept.classes])
    return shards


def import_webdataset(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    classes: Sequence[str] | None = None,
    origin: str | None = None,
    on_unreadable: Policy = "error",
) -> ImageSet:
    """Takes in the samples of tars: a picture each, captions from .txt or .json, the class from .cls or .json.

    source: a tar, several, or a folder of them (`.tar`, `.tar.gz`, `.tgz`).
    classes: class names in the order of .cls; `classes.json` beside the tars if not given, else the names in the
        samples' .json, else the numbers themselves.
    origin: "real" or "generated"; what the samples' .json says, else "real", if not given.

    Raises: ImageSetError, UnreadablePictures (a tar's sample is called tar/key).
    """
    tars = _tars(source)
    names = list(classes) if classes is not None else _names(tars)
    entries = _entries(tars, names, origin)
    return write_entries(out, entries, names, origin=origin or "real", on_unreadable=on_unreadable)


def _write_sample(tar: tarfile.TarFile, kept: ImageSet, number: int, row: dict[str, Any]) -> None:
    label = int(kept.labels[number])
    words = {name: value for name, value in row.items() if value is not None and name not in ("path",)}
    if label >= 0:
        words |= {"class_name": kept.classes[label].name, "class_index": label}
    key, path = f"{number:08d}", kept.paths[number]
    _add(tar, f"{key}{path.suffix.lower()}", path.read_bytes())
    _add(tar, f"{key}.json", json.dumps(words, ensure_ascii=False, default=str).encode())
    if row["captions"]:
        _add(tar, f"{key}.txt", row["captions"][0].encode())
    if label >= 0:
        _add(tar, f"{key}.cls", str(label).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    # No time and no user: the same set gives the same bytes.
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _tars(source: str | Path | Sequence[str | Path]) -> list[Path]:
    given = [Path(source)] if isinstance(source, (str, Path)) else [Path(item) for item in source]
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(item for item in path.iterdir() if item.name.endswith((".tar", ".tar.gz", ".tgz")))
        elif path.is_file():
            found.append(path)
        else:
            raise ImageSetError(f"{path} does not exist. Give .tar files, or a folder of them.")
    if not found:
        raise ImageSetError(f"there is no .tar file in {', '.join(map(str, given))}.")
    return found


def _samples(tars: Sequence[Path], *, pictures: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
    """("tar/key", {extension: bytes}) of each sample; without `pictures`, their bytes are left out."""
    for path in tars:
        key, sample = "", dict[str, bytes]()
        try:
            with tarfile.open(path, "r|*") as tar:
                for member in tar:
                    if not member.isfile():
                        continue
                    folder, _, file = member.name.rpartition("/")
                    stem, _, extension = file.partition(".")
                    if not stem:
                        continue
                    if f"{folder}/{stem}" != key:
                        if sample:
                            yield f"{path}/{key.lstrip('/')}", sample
                        key, sample = f"{folder}/{stem}", {}
                    stream = tar.extractfile(member)
                    assert stream is not None
                    is_picture = f".{extension.lower()}" in PICTURE_SUFFIXES
                    sample[extension.lower()] = stream.read() if pictures or not is_picture else b""
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ImageSetError(f"{path} is not a whole tar file ({error}). Fetch or make it again.") from error
        if sample:
            yield f"{path}/{key.lstrip('/')}", sample


def _names(tars: Sequence[Path]) -> list[str]:
    beside = tars[0].parent / CLASSES
    if beside.is_file():
        return [item["name"] for item in json.loads(beside.read_text(encoding="utf-8"))]
    names: dict[int, str] = {}
    for where, sample in _samples(tars, pictures=False):
        index = _index(where, sample)
        if index is not None:
            name = str(_words(where, sample).get("class_name", index))
            if names.setdefault(index, name) != name:
                raise ImageSetError(f"{where}: class {index} is called both {names[index]!r} and {name!r}.")
    return [names.get(index, str(index)) for index in range(max(names, default=-1) + 1)]


def _entries(tars: Sequence[Path], names: Sequence[str], origin: str | None) -> Iterator[Entry]:
    for where, sample in _samples(tars, pictures=True):
        picture = next((extension for extension in sample if f".{extension}" in PICTURE_SUFFIXES), None)
        if picture is None:
            raise ImageSetError(f"{where} holds no picture, only {sorted(sample)}.")
        words = _words(where, sample)
        label = _index(where, sample)
        if label is not None and not 0 <= label < len(names):
            raise ImageSetError(
                f"{where}: class {label}, but there are {len(names)} class names. Give all: classes=[…]."
            )
        columns = {
            name: value
            for name, value in words.items()
            if name not in _MADE_HERE and name not in CAPTION_NAMES and isinstance(value, (bool, int, float, str))
        }
        if origin is not None:
            columns.pop("origin", None)
        yield Entry(sample[picture], where, label, _captions(words, sample), columns)


def _words(where: str, sample: dict[str, bytes]) -> dict[str, Any]:
    if "json" not in sample:
        return {}
    try:
        words = json.loads(sample["json"])
    except ValueError as error:
        raise ImageSetError(f"{where}.json is not JSON ({error}).") from error
    return words if isinstance(words, dict) else {}


def _index(where: str, sample: dict[str, bytes]) -> int | None:
    text = sample.get("cls")
    if text is None:
        index = _words(where, sample).get("class_index")
        return int(index) if index is not None else None
    try:
        return int(text)
    except ValueError as error:
        raise ImageSetError(f"{where}.cls must hold a whole number; got {text[:20]!r}.") from error


def _captions(words: dict[str, Any], sample: dict[str, bytes]) -> list[str]:
    for name in CAPTION_NAMES:
        value = words.get(name)
        if isinstance(value, str) and value.strip():
            return [value.strip()]
        if isinstance(value, list):
            return [str(text) for text in value]
    text = sample.get("txt", b"").decode("utf-8", "replace").strip()
    return [text] if text else []
