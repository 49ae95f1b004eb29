"""VIST (Huang et al. 2016): stories in sequence, a picture and a sentence at a time → documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import Policy
from gen2real.imagesets.importers.samples import (
    ImportedSamples,
    LeftOut,
    document,
    folder_of_pictures,
    left_out,
    read_json_of,
    write_samples,
)
from gen2real.imagesets.interleaved import MARK, Interleaved
from gen2real.imagesets.json_lines import Fault, MissingPicture, PictureFiles, as_json

_EXAMPLE = "VIST's stories in sequence, *.story-in-sequence.json"
_SUFFIXES = (".jpg", ".png", ".gif", ".jpeg")


def import_vist(
    annotations: str | Path,
    pictures: str | Path,
    out: str | Path,
    *,
    order: Literal["image-first", "text-first"] = "image-first",
    on_fault: Policy = "skip",
) -> ImportedSamples:
    """Takes in stories, pictures and sentences in turn as the storyteller put them.

    Args:
        annotations: stories in sequence: `annotations` of lists of objects with `story_id`, `photo_flickr_id`,
            `worker_arranged_photo_order` and `original_text`.
        pictures: the folder with `<photo_flickr_id>.jpg` (or png, gif).
        out: a new JSON Lines file.
        order: which of the two comes first (image-first is ours).
        on_fault: stories with a picture that is missing (people take theirs from Flickr again): left out and counted,
            or all listed.

    Raises: ImageSetError where files are missing or no such JSON, and as `write_samples`.
    """
    content = read_json_of(Path(annotations), _EXAMPLE)
    given = content.get("annotations") if isinstance(content, Mapping) else None
    if not isinstance(given, list) or not given:
        raise ImageSetError(f'{annotations} has no list "annotations". Give {_EXAMPLE}.')
    stories: dict[str, list[Mapping[str, Any]]] = {}
    try:
        for one in given:
            for storylet in one if isinstance(one, list) else [one]:
                stories.setdefault(str(storylet["story_id"]), []).append(storylet)
        in_order = {
            id: sorted(own, key=lambda storylet: int(storylet["worker_arranged_photo_order"]))
            for id, own in stories.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ImageSetError(
            f"{annotations}: a sentence lacks {error}; descriptions in isolation are no stories. Give {_EXAMPLE}."
        ) from error
    files = PictureFiles(folder_of_pictures(pictures))
    return write_samples(out, _samples(in_order, files, order), on_fault=on_fault)


def _samples(
    stories: Mapping[str, Sequence[Mapping[str, Any]]], files: PictureFiles, order: Literal["image-first", "text-first"]
) -> Iterator[Interleaved | LeftOut]:
    for id, storylets in stories.items():
        try:
            told = [_sentence(storylet) for storylet in storylets]
            pictures = [_picture(str(storylet.get("photo_flickr_id")), files) for storylet in storylets]
        except Fault as fault:
            yield left_out(id, fault, "sentences are missing")
            continue
        pairs = [f"{MARK} {text}" if order == "image-first" else f"{text} {MARK}" for text in told]
        yield document(id, " ".join(pairs), pictures)


def _sentence(storylet: Mapping[str, Any]) -> str:
    text = storylet.get("original_text") or storylet.get("text")
    if not isinstance(text, str) or not text.strip() or MARK in text:
        raise Fault(f"a sentence must be a text without marks; got {as_json(text)}")
    return " ".join(text.split())


def _picture(id: str, files: PictureFiles) -> Path:
    for suffix in _SUFFIXES:
        try:
            return files.find(f"{id}{suffix}")
        except MissingPicture:
            continue
    raise MissingPicture(f"there is no picture {files.folder / id} with any of {', '.join(_SUFFIXES)}")
