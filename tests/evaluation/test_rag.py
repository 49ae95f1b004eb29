"""Answers with what was looked up: what is found, how it is put, and what must not be looked up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from gen2real.errors import Gen2RealError, ImageSetError
from gen2real.evaluation.rag import (
    TEMPLATES,
    EncoderRetriever,
    Entry,
    OwnRetriever,
    Rag,
    Template,
    augmented,
    check_leaks,
    read_entries,
)
from gen2real.evaluation.tasks import Asked, measure_task
from gen2real.imagesets.decoding import decode
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder
from gen2real.models.index import Found
from gen2real.models.multimodal import MultimodalModel
from tiny import tiny_clip


class Answering(MultimodalModel):
    """Says yes to everything; keeps what it was asked."""

    def __init__(self) -> None:
        self.name, self.made_by = "answering", {}
        self.asked: list[tuple[list[str], str]] = []

    def answer(self, pictures: Any, questions: Sequence[str], **_: Any) -> list[str]:
        self.asked += [([path.name for path in own], q) for own, q in zip(pictures, questions, strict=True)]
        return ["yes"] * len(questions)


class Counting:
    """A retriever by the red of the first picture; counts what it embeds."""

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def __call__(self, asked: Sequence[Asked]) -> Tensor:
        self.embedded += [one.question for one in asked]
        angles = torch.tensor([decode(one.pictures[0]).getpixel((0, 0))[0] / 100 for one in asked])
        return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """0.png … 9.png, the redder the later; again.png is 3.png."""
    root = tmp_path_factory.mktemp("rag")
    for number in range(10):
        Image.new("RGB", (32, 32), (10 * number, 90, 30)).save(root / f"{number}.png")
    (root / "again.png").write_bytes((root / "3.png").read_bytes())
    return root


def lines(path: Path, *values: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in values))
    return path


@pytest.fixture(scope="module")
def entries(folder: Path) -> list[Entry]:
    """About pictures 1, 3, 5, 7."""
    known = [{"image": f"{n}.png", "question": f"which is {n}?", "answer": f"it is {n}"} for n in (1, 3, 5, 7)]
    return read_entries(lines(folder / "known.jsonl", *known))


def test_entries_have_the_most_common_answer(folder: Path) -> None:
    path = lines(
        folder / "some.jsonl",
        {"id": "a", "image": "1.png", "question": "what?", "answers": ["x", "y", "y", "z"]},
        {"images": ["1.png", "2.png"], "question": "<image> or <image>?", "answer": "b"},
        {"question": "who?", "answers": ["first", "second"]},
    )
    assert read_entries(path) == [
        Entry("a", Asked((folder / "1.png",), "what?"), "y"),
        Entry("2", Asked((folder / "1.png", folder / "2.png"), "<image> or <image>?"), "b"),
        Entry("3", Asked((), "who?"), "first"),
    ]
    wrong = lines(
        folder / "wrong.jsonl",
        {"image": "1.png", "question": "what?", "answer": "<image>"},
        {"image": "none.png", "question": "what?", "answer": "x"},
        {"image": "1.png", "question": "<image> and <image>?", "answer": "x"},
    )
    with pytest.raises(
        ImageSetError, match=r"(?s)3 line\(s\).*line 1: the answer holds the mark.*line 3: the question"
    ):
        read_entries(wrong)


def test_the_nearest_entry_stands_next_to_the_question(folder: Path, entries: list[Entry]) -> None:
    asked = Asked((folder / "4.png",), "and {this}?")
    found = [Found(entries[2], 0.9), Found(entries[1], 0.8)]
    put = augmented(asked, found)
    assert put.question == "<image>\nwhich is 3? it is 3\n<image>\nwhich is 5? it is 5\n<image>\nand {this}?"
    assert [picture.name for picture in put.pictures] == ["3.png", "5.png", "4.png"]
    told = augmented(asked, found[:1], "reference").question
    assert told.startswith("Answer the question by its picture. If the reference information is useful, use it;")
    assert told.endswith("Reference information:\n<image>\nwhich is 5? it is 5\n<image>\nand {this}?")
    own = Template("Q {question} A {answer}", "{question} [{found}]")
    marked = Asked(asked.pictures, "look: <image>{found}")
    turned = augmented(marked, found[:1], own)
    # What a text holds is never taken for a field, and pictures come in the order of their marks.
    assert turned.question == "look: <image>{found} [Q <image>\nwhich is 5? A it is 5]"
    assert [picture.name for picture in turned.pictures] == ["4.png", "5.png"]
    assert augmented(asked, []) is asked


@pytest.mark.parametrize(
    "template",
    ["other", Template("{question}", "{found}{question}"), Template("{question}{answer}", "{found}{found}{question}")],
)
def test_a_template_without_its_fields_is_refused(template: Any, folder: Path) -> None:
    with pytest.raises(Gen2RealError, match="template"):
        augmented(Asked((), "what?"), [], template)
    assert set(TEMPLATES) == {"exemplar", "reference"}


def test_so_many_are_put_and_none_that_is_too_far(folder: Path, entries: list[Entry]) -> None:
    retriever = Counting()
    rag = Rag(entries, retriever, count=1)
    asked = [Asked((folder / "4.png",), "a?"), Asked((folder / "8.png",), "b?")]
    ids = [[one.item.id for one in own] for own in rag.with_count(3).found(asked)]
    # 4 is as far from 3 as from 5: in the order of the file, then 1 and 7 alike.
    assert [sorted(ids[0][:2]), ids[1]] == [["2", "3"], ["4", "3", "2"]]
    assert [len(own) for own in rag.found(asked)] == [1, 1]
    assert rag.with_count(0)(asked) == asked
    assert rag.with_count(0).told == {}
    once = rag(asked)
    assert [one.question.count("<image>") for one in once] == [2, 2]
    # Entries and questions were embedded once, for all of these.
    assert retriever.embedded == ["which is 1?", "which is 3?", "which is 5?", "which is 7?", "a?", "b?"]
    cos = torch.tensor([0.1]).cos().item()
    assert rag.told == {
        "entries": 4,
        "count": 1,
        "threshold": None,
        "found": 1.0,
        "similarity": pytest.approx(cos, abs=1e-6),
        "questions_about_pictures_in_it": 0,
    }
    strict = Rag(entries, Counting(), count=3, threshold=torch.tensor([0.25]).cos().item())
    assert [[one.item.id for one in own] for own in strict.found([asked[1]])] == [["4"]]
    assert Rag(entries, Counting(), count=3, threshold=1.0)(asked) == asked


def test_what_is_tested_must_not_be_looked_up(folder: Path, entries: list[Entry]) -> None:
    about = folder / "again.png"
    assert check_leaks(entries, [Asked((about,), "what colour?"), Asked((folder / "4.png",), "which is 3?")]) == 1
    leaking = [Asked((folder / "4.png",), "which?"), Asked((about,), "<image>  Which is\n3")]
    with pytest.raises(ImageSetError, match=r"(?s)1 of 2 questions are among.*2: 'which is 3\?' about .*again\.png"):
        check_leaks(entries, leaking)
    with pytest.raises(ImageSetError, match="take them out"):
        Rag(entries, Counting())(leaking)
    # Options do not hide it.
    with pytest.raises(ImageSetError, match="take them out"):
        Rag(entries, Counting())([Asked((about,), "which is 3?\nA. this", Asked((about,), "which is 3?"))])
    known = [Entry("1", Asked((), "who?"), "I")]
    assert check_leaks(known, [Asked((about,), "who?")]) == 0
    with pytest.raises(ImageSetError, match="about no picture"):
        check_leaks(known, [Asked((), "Who?")])


def test_a_task_is_asked_with_what_was_found(folder: Path, entries: list[Entry]) -> None:
    model, rag = Answering(), Rag(entries, Counting(), count=1)
    options = {"images": ["8.png"], "question": "which?", "options": ["yes", "no"], "answer": 0}
    path = lines(folder / "choices.jsonl", options, {**options, "images": ["2.png"], "answer": 1})
    found = measure_task("choice", model, path, rag=rag)
    (pictures, question), _ = model.asked
    assert pictures == ["7.png", "8.png"]
    assert question.startswith("<image>\nwhich is 7? it is 7\n<image>\nwhich?\nA. yes\nB. no")
    assert found.values["accuracy"].tolist() == [1, 0]
    assert found.details["looked_up"]["found"] == 1
    assert "looked_up" not in measure_task("choice", Answering(), path).details


class Joined:
    """Embeds by what it is given; keeps it."""

    def embed(self, parts: Sequence[Sequence[str | Path]], *, batch_size: int) -> Tensor:
        self.given, self.batch_size = [list(own) for own in parts], batch_size
        return torch.eye(len(parts))


def test_the_own_key_is_picture_and_question(folder: Path) -> None:
    embedder = Joined()
    one, other = folder / "1.png", folder / "2.png"
    asked = [Asked((one,), "what?"), Asked((one, other), "is <image> or <image>?"), Asked((), "who?")]
    assert OwnRetriever(embedder, 5)(asked).shape == (3, 3)
    assert embedder.given == [[one, "\nwhat?"], ["is ", one, " or ", other, "?"], ["who?"]]
    assert embedder.batch_size == 5


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    return load_dual_encoder(tiny_clip(tmp_path_factory.mktemp("clip")))


def test_the_control_averages_similarities_of_pictures_and_of_texts(folder: Path, encoder: DualEncoder) -> None:
    files = [folder / f"{number}.png" for number in (1, 5, 9)]
    asked = [Asked((files[0],), "what?"), Asked((files[1], files[2]), "<image> or <image>?"), Asked((), "what?")]
    made = EncoderRetriever(encoder)(asked)
    with torch.no_grad():
        pixels = torch.stack([encoder.preprocess.geometry(decode(file)) for file in files])
        image = normalize(encoder.encode_image(encoder.preprocess.normalize(pixels)), dim=1)
        text = encoder.encode_text(["what?", "or ?"])
    of_texts = cosine_similarity(text[0], text[1], dim=0)
    of_pictures = cosine_similarity(image[0], image[1:].mean(dim=0), dim=0)
    assert float(made[0] @ made[1]) == pytest.approx(float(of_texts + of_pictures) / 2, abs=1e-5)
    assert float(made[0] @ made[2]) == pytest.approx(0.5, abs=1e-5)
    assert float(made[0].norm()) == pytest.approx(1, abs=1e-6)
