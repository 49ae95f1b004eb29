"""LLaVA's instruction data (conversations in JSON) → interleaved samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import Policy
from gen2real.imagesets.importers.samples import (
    ImportedSamples,
    LeftOut,
    folder_of_pictures,
    left_out,
    read_json_of,
    write_samples,
)
from gen2real.imagesets.interleaved import MARK, Interleaved, Turn, parts_of
from gen2real.imagesets.json_lines import Fault, PictureFiles, id_of

_EXAMPLE = "LLaVA's JSON, a list of objects with conversations, as llava_v1_5_mix665k.json"
_USERS, _ANSWERERS = ("human", "user"), ("gpt", "assistant")


def import_llava(
    source: str | Path, pictures: str | Path, out: str | Path, *, on_fault: Policy = "error"
) -> ImportedSamples:
    """Takes in conversations, of several turns too; those without a picture are kept as text.

    Args:
        source: the JSON file: `{"id", "image": path or list of paths, "conversations": [{"from", "value"}, …]}` each.
        pictures: the folder that `image` starts from.
        out: a new JSON Lines file.

    As LLaVA reads it: what an answerer says before the user is passed over, so is a last question without an answer,
    and a picture without a mark stands before the first question. System messages are passed over.

    Raises: ImageSetError where files are missing or no such JSON; with the samples that cannot be used, see
        `write_samples`: pictures that are missing, turns that do not alternate, empty texts, marks that do not fit.
    """
    content = read_json_of(Path(source), _EXAMPLE)
    if not isinstance(content, list) or not all(isinstance(one, Mapping) for one in content):
        raise ImageSetError(f"{source} holds no list of objects. Give {_EXAMPLE}.")
    return write_samples(out, _samples(content, PictureFiles(folder_of_pictures(pictures))), on_fault=on_fault)


def _samples(content: list[Mapping[str, Any]], files: PictureFiles) -> Iterator[Interleaved | LeftOut]:
    for number, one in enumerate(content, start=1):
        id = id_of(one, number)
        try:
            turns = _turns(one.get("conversations"))
            pictures = [files.find(name) for name in _names(one.get("image"))]
        except Fault as fault:
            yield left_out(id, fault, "conversations are torn")
            continue
        try:
            yield Interleaved(id, _with_pictures(turns, pictures))
        except Fault as fault:
            yield left_out(id, fault, "marks do not fit the pictures")


def _names(image: Any) -> list[str]:
    names = image if isinstance(image, list) else [] if image is None else [image]
    if not all(isinstance(name, str) and name for name in names):
        raise Fault(f"'image' must be a path or a list of paths; got {image!r}")
    return names


def _turns(conversations: Any) -> list[tuple[str, str]]:
    """Questions with their answers."""
    if not isinstance(conversations, list) or not all(isinstance(one, Mapping) for one in conversations):
        raise Fault("it has no list 'conversations'")
    said = [(str(one.get("from")), one.get("value")) for one in conversations if one.get("from") != "system"]
    if said and said[0][0] in _ANSWERERS:
        said = said[1:]
    if len(said) % 2:
        said = said[:-1]
    if not said:
        raise Fault("nobody answers")
    for place, (who, text) in enumerate(said):
        expected = (_USERS, _ANSWERERS)[place % 2]
        if who not in expected:
            raise Fault(f"message {place + 1} is from {who!r}, not from {expected[0]!r}")
        if not isinstance(text, str) or not text.strip():
            raise Fault(f"message {place + 1} is empty")
    texts = [str(text).strip() for _, text in said]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _with_pictures(turns: list[tuple[str, str]], pictures: list[Path]) -> tuple[Turn, ...]:
    if any(MARK in answer for _, answer in turns):
        raise Fault(f"an answer holds the mark {MARK}")
    marks = [question.count(MARK) for question, _ in turns]
    if pictures and not any(marks):
        turns = [(f"{MARK}\n" * len(pictures) + turns[0][0], turns[0][1]), *turns[1:]]
        marks[0] = len(pictures)
    if sum(marks) != len(pictures):
        raise Fault(f"there are {sum(marks)} marks {MARK} and {len(pictures)} images")
    waiting = iter(pictures)
    return tuple(
        Turn(parts_of(question, [next(waiting) for _ in range(own)]), answer)
        for (question, answer), own in zip(turns, marks, strict=True)
    )
