"""Multimodal C4 (Zhu et al. 2023, arXiv 2304.06939): web pages as sentences with matched pictures → documents."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
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
    write_samples,
)
from gen2real.imagesets.interleaved import MARK, Interleaved
from gen2real.imagesets.json_lines import Fault, MissingPicture, PictureFiles

_EXAMPLE = "a shard of MMC4, docs_*.jsonl or docs_*.jsonl.zip, or a folder of shards"


def import_mmc4(
    source: str | Path,
    pictures: str | Path,
    out: str | Path,
    *,
    place: Literal["before", "after"] = "before",
    min_similarity: float = 0.0,
    on_fault: Policy = "skip",
) -> ImportedSamples:
    """Takes in web pages: sentences in order, each picture beside the sentence that it was matched to.

    Pictures that were not downloaded, as many of the web's are, stay away; a page without any is not a sample.

    Args:
        source: a shard or a folder of shards; a page a line with `text_list` and `image_info` (`image_name`,
            `matched_text_index`, `matched_sim`).
        pictures: the folder that holds the pictures by `image_name`.
        out: a new JSON Lines file.
        place: before or after its sentence; the data do not say (before is ours).
        min_similarity: pictures that fit their sentence less, by `matched_sim`, stay away.
        on_fault: pages without a picture or with broken lines: left out and counted, or all listed.

    Raises: ImageSetError where files are missing, and as `write_samples`.
    """
    files = PictureFiles(folder_of_pictures(pictures))
    found = _samples(_shards(Path(source)), files, place, min_similarity)
    return write_samples(out, found, on_fault=on_fault)


def _shards(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    shards = sorted([*source.glob("*.jsonl"), *source.glob("*.jsonl.zip")])
    if not shards:
        raise ImageSetError(f"{source} is not {_EXAMPLE}.")
    return shards


def _lines(shard: Path) -> Iterator[str]:
    if shard.suffix != ".zip":
        with shard.open(encoding="utf-8") as stream:
            yield from stream
        return
    with zipfile.ZipFile(shard) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".jsonl")):
            with archive.open(name) as packed, io.TextIOWrapper(packed, encoding="utf-8") as stream:
                yield from stream


def _samples(
    shards: list[Path], files: PictureFiles, place: Literal["before", "after"], min_similarity: float
) -> Iterator[Interleaved | LeftOut]:
    for shard in shards:
        stem = shard.name.removesuffix(".zip").removesuffix(".jsonl")
        for number, line in enumerate(_lines(shard), start=1):
            if not line.strip():
                continue
            id = f"{stem}-{number}"
            try:
                text, found = _page(line, files, place, min_similarity)
                if found:
                    yield document(id, text, found)
                else:
                    yield LeftOut(id, "none of its pictures is there and fits", "without a picture")
            except Fault as fault:
                yield left_out(id, fault, "broken lines")


def _page(
    line: str, files: PictureFiles, place: Literal["before", "after"], min_similarity: float
) -> tuple[str, list[Path]]:
    try:
        values: Any = json.loads(line)
        sentences = [" ".join(str(sentence).split()) for sentence in values["text_list"]]
        infos: list[Mapping[str, Any]] = sorted(values["image_info"], key=lambda info: int(info["matched_text_index"]))
        matched = [
            (int(info["matched_text_index"]), str(info["image_name"]))
            for info in infos
            if float(info.get("matched_sim", 1)) >= min_similarity
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise Fault(f"not a page with text_list and image_info ({error!r})") from error
    if any(MARK in sentence for sentence in sentences):
        raise Fault(f"its text holds the mark {MARK}")
    beside: dict[int, list[Path]] = {}
    for sentence, name in matched:
        if not 0 <= sentence < len(sentences):
            raise Fault(f"a picture is matched to sentence {sentence} of {len(sentences)}")
        try:
            beside.setdefault(sentence, []).append(files.find(name))
        except MissingPicture:
            continue
    words: list[str] = []
    for place_of, text in enumerate(sentences):
        marks = [MARK] * len(beside.get(place_of, ()))
        words += [*marks, text] if place == "before" else [text, *marks]
    return " ".join(word for word in words if word), [path for _, own in sorted(beside.items()) for path in own]
