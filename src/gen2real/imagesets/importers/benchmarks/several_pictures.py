"""Benchmarks of more than one picture: Winoground, WebQA and DEMON."""

from __future__ import annotations

import ast
import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal

from gen2real.errors import ImageSetError
from gen2real.imagesets.importers.benchmarks.source import (
    NotMeant,
    Picture,
    Row,
    Rows,
    Source,
    json_lines,
    rows,
    text,
    with_marks,
)
from gen2real.imagesets.importers.samples import read_json_of
from gen2real.imagesets.json_lines import Fault, MissingPicture, PictureFiles

_DEMON_MARK = re.compile(r"\{(?:image|table)#(\d+)\}")
# Of these the options are pictures, and are not written out.
_IMAGE_OPTIONS = ("Image A", "Image B", "Image C", "Image D")
# As its own README shows them; in the files they are a key of their own.
_WRITTEN_OUT = re.compile(r"\s*Choice list:\s*(\[.*\])\s*\.?\s*Your answer is:\s*$", re.IGNORECASE | re.DOTALL)
_NO_LETTERS = re.compile(r"[\W_]+")
_BEGINS = re.compile(r"(yes|no)\b", re.IGNORECASE)
# "No trees." answers how many there are, too.
_BEGINS_ALONE = re.compile(r"(yes|no)\s*([,.;:!]|$)", re.IGNORECASE)
_OTHERS = 5


def winoground(source: Source) -> Rows:
    """Thrush et al. 2022: two pictures and two captions a line of examples.jsonl."""

    def make(one: Any) -> Row:
        return {
            "images": [source.picture(text(one[f"image_{number}"])) for number in (0, 1)],
            "captions": [text(one[f"caption_{number}"]) for number in (0, 1)],
            "category": one.get("collapsed_tag") or None,
        }

    return rows(((one.get("id"), one) for one in json_lines(source.file("examples.jsonl"))), make)


def webqa(source: Source) -> Rows:
    """Chang et al. 2022: questions with the sources that their answer rests on, which are their facts. With
    `distractors` at most so many of the others stand among them; which and where is drawn by the question's id.

    Pictures lie in imgs.tsv (an id and base64 a line; imgs.lineidx says where each begins), or as files named by id.
    """
    pictures = _WebPictures(source)

    def make(given: tuple[str, Any]) -> Row:
        id, one = given
        facts = [*_right(one), *one["txt_posFacts"]]
        if source.distractors:
            facts = _among(facts, [*one["img_negFacts"], *one["txt_negFacts"]], source.distractors, id)
        return {
            "question": _unquoted(one["Q"]),
            "answers": [_unquoted(answer) for answer in one["A"]],
            "facts": [pictures.pair(fact) for fact in facts],
            "category": one.get("Qcate") or None,
        }

    return rows(_web_questions(source), make)


def webqa_position(source: Source) -> Rows:
    """WebQA's yes-or-no questions that rest on one picture, its pair before those of the first five others: does its
    place matter? (Chow et al. 2024, arXiv 2411.00304, section 4.1; which five is ours.)
    """
    pictures = _WebPictures(source)

    def make(given: tuple[str, Any]) -> Row:
        _, one = given
        right, others = _right(one), one["img_negFacts"][:_OTHERS]
        answer = _yes_or_no(one)
        if len(right) != 1 or one["txt_posFacts"]:
            raise NotMeant("questions that do not rest on one picture alone")
        if len(others) < _OTHERS:
            raise NotMeant(f"questions with fewer than {_OTHERS} pictures to distract")
        pairs = [pictures.pair(fact) for fact in (*right, *others)]
        return {"question": _unquoted(one["Q"]), "answer": answer, "pairs": pairs, "relevant": 0}

    return rows(_web_questions(source), make)


def demon(source: Source) -> Rows:
    """Li et al. 2024, DEMON: its questions with open answers, of one of its datasets or all."""
    return _demon(source, "open-ended")


def demon_choice(source: Source) -> Rows:
    """DEMON's questions with options. An answer that names none counts as the option it is most like (`unread`)."""
    return _demon(source, "multi-choice")


def _demon(source: Source, wanted: Literal["open-ended", "multi-choice"]) -> Rows:
    def make(one: tuple[Mapping[str, Any], PictureFiles, str, Mapping[str, Any]]) -> Row:
        about, files, dataset, values = one
        if about["question_type"] != wanted:
            raise NotMeant(f"{about['question_type']} questions")
        instance = values["task_instance"]
        paths: dict[int, Picture] = {
            number: files.find(name) for number, name in enumerate(instance["images_path"], start=1)
        }
        context, options = _without_options(instance["context"])
        asked = f"{about['task_instruction'][int(values['task_instruction_id'])]}{context}"
        (question,), shown = with_marks([text(asked)], _DEMON_MARK, paths)
        # Pictures that the text does not name stand before it.
        before = [path for path in paths.values() if path not in shown]
        row = {
            "images": [*before, *shown],
            "question": "<image>\n" * len(before) + question,
            "category": dataset,
        }
        response = text(str(values["response"]))
        if wanted == "open-ended":
            return {**row, "answer": response}
        options = [text(option) for option in instance.get("choice_list") or options or _IMAGE_OPTIONS]
        return {**row, "options": options, "answer": _place(response, options), "unread": "nearest"}

    def every() -> Iterator[tuple[str, tuple[Mapping[str, Any], PictureFiles, str, Mapping[str, Any]]]]:
        for file in source.files(f"{source.split}.json"):
            content = read_json_of(file, source.layout)
            try:
                about, listed = content["metadata"], content["data"]
                dataset = str(about["dataset"])
            except (KeyError, TypeError) as error:
                raise ImageSetError(f"{file} has no {error}. It is to be of {source.layout}.") from error
            files = PictureFiles(file.parent / "images")
            for values in listed:
                yield f"{dataset}-{values.get('sample_id')}", (about, files, dataset, values)

    return rows(every(), make)


def _web_questions(source: Source) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Each question of the split, as (id, (id, what there is of it))."""
    name = "train_val" if source.split in ("train", "val") else source.split
    content = source.mapped(f"WebQA_{name}.json")
    wanted = {id: one for id, one in content.items() if one.get("split", source.split) == source.split}
    if not wanted:
        raise ImageSetError(f"WebQA_{name}.json has no question of the split {source.split!r}; another with --split.")
    return ((id, (id, one)) for id, one in wanted.items())


def _right(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The pictures that an answer rests on. Raises: Fault where that is not said."""
    if "img_posFacts" not in one:
        raise Fault("it does not say which sources are the right ones, as the test split does not")
    return list(one["img_posFacts"])


def _among(facts: Sequence[Any], others: Sequence[Any], count: int, id: str) -> list[Any]:
    """Facts and at most `count` of the others, in an order drawn by the id."""
    random = Random(id)
    chosen = [*facts, *random.sample(others, min(count, len(others)))]
    random.shuffle(chosen)
    return chosen


def _yes_or_no(one: Mapping[str, Any]) -> str:
    """What every answer begins with. Raises: NotMeant where that is neither yes nor no, or not the same."""
    word = _BEGINS if one.get("Qcate") == "YesNo" else _BEGINS_ALONE
    found = [word.match(_unquoted(answer)) for answer in one["A"]]
    said = {match[1].lower() if match else "" for match in found}
    if said not in ({"yes"}, {"no"}):
        raise NotMeant("questions whose answer is not yes or no")
    return said.pop()


class _WebPictures:
    """WebQA's sources, and their pictures by id."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.table = source.optional("imgs.tsv")
        self.begins: list[int] = []
        if self.table is not None:
            self.begins = [int(line) for line in source.file("imgs.lineidx").read_text().split()]

    def pair(self, fact: Mapping[str, Any]) -> dict[str, Any]:
        """A source as tasks have it: a picture with what is known of it, or a text."""
        if "image_id" in fact:
            return {"image": self.find(fact), "text": _fact(fact)}
        return {"text": text(fact["fact"])}

    def find(self, fact: Mapping[str, Any]) -> Picture:
        id = int(fact["image_id"])
        if self.table is None:
            return self.source.picture(str(id))
        # Ids begin at 30,000,000, so the last seven digits are the line.
        line = id % 10_000_000
        if line >= len(self.begins):
            raise MissingPicture(f"imgs.lineidx has no line {line} for the picture {id}")
        return _content(self.table, self.begins[line], id)


def _content(table: Path, begin: int, id: int) -> bytes:
    with table.open("rb") as stream:
        stream.seek(begin)
        found, _, content = stream.readline().strip().partition(b"\t")
    if found != str(id).encode():
        raise MissingPicture(f"imgs.lineidx leads to {found[:20]!r} in {table}, not to the picture {id}")
    return base64.b64decode(content)


def _fact(fact: Mapping[str, Any]) -> str:
    """What is known of a picture: its caption, else its title."""
    return " ".join(text(fact.get("caption") or fact["title"]).split())


def _unquoted(given: Any) -> str:
    """Questions and answers stand in quotation marks."""
    return text(text(given).strip('"'))


def _without_options(context: str) -> tuple[str, list[str]]:
    """A context, and the options that are written out at its end; none where there are none."""
    found = _WRITTEN_OUT.search(context)
    return (context[: found.start()], list(ast.literal_eval(found[1]))) if found else (context, [])


def _place(response: str, options: list[str]) -> int:
    """The place of the option that the right answer is, whatever its punctuation and case."""
    plain = [_NO_LETTERS.sub(" ", option).strip().lower() for option in options]
    said = _NO_LETTERS.sub(" ", response).strip().lower()
    if plain.count(said) != 1:
        raise Fault(f"the answer {response!r} is not one of {options}")
    return plain.index(said)
