"""A Hugging Face dataset on disk, or one in memory → an image set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gen2real.errors import ImageSetError, MissingDependency
from gen2real.imagesets.decoding import Policy
from gen2real.imagesets.importers.table import CAPTION_NAMES, LABEL_NAMES
from gen2real.imagesets.importers.writer import Entry, Link, write_entries
from gen2real.imagesets.manifest import COLUMNS, ImageSet

_MADE_HERE = {"path", "label", "captions", "sha256", "phash", "origin", "kept"}


def import_huggingface(
    source: Any,
    out: str | Path,
    *,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    caption_column: str | None = None,
    origin: str = "real",
    link: Link = False,
    on_unreadable: Policy = "error",
) -> ImageSet:
    """Takes in a dataset with an Image feature; a ClassLabel feature gives the classes, names and order.

    source: a folder that `save_to_disk` wrote, a local folder or file that `load_dataset` reads, or a
        `datasets.Dataset` in memory.
    split: which split to take; needed where there are several.
    image_column, label_column, caption_column: the first Image feature, the first ClassLabel (or text called label,
        class, …), and text called captions, caption, text, … if not given.

    Further columns of numbers and text are kept. See `write_entries` for link, origin and on_unreadable; pictures that
    the dataset holds as bytes are always written.

    Raises: MissingDependency without `datasets`, ImageSetError, UnreadablePictures.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency("datasets", "Importing a Hugging Face dataset", "datasets") from error
    table = _one_split(_opened(source, datasets), split, datasets)
    features = table.features
    image = _chosen(
        features, image_column, [name for name, kind in features.items() if isinstance(kind, datasets.Image)], "image"
    )
    if image is None:
        raise ImageSetError(f"the dataset has no Image feature; it has {dict(features)}.")
    class_labels = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    label = _chosen(
        features, label_column, [*class_labels, *(name for name in LABEL_NAMES if name in features)], "label"
    )
    caption = _chosen(features, caption_column, [name for name in CAPTION_NAMES if name in features], "caption")
    table = table.cast_column(image, datasets.Image(decode=False))
    names: list[str] = []
    if label is not None:
        kind = features[label]
        by_number = isinstance(kind, datasets.ClassLabel)
        values = None if by_number else [str(value) for value in table[label] if value is not None]
        names = list(kind.names) if values is None else list(dict.fromkeys(values))
    used = {image, label, caption}
    further = [
        name
        for name, kind in features.items()
        if name not in used and name not in _MADE_HERE and isinstance(kind, datasets.Value)
    ]
    return write_entries(
        out,
        _entries(table, image, label, caption, names, further),
        names,
        origin=origin,
        link=link,
        on_unreadable=on_unreadable,
    )


def _entries(
    table: Any, image: str, label: str | None, caption: str | None, names: Sequence[str], further: Sequence[str]
) -> Iterator[Entry]:
    index = {name: number for number, name in enumerate(names)}
    for number, row in enumerate(table):
        picture = row[image] or {}
        stored = picture.get("path")
        stem = Path(stored).stem if stored else f"{number:08d}"
        content = picture.get("bytes")
        source = content if content is not None else Path(stored or f"row {number}, no picture")
        value = row[label] if label is not None else None
        if isinstance(value, str):
            value = index[value]
        elif value is not None and (value < 0 or value >= len(names)):
            # Datasets mark withheld labels of test sets by −1.
            value = None
        texts = row[caption] if caption is not None else None
        captions = [texts] if isinstance(texts, str) else [str(text) for text in texts or () if text]
        columns = {name: _fitting(name, row[name]) for name in further}
        yield Entry(source, stem, value, captions, {key: item for key, item in columns.items() if item is not None})


def _fitting(name: str, value: Any) -> Any:
    if name in ("id", "pair_id", "prompt", "negative_prompt", "generator") and value is not None:
        return str(value)
    if name in COLUMNS:
        return value
    return value if isinstance(value, (bool, int, float, str)) else None


def _opened(source: Any, datasets: Any) -> Any:
    if not isinstance(source, (str, Path)):
        return source
    path = Path(source)
    if not path.exists():
        raise ImageSetError(
            f"{path} does not exist. Give a dataset's folder on this machine; one from the hub is loaded first: "
            f"import_huggingface(datasets.load_dataset({str(source)!r}), out)."
        )
    if path.is_dir() and ((path / "state.json").is_file() or (path / "dataset_dict.json").is_file()):
        return datasets.load_from_disk(str(path))
    if path.is_file():
        kinds = {".parquet": "parquet", ".arrow": "arrow"}
        if path.suffix not in kinds:
            raise ImageSetError(f"{path} must be a folder, or a .parquet or .arrow file.")
        return datasets.load_dataset(kinds[path.suffix], data_files=str(path))
    return datasets.load_dataset(str(path))


def _one_split(found: Any, split: str | None, datasets: Any) -> Any:
    if not isinstance(found, datasets.DatasetDict):
        if split is not None:
            raise ImageSetError(f"the dataset has no splits; leave split={split!r} out.")
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:
        first = next(iter(found))
        raise ImageSetError(f"choose one of the dataset's splits, {list(found)}: split={first!r} (--split {first}).")
    return found[split]


def _chosen(features: Any, asked: str | None, usual: Sequence[str], purpose: str) -> str | None:
    if asked is None:
        return usual[0] if usual else None
    if asked not in features:
        raise ImageSetError(f"the dataset has no column {asked!r} ({purpose}_column); it has {list(features)}.")
    return asked
