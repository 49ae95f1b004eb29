"""The manifest: one row a picture, and what an image set promises about them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gen2real.errors import ImageSetError
from gen2real.files import atomic_file, sha256_of

MANIFEST = "manifest.parquet"
METADATA_KEY = b"gen2real"

COLUMNS: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "path": pa.string(),
    "origin": pa.string(),
    "label": pa.string(),
    "captions": pa.list_(pa.string()),
    "pair_id": pa.string(),
    "prompt": pa.string(),
    "negative_prompt": pa.string(),
    "seed": pa.int64(),
    "generator": pa.string(),
    "guidance": pa.float64(),
    "steps": pa.int64(),
    "sha256": pa.string(),
    "phash": pa.string(),
    "kept": pa.bool_(),
}
ORIGINS = ("real", "generated")


@dataclass(frozen=True)
class ClassName:
    """A class: `label`, a slug that is unique and safe as a folder, and `name`, what the user wrote."""

    label: str
    name: str


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Pictures on disk and one row about each. Never changed in place: every method gives a new one."""

    root: Path
    manifest: Path
    table: pa.Table
    classes: tuple[ClassName, ...]

    @classmethod
    def read(cls, path: str | Path) -> ImageSet:
        """The image set in a folder (its `manifest.parquet`) or of a manifest file.

        Raises: ImageSetError where there is none, where it is not one, or where its rows contradict themselves.
        Whether the pictures are there is found when they are read.
        """
        path = Path(path)
        manifest = path / MANIFEST if path.is_dir() else path
        if not manifest.is_file():
            raise ImageSetError(_no_manifest(path))
        try:
            table = pq.read_table(manifest, memory_map=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise ImageSetError(
                f"{manifest} is not a whole Parquet file ({error}). Restore it, or import the pictures again."
            ) from error
        classes = _classes_of(table, manifest)
        table = _conform(table, str(manifest))
        _check(table, classes, str(manifest))
        return cls(manifest.parent, manifest, table, classes)

    @classmethod
    def write(
        cls,
        root: str | Path,
        rows: Sequence[Mapping[str, Any]] | pa.Table,
        classes: Sequence[ClassName],
        *,
        name: str = MANIFEST,
    ) -> ImageSet:
        """Writes a manifest into the folder `root`, whole or not at all, and gives the image set back.

        Each row needs `id` and `path` (relative to `root` with forward slashes, or absolute); what else is missing
        is null, `origin` is "real" and `captions` empty. Any further column is kept.

        Raises: ImageSetError where a manifest of that name exists, or where the rows contradict themselves.
        """
        root = Path(root)
        manifest = root / name
        if manifest.exists():
            raise ImageSetError(
                f"{manifest} exists and is never rewritten. Write beside it under another name, "
                f"e.g. ImageSet.write({str(root)!r}, rows, classes, name={_another(name)!r})."
            )
        table = rows if isinstance(rows, pa.Table) else _table_of(rows)
        table = _conform(table, str(manifest))
        _check(table, tuple(classes), str(manifest))
        words = {"version": 1, "classes": [{"label": item.label, "name": item.name} for item in classes]}
        metadata = {**(table.schema.metadata or {}), METADATA_KEY: json.dumps(words, ensure_ascii=False).encode()}
        table = table.replace_schema_metadata(metadata)
        with atomic_file(manifest) as partial:
            pq.write_table(table, partial, compression="zstd")
        return cls(root, manifest, table, tuple(classes))

    @classmethod
    def of(cls, paths: Sequence[str | Path]) -> ImageSet:
        """Loose pictures as a set in memory only, in order; each one's id is its number. Nothing is written."""
        rows = [{"id": str(number), "path": str(Path(path).absolute())} for number, path in enumerate(paths)]
        root = Path().absolute()
        return cls(root, root / MANIFEST, _conform(_table_of(rows), "pictures"), ())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"ImageSet({str(self.manifest)!r}, {len(self)} pictures, {len(self.classes)} classes)"

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows as dictionaries, one after the other."""
        for batch in self.table.to_batches(max_chunksize=10_000):
            yield from batch.to_pylist()

    @cached_property
    def ids(self) -> list[str]:
        """Each row's id; unique in the set."""
        return list(self.table["id"].to_pylist())

    @cached_property
    def paths(self) -> list[Path]:
        """Each picture's absolute path."""
        root = self.root.absolute()
        return [root / stored for stored in self.table["path"].to_pylist()]

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Int64 [N]: each row's class as an index into `classes`; -1 where it has none."""
        known = pa.array([item.label for item in self.classes], pa.string())
        found = pc.index_in(self.table["label"], value_set=known, skip_nulls=True)
        return np.asarray(pc.fill_null(found, -1).to_numpy(), dtype=np.int64)

    @cached_property
    def captions(self) -> list[list[str]]:
        """Each row's captions; an empty list where it has none."""
        return list(self.table["captions"].to_pylist())

    @property
    def class_names(self) -> list[str]:
        """The classes' names as the user wrote them, in the order of `labels`."""
        return [item.name for item in self.classes]

    def kept(self) -> ImageSet:
        """The rows that no curation step has left out (`kept` is true or null)."""
        if self.table["kept"].null_count == len(self):
            return self
        return self._with(self.table.filter(pc.fill_null(self.table["kept"], True)))

    def select(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> ImageSet:
        """The rows at `indices` in that order, in memory only. Raises: ImageSetError for an index out of range."""
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise ImageSetError(f"indices must lie in 0…{len(self) - 1}; got {chosen.min()}…{chosen.max()}.")
        return self._with(self.table.take(pa.array(chosen)))

    def split(self, fraction: float, seed: int = 0) -> tuple[ImageSet, ImageSet]:
        """The set in two, (rest, held out), with `fraction` of each class held out; both keep the rows' order.

        Which rows go is told by a hash of seed and id alone: neither the rows' order nor the folder matters. A class
        of two rows or more has at least one on either side, a class of one stays in the rest. Rows without a class
        count as one more class.

        Raises: ImageSetError where `fraction` is not between 0 and 1.
        """
        held_out = held_out_rows(self.ids, self.labels, fraction, seed)
        return self.select(np.flatnonzero(~held_out)), self.select(np.flatnonzero(held_out))

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of the classes and of every row's picture hash and label, in order.

        Equal content gives an equal string wherever the folder lies. Rows without a hash are hashed from disk.
        """
        whole = hashlib.sha256(json.dumps([[item.label, item.name] for item in self.classes]).encode())
        hashes = self.table["sha256"].to_pylist()
        for index, (picture, label) in enumerate(zip(hashes, self.labels.tolist(), strict=True)):
            whole.update(f"{picture or sha256_of(self.paths[index])} {label}\n".encode())
        return whole.hexdigest()

    def _with(self, table: pa.Table) -> ImageSet:
        return ImageSet(self.root, self.manifest, table, self.classes)


def held_out_rows(
    ids: Sequence[str], labels: npt.NDArray[np.int64], fraction: float, seed: int = 0
) -> npt.NDArray[np.bool_]:
    """Bool [N]: which rows of a list are held out, by the rule of `ImageSet.split`; the list may join several sets.

    Raises: ImageSetError where `fraction` is not between 0 and 1.
    """
    if not 0 <= fraction <= 1:
        raise ImageSetError(f"the fraction to hold out must lie between 0 and 1, e.g. 0.1; got {fraction}.")
    turn = np.array([hashlib.sha256(f"{seed}\0{row_id}".encode()).digest() for row_id in ids], dtype=object)
    held_out = np.zeros(len(ids), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = _share(fraction, len(members))
        held_out[members[np.argsort(turn[members], kind="stable")[:count]]] = True
    return held_out


def check_stored_path(stored: str) -> str | None:
    """What is wrong with a path in a manifest, or None. A relative one may not leave the folder."""
    if not stored or "\0" in stored:
        return "it is empty or holds a zero byte"
    if Path(stored).is_absolute():
        return None
    if "\\" in stored or re.match(r"[A-Za-z]:", stored):
        return "it must use forward slashes and no drive letter"
    if ".." in PurePosixPath(stored).parts:
        return 'it leaves the folder by ".."'
    return None


def _share(fraction: float, count: int) -> int:
    if count < 2 or fraction in (0, 1):
        return count if fraction == 1 else 0
    return min(max(int(fraction * count + 0.5), 1), count - 1)


def _another(name: str) -> str:
    return f"{Path(name).stem}-2.parquet"


def _no_manifest(path: Path) -> str:
    if not path.exists():
        return f"{path} does not exist. Give the folder of an image set, or one of its manifest files."
    if path.is_dir():
        return (
            f"{path} holds no {MANIFEST}, so it is not an image set yet. Make one of a folder of pictures: "
            f"gen2real import imagefolder {path} --out {path.name}-set"
        )
    return f"{path} is not a file. Give the folder of an image set, or one of its manifest files."


def _classes_of(table: pa.Table, manifest: Path) -> tuple[ClassName, ...]:
    words = (table.schema.metadata or {}).get(METADATA_KEY)
    if words is None:
        if "label" in table.column_names and table["label"].null_count < table.num_rows:
            raise ImageSetError(
                f"{manifest} has labels but not their names and order (the key 'gen2real' in the Parquet schema's "
                "metadata). Write it with gen2real.imagesets.ImageSet.write(folder, rows, classes)."
            )
        return ()
    try:
        record = json.loads(words)
        version = record["version"]
        classes = tuple(ClassName(item["label"], item["name"]) for item in record["classes"])
    except (ValueError, KeyError, TypeError) as error:
        raise ImageSetError(
            f'{manifest}: the metadata under "gen2real" must be {{"version": 1, "classes": [{{"label", "name"}}]}}; '
            f"got {words[:200]!r}. Write it again with gen2real.imagesets.ImageSet.write(folder, rows, classes)."
        ) from error
    if version != 1:
        raise ImageSetError(
            f"{manifest} is of manifest version {version}, this gen2real reads 1. Update: pip install -U gen2real"
        )
    return classes


def _table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values, COLUMNS.get(name))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ImageSetError(
                f"the column {name!r} cannot be stored as {COLUMNS.get(name, 'one type')} ({error}). "
                "Give every row a value of that type, or None."
            ) from error
    return pa.table(columns)


def _conform(table: pa.Table, where: str) -> pa.Table:
    """The table with every column of a manifest in its type, in order, then the further ones."""
    missing = [name for name in ("id", "path") if name not in table.column_names]
    # An empty list of rows names no columns, and is still a set of no pictures.
    if missing and (table.num_rows or table.column_names):
        raise ImageSetError(
            f"{where} has no column {' and '.join(map(repr, missing))}; it has {table.column_names}. "
            "A manifest needs an id and a path for every picture."
        )
    columns: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        if name not in table.column_names:
            columns[name] = pa.nulls(table.num_rows, kind)
        else:
            try:
                columns[name] = table[name].cast(kind)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ImageSetError(
                    f"{where}: the column {name!r} must be {kind}; it is {table[name].type}."
                ) from error
    columns["origin"] = pc.fill_null(columns["origin"], "real")
    columns["captions"] = _no_null_lists(columns["captions"])
    for name in table.column_names:
        columns.setdefault(name, table[name])
    return pa.table(columns, metadata=table.schema.metadata)


def _no_null_lists(captions: Any) -> Any:
    if captions.null_count == 0:
        return captions
    return pa.array([value or [] for value in captions.to_pylist()], pa.list_(pa.string()))


def _check(table: pa.Table, classes: tuple[ClassName, ...], where: str) -> None:
    for column in ("id", "path"):
        if table[column].null_count:
            raise ImageSetError(f"{where}: {table[column].null_count} row(s) have no {column}. Every row needs one.")
    if pc.count_distinct(table["id"]).as_py() != table.num_rows:
        counts = pc.value_counts(table["id"]).to_pylist()
        twice = [item["values"] for item in counts if item["counts"] > 1][:5]
        raise ImageSetError(f"{where}: ids must be unique; these occur more than once: {twice}.")
    labels = [item.label for item in classes]
    if len({label.casefold() for label in labels}) != len(labels):
        raise ImageSetError(
            f"{where}: two classes have one label. Make labels with gen2real.imagesets.unique_slugs(names)."
        )
    foreign = sorted(set(pc.unique(table["label"]).to_pylist()) - {None, *labels})
    if foreign:
        raise ImageSetError(
            f"{where}: labels that are not among the {len(labels)} classes: {foreign[:5]}. A row's label is a class's "
            f"slug (ClassName.label), not its name; known are {labels[:5]}{'…' if len(labels) > 5 else ''}."
        )
    odd = sorted(set(pc.unique(table["origin"]).to_pylist()) - set(ORIGINS))
    if odd:
        raise ImageSetError(f"{where}: origin must be 'real' or 'generated'; got {odd[:5]}.")
    for stored in table["path"].to_pylist():
        fault = check_stored_path(stored)
        if fault:
            raise ImageSetError(
                f"{where}: the path {stored!r} is refused: {fault}. Store it relative to the manifest's folder."
            )
