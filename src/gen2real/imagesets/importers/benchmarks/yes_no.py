"""Benchmarks whose questions are answered yes or no: POPE and MME."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gen2real.errors import ImageSetError
from gen2real.imagesets.importers.benchmarks.source import PICTURE_SUFFIXES, Row, Rows, Source, json_lines, rows, text
from gen2real.imagesets.json_lines import Fault, MissingPicture

MME_TASKS = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
)  # fmt: skip


def pope(source: Source) -> Rows:
    """Li et al. 2023: a file of JSON Lines for each way to choose what is asked for (random, popular, adversarial)."""

    def make(one: tuple[str, Any]) -> Row:
        category, values = one
        return {
            "image": source.picture(text(values["image"])),
            "question": text(values["text"]),
            "answer": _yes_or_no(values["label"]),
            "category": category,
        }

    def every() -> Iterator[tuple[str, tuple[str, Any]]]:
        for file in source.files(f"{source.split}_pope_*.json"):
            category = file.stem.rpartition("_")[2]
            for number, one in enumerate(json_lines(file), start=1):
                yield f"{category}-{one.get('question_id', number)}", (category, one)

    return rows(every(), make)


def mme(source: Source) -> Rows:
    """Fu et al. 2023: of each picture a text file with a question, a tab and an answer a line, beside the picture or in
    a folder `questions_answers_YN` beside `images`. Its 14 tasks are categories.
    """

    def make(one: tuple[str, Path, str]) -> Row:
        task, file, line = one
        question, tab, answer = line.rpartition("\t")
        if not tab:
            raise Fault(f"there is no tab between question and answer: {line!r}")
        return {
            "image": _beside(file),
            "question": text(question),
            "answer": _yes_or_no(answer),
            "category": task,
        }

    def every() -> Iterator[tuple[str, tuple[str, Path, str]]]:
        for file in source.files("*.txt"):
            split = file.parent.name == "questions_answers_YN"
            task = (file.parent.parent if split else file.parent).name
            if task in MME_TASKS:
                lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
                for number, line in enumerate(lines, start=1):
                    yield f"{task}/{file.stem}-{number}", (task, file, line)

    found = list(every())
    if not found:
        raise ImageSetError(f"{source.folder} holds no folder of MME's tasks. It is to hold {source.layout}.")
    return rows(found, make)


def _beside(file: Path) -> Path:
    folder = file.parent.parent / "images" if file.parent.name == "questions_answers_YN" else file.parent
    for suffix in PICTURE_SUFFIXES:
        if (path := folder / f"{file.stem}{suffix}").is_file():
            return path
    raise MissingPicture(f"there is no picture {folder / file.stem} with any of {', '.join(PICTURE_SUFFIXES)}")


def _yes_or_no(given: Any) -> str:
    if (answer := text(given).lower()) not in ("yes", "no"):
        raise Fault(f"the answer must be yes or no; got {given!r}")
    return answer
