"""What is to be drawn: class names in templates, captions of a file, or the captions of an image set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gen2real.errors import ImageSetError
from gen2real.generation.settings import GenerateConfig
from gen2real.imagesets.importers.table import CAPTION_NAMES, LABEL_NAMES, table_rows, texts_of
from gen2real.imagesets.manifest import ClassName, ImageSet
from gen2real.imagesets.slugs import unique_slugs
from gen2real.prompts import GENERATION_TEMPLATES, prompts_for, read_class_names

_DEFAULT_PER_CLASS = 10


@dataclass(frozen=True)
class Subject:
    """What a number of pictures shall show: a class in several wordings, or one caption.

    stem: what the ids of its pictures begin with; unique among the subjects.
    prompts: its wordings, taken in turn.
    label: a class's slug, or None. caption_row: place of the caption in its source, from 0.
    pair_id: the id of the real picture that the caption belongs to.
    """

    stem: str
    prompts: tuple[str, ...]
    count: int
    label: str | None = None
    caption_row: int | None = None
    pair_id: str | None = None


def read_subjects(config: GenerateConfig) -> tuple[list[Subject], list[ClassName]]:
    """The subjects of a generation in the order of its source, and the classes.

    Raises: ImageSetError for a source that is missing or empty or holds something else, RecipeError for prompts that
        do not fit the class names.
    """
    if not config.of_captions:
        names = read_class_names(config.source)
        # A dataset's template to draw with is not always the one to classify with.
        templates = GENERATION_TEMPLATES.get(str(config.templates), config.templates)
        wordings = prompts_for(names, templates=templates, file=config.prompts)
        classes = [ClassName(label, name) for label, name in zip(unique_slugs(names), names, strict=True)]
        count = config.per_class or _DEFAULT_PER_CLASS
        return [
            Subject(known.label, tuple(prompts), count, label=known.label)
            for known, prompts in zip(classes, wordings, strict=True)
        ], classes
    if config.source.is_dir() or config.source.suffix == ".parquet":
        return _of_image_set(config)
    found = list(_text_lines(config.source) if config.source.suffix == ".txt" else _table_lines(config.source))
    if not found:
        raise ImageSetError(f"{config.source} holds no captions. Write one a line.")
    names = list(dict.fromkeys(name for _, name, _ in found if name is not None))
    classes = [ClassName(label, name) for label, name in zip(unique_slugs(names), names, strict=True)]
    label_of: dict[str | None, str | None] = {known.name: known.label for known in classes} | {None: None}
    return [
        Subject(f"caption-{row:06d}", (caption,), config.per_caption or 1, label_of[name], row, pair_id)
        for row, (caption, name, pair_id) in enumerate(found)
    ], classes


def _of_image_set(config: GenerateConfig) -> tuple[list[Subject], list[ClassName]]:
    image_set = ImageSet.read(config.source).kept()
    subjects = [
        Subject(f"caption-{row:06d}", (caption,), config.per_caption or 1, label, row, pair_id)
        for row, (caption, label, pair_id) in enumerate(
            (caption.strip(), label, pair_id)
            for pair_id, label, captions in zip(
                image_set.ids, image_set.table["label"].to_pylist(), image_set.captions, strict=True
            )
            for caption in captions
            if caption and caption.strip()
        )
    ]
    if not subjects:
        raise ImageSetError(
            f"no picture of {config.source} has a caption to draw. Give class names instead, or import the "
            "set with its captions."
        )
    return subjects, list(image_set.classes)


Line = tuple[str, str | None, str | None]


def _text_lines(source: Path) -> Iterator[Line]:
    """(caption, class name, pair id) of each line of a text file."""
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageSetError(f"the captions in {source} cannot be read: {error}. Give a UTF-8 text file.") from error
    return ((line.strip(), None, None) for line in text.split("\n") if line.strip())


def _table_lines(source: Path) -> Iterator[Line]:
    """The same of a table with a column of captions and perhaps one of class names and one named pair_id."""
    if not source.is_file():
        raise ImageSetError(f"{source} does not exist. Give a text file of class names, or a table of captions.")
    rows = list(table_rows(source))
    known = list(dict.fromkeys(name for _, row in rows for name in row))
    captions = next((name for name in (*CAPTION_NAMES, "prompt") if name in known), None)
    labels = next((name for name in LABEL_NAMES if name in known), None)
    if rows and captions is None:
        raise ImageSetError(f"{source} has no column of captions; it has {known}. Name one of them caption.")
    for _, row in rows:
        name, pair_id = _word(row.get(labels) if labels else None), _word(row.get("pair_id"))
        for caption in texts_of(row.get(captions) if captions else None):
            yield caption, name, pair_id


def _word(value: Any) -> str | None:
    return str(value).strip() or None if value is not None else None
