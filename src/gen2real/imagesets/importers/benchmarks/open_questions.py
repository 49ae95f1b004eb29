"""Benchmarks whose questions are answered in words: VQA v2, GQA, VizWiz, TextVQA, MM-Vet, LLaVA-Bench in the wild."""

from __future__ import annotations

from typing import Any

from gen2real.errors import ImageSetError
from gen2real.imagesets.importers.benchmarks.source import Row, Rows, Source, json_lines, rows, text
from gen2real.imagesets.importers.samples import read_json_of
from gen2real.imagesets.json_lines import Fault, MissingPicture


def vqav2(source: Source) -> Rows:
    """Goyal et al. 2017: questions and annotations in two files; test splits have no annotations."""
    file = source.file(f"v2_OpenEnded_mscoco_{source.split}_questions.json")
    content = read_json_of(file, source.layout)
    annotations = source.optional(f"v2_mscoco_{source.split}_annotations.json")
    known = {} if annotations is None else read_json_of(annotations, source.layout)
    try:
        answers = {one["question_id"]: one["answers"] for one in known.get("annotations", ())}
        questions, of = content["questions"], str(content.get("data_subtype", source.split))
    except (KeyError, TypeError, AttributeError) as error:
        raise ImageSetError(f"{file} or its annotations lack {error}. They are to be {source.layout}.") from error

    def make(one: Any) -> Row:
        number = int(one["image_id"])
        try:
            # test-dev asks about pictures of the test set.
            picture = source.picture(f"COCO_{of.replace('test-dev', 'test')}_{number:012d}.jpg")
        except MissingPicture:
            # As COCO calls them since 2017.
            picture = source.picture(f"{number:012d}.jpg")
        row = {"image": picture, "question": text(one["question"]), "submission": {"question_id": one["question_id"]}}
        if annotations is not None:
            if one["question_id"] not in answers:
                raise Fault(f"{annotations.name} has no answers to it")
            row["answers"] = [text(said["answer"]) for said in answers[one["question_id"]]]
        return row

    return rows(((one.get("question_id"), one) for one in questions), make)


def gqa(source: Source) -> Rows:
    """Hudson and Manning 2019: an object of questions by id; the hidden test splits have no answers."""

    def make(one: Any) -> Row:
        row = {"image": source.picture(f"{one['imageId']}.jpg"), "question": text(one["question"])}
        return {**row, "answers": [text(one["answer"])]} if "answer" in one else row

    return rows(source.mapped(f"{source.split}_questions.json").items(), make)


def vizwiz(source: Source) -> Rows:
    """Gurari et al. 2018: a list of questions, one a picture; the test split has no answers."""

    def make(one: Any) -> Row:
        row = {
            "image": source.picture(text(one["image"])),
            "question": text(one["question"]),
            "submission": {"image": one["image"]},
        }
        return {**row, "answers": [text(said["answer"]) for said in one["answers"]]} if "answers" in one else row

    return rows(((one.get("image"), one) for one in source.listed(f"{source.split}.json")), make)


def textvqa(source: Source) -> Rows:
    """Singh et al. 2019: a list `data`; the test split has no answers. Read without the tokens of an OCR."""

    def make(one: Any) -> Row:
        row = {"image": source.picture(f"{one['image_id']}.jpg"), "question": text(one["question"])}
        return {**row, "answers": [text(said) for said in one["answers"]]} if one.get("answers") else row

    listed = source.listed(f"TextVQA_*_{source.split}.json", "data")
    return rows(((one.get("question_id"), one) for one in listed), make)


def mm_vet(source: Source) -> Rows:
    """Yu et al. 2023: an object of questions by id. GPT-4 is its judge, so answers are left to it."""

    def make(one: tuple[str, Any]) -> Row:
        id, values = one
        return {
            "image": source.picture(text(values["imagename"])),
            "question": text(values["question"]),
            "category": ", ".join(values["capability"]),
            "submission": {"id": id},
        }

    return rows(((id, (id, values)) for id, values in source.mapped("mm-vet.json").items()), make)


def llava_wild(source: Source) -> Rows:
    """Liu et al. 2023, LLaVA-Bench (In-the-Wild): questions in JSON Lines. GPT-4 is its judge."""

    def make(one: Any) -> Row:
        question = text(one["text"])
        return {
            "image": source.picture(text(one["image"])),
            "question": question,
            "category": text(one["category"]),
            "submission": {"question_id": one["question_id"], "prompt": question},
        }

    return rows(((one.get("question_id"), one) for one in json_lines(source.file("questions.jsonl"))), make)
