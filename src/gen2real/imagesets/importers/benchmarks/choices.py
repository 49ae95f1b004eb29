"""Benchmarks of multiple choice: ScienceQA, MMBench, MMMU, SEED-Bench."""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from gen2real.errors import ImageSetError
from gen2real.imagesets.importers.benchmarks.source import (
    NotMeant,
    Picture,
    Row,
    Rows,
    Source,
    letter_place,
    rows,
    text,
    with_marks,
)
from gen2real.imagesets.json_lines import Fault

_MMMU_MARK = re.compile(r"<image (\d+)>")
# A picture's cell is megabytes long, where csv refuses more than 128 KiB.
_LONGEST_CELL = 2**31 - 1


def scienceqa(source: Source) -> Rows:
    """Lu et al. 2022: problems by number, and the numbers of each split. With and without a picture are categories."""
    problems, splits = source.mapped("problems.json"), source.mapped("pid_splits.json")
    if source.split not in splits:
        raise ImageSetError(f"pid_splits.json has no split {source.split!r}; it has {', '.join(splits)} (--split).")

    def make(id: str) -> Row:
        one = problems[id]
        seen = [source.picture(f"{one['split']}/{id}/{one['image']}")] if one.get("image") else []
        hint = (one.get("hint") or "").strip()
        options = [text(choice) for choice in one["choices"]]
        if not 0 <= one["answer"] < len(options):
            raise Fault(f"the answer {one['answer']} is none of {len(options)} choices")
        return {
            "images": seen,
            "question": f"Context: {hint}\n{text(one['question'])}" if hint else text(one["question"]),
            "options": options,
            "answer": one["answer"],
            "category": "with a picture" if seen else "without a picture",
        }

    return rows(((id, str(id)) for id in splits[source.split]), make)


def mmbench(source: Source) -> Rows:
    """Liu et al. 2023: a TSV with pictures in base64. A question's rows, its options rotated, are 1,000,000 apart in
    their index: they are one `group`, right only together. The test split has no answers.
    """
    pictures: dict[str, str] = {}

    def make(one: Mapping[str, str]) -> Row:
        # A rotated row may name the row that has its picture.
        content = one["image"] if len(one["image"]) > 64 else pictures.get(one["image"].strip(), "")
        try:
            picture = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Fault(f"its picture is not base64 ({error})") from error
        if not picture:
            raise Fault(f"it has no picture, and there is no row {one['image']!r} that has one")
        lettered = {letter: one[letter].strip() for letter in ascii_uppercase if one.get(letter, "").strip()}
        options = list(lettered.values())
        if list(lettered) != list(ascii_uppercase[: len(options)]):
            raise Fault(f"its options are {', '.join(lettered)}")
        hint, question = one.get("hint", "").strip(), text(one["question"])
        row = {
            "image": picture,
            "question": f"{hint}\n{question}" if hint else question,
            "options": options,
            "category": one.get("l2-category") or one.get("category") or None,
            "group": str(int(one["index"]) % 1_000_000),
            "submission": {"index": int(one["index"]), "question": question, **lettered},
        }
        answer = one.get("answer", "").strip()
        return {**row, "answer": letter_place(answer, options)} if answer else row

    def every() -> Iterator[tuple[str, Mapping[str, str]]]:
        for one in _table(source.file(f"*{source.split}*.tsv")):
            if len(one.get("image", "")) > 64:
                pictures[one.get("index", "")] = one["image"]
            yield one.get("index", ""), one

    return rows(every(), make)


def mmmu(source: Source) -> Rows:
    """Yue et al. 2024: Parquet files in a folder for each subject. Open questions, without options, are left out.

    Marks `<image 1>` are in questions and options; pictures that no text names are not shown.
    """
    from pyarrow import ArrowException, parquet

    def make(one: Mapping[str, Any]) -> Row:
        if one["question_type"] != "multiple-choice":
            raise NotMeant("open questions")
        options = [text(option) for option in ast.literal_eval(one["options"])]
        pictures: dict[int, Picture] = {
            number: one[f"image_{number}"]["bytes"] for number in range(1, 8) if one.get(f"image_{number}")
        }
        (question, *options), shown = with_marks([text(one["question"]), *options], _MMMU_MARK, pictures)
        row = {"images": shown, "question": question, "options": options, "category": one["subject"]}
        # The test split's answers are question marks.
        return row if one["answer"] in ("?", "", None) else {**row, "answer": letter_place(one["answer"], options)}

    def every() -> Iterator[tuple[str, Mapping[str, Any]]]:
        for file in source.files(f"{source.split}-*.parquet"):
            try:
                with parquet.ParquetFile(file) as table:
                    for batch in table.iter_batches(batch_size=64):
                        for one in batch.to_pylist():
                            yield one.get("id"), {**one, "subject": file.parent.name.replace("_", " ")}
            except ArrowException as error:
                raise ImageSetError(f"{file} is no Parquet file that can be read ({error}).") from error

    return rows(every(), make)


def seed_bench(source: Source) -> Rows:
    """Li et al. 2023, SEED-Bench: a list `questions`; those about videos are left out."""
    content = source.mapped("SEED-Bench.json")
    names = {number: name for name, number in content.get("question_type", {}).items()}

    def make(one: Mapping[str, Any]) -> Row:
        if one["data_type"] != "image":
            raise NotMeant("questions about videos")
        options = [text(one[f"choice_{letter}"]) for letter in "abcd" if one.get(f"choice_{letter}")]
        return {
            "image": source.picture(text(one["data_id"])),
            "question": text(one["question"]),
            "options": options,
            "answer": letter_place(one["answer"], options),
            "category": names.get(one["question_type_id"], str(one["question_type_id"])),
        }

    listed = content.get("questions")
    if not isinstance(listed, list):
        raise ImageSetError(f'SEED-Bench.json holds no list "questions". It is to be {source.layout}.')
    return rows(((one.get("question_id"), one) for one in listed), make)


def _table(file: Path) -> Iterator[dict[str, str]]:
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            for one in csv.DictReader(stream, delimiter="\t", restkey="", restval=""):
                if "" in one:
                    raise ImageSetError(f"{file}: row {one.get('index')} has more cells than the first line names.")
                # pandas, which wrote it, calls an empty cell nan.
                yield {name: "" if value == "nan" else value for name, value in one.items()}
    finally:
        csv.field_size_limit(before)
