"""Answers as others want them, and the option that an answer is most like."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gen2real.errors import ImageSetError
from gen2real.evaluation.nearest_option import nearest_option
from gen2real.evaluation.submissions import form_of, read_put


def asks(folder: Path, *lines: dict[str, Any]) -> Path:
    (folder / "1.png").write_bytes(b"")
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps({"question": "what?", **line}) + "\n" for line in lines))
    return path


def written(folder: Path, lines: list[dict[str, Any]], *answers: str) -> tuple[str, str]:
    """The file's text and suffix."""
    put = read_put(asks(folder, *lines))
    form, suffix = form_of(put)
    return form(put, answers, "a/model"), suffix


def test_vqa_servers(tmp_path: Path) -> None:
    lines = [{"benchmark": "vqav2", "submission": {"question_id": n}, "image": "1.png"} for n in (7, 3)]
    text, suffix = written(tmp_path, lines, "The two dogs.", " Yes")
    assert (json.loads(text), suffix) == (
        [{"question_id": 7, "answer": "2 dogs"}, {"question_id": 3, "answer": "yes"}], ".json",
    )  # fmt: skip
    lines = [{"benchmark": "vizwiz", "submission": {"image": "V_1.jpg"}, "image": "1.png"}]
    assert json.loads(written(tmp_path, lines, "é")[0]) == [{"image": "V_1.jpg", "answer": "é"}]


def test_judges_that_read_whole_answers(tmp_path: Path) -> None:
    lines = [{"benchmark": "mm-vet", "submission": {"id": f"v1_{n}"}, "image": "1.png"} for n in (0, 1)]
    text, suffix = written(tmp_path, lines, "It is -1,\nand -5.", "")
    assert (json.loads(text), suffix) == ({"v1_0": "It is -1,\nand -5.", "v1_1": ""}, ".json")
    known = {"question_id": 4, "prompt": "Name it."}
    line = {"id": 4, "benchmark": "llava-wild", "submission": known, "image": "1.png"}
    text, suffix = written(tmp_path, [line, {**line, "id": 5}], "A\nlake.", "A hill.")
    first, second = map(json.loads, text.splitlines())
    assert suffix == ".jsonl"
    assert {**first, "answer_id": ""} == {
        **known, "text": "A\nlake.", "answer_id": "", "model_id": "a/model", "metadata": {},
    }  # fmt: skip
    assert first["answer_id"] != second["answer_id"]


def test_mmbench_is_a_table_of_letters(tmp_path: Path) -> None:
    def line(index: int, *options: str) -> dict[str, Any]:
        known = {"index": index, "question": 'what "is"\tit?', **dict(zip("ABCD", options, strict=False))}
        return {"benchmark": "mmbench", "image": "1.png", "options": options, "submission": known}

    text, suffix = written(
        tmp_path, [line(1, "a cat", "a dog"), line(2, "x y", "y z", "z"), line(3, "l", "r")], "It is a dog", "C.", "?!"
    )
    assert suffix == ".tsv"
    found = list(csv.DictReader(text.splitlines(), delimiter="\t"))
    assert [tuple(one.values()) for one in found] == [
        ("1", 'what "is"\tit?', "a cat", "a dog", "", "B"), ("2", 'what "is"\tit?', "x y", "y z", "z", "C"),
        ("3", 'what "is"\tit?', "l", "r", "", "?!"),
    ]  # fmt: skip
    assert list(found[0]) == ["index", "question", "A", "B", "C", "prediction"]


def test_other_questions_are_lines(tmp_path: Path) -> None:
    lines = [
        {"id": "k", "facts": ["It is old."], "answer": "x"},
        {"benchmark": "gqa", "options": ["u", "v"], "image": "1.png"},
    ]
    text, suffix = written(tmp_path, lines, "so", "B")
    assert ([json.loads(line) for line in text.splitlines()], suffix) == (
        [
            {"id": "k", "question": "Reference information:\nIt is old.\nwhat?", "answer": "so"},
            {
                "id": "2", "answer": "B",
                "question": "what?\nA. u\nB. v\nAnswer with the option's letter from the given choices directly.",
            },
        ],
        ".jsonl",
    )  # fmt: skip
    # Of two benchmarks there is no one judge.
    vet = {"benchmark": "mm-vet", "submission": {"id": "v1_0"}}
    assert form_of(read_put(asks(tmp_path, vet, lines[1])))[1] == ".jsonl"
    assert form_of(read_put(asks(tmp_path, vet)))[1] == ".json"


def test_faults_are_listed(tmp_path: Path) -> None:
    path = asks(
        tmp_path,
        {"benchmark": "vqav2"}, {"benchmark": 3}, {"image": "2.png"}, {"options": ["one"]}, {"question": ""},
        {"question": "<image>?"},
    )  # fmt: skip
    with pytest.raises(ImageSetError) as caught:
        read_put(path)
    told = str(caught.value).splitlines()
    assert told[0].endswith("6 line(s) cannot be used:")
    assert told[1].startswith("  line 1: it has no 'submission', by which vqav2 knows it")
    assert "'benchmark' must be a name" in told[2]
    assert "there is no picture" in told[3]


def weights_by_hand(texts: list[list[str]]) -> np.ndarray[Any, Any]:
    """TF-IDF as scikit-learn documents it: smooth idf, rows of unit length."""
    words = sorted({word for own in texts for word in own})
    counts = np.array([[own.count(word) for word in words] for own in texts], dtype=float)
    idf = np.log((1 + len(texts)) / (1 + (counts > 0).sum(axis=0))) + 1
    rows = counts * idf
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_nearest_option_is_that_of_tf_idf() -> None:
    random, words = np.random.default_rng(0), [f"w{n}" for n in range(7)]
    for _ in range(40):
        texts = [list(random.choice(words, size=random.integers(1, 8))) for _ in range(5)]
        rows = weights_by_hand(texts)
        cosines = rows[1:] @ rows[0]
        found = nearest_option(" ".join(texts[0]).upper() + "!", [" ".join(own) for own in texts[1:]])
        if cosines.max() < 1e-12:
            assert found is None
        else:
            assert found is not None
            assert cosines[found] == pytest.approx(cosines.max(), abs=1e-12)


def test_the_nearest_option_by_example() -> None:
    options = ["the old pump organ has more stops", "the new reed organ has more stops", "both have as many"]
    assert nearest_option("I think that the reed one has more", options) == 1
    # Both have `organ` once; the shorter one is nearer, and equal ones are told apart by their place.
    assert nearest_option("organ", ["a big organ", "an organ", "an organ"]) == 1
    assert nearest_option("I do not know", options) is None
    assert nearest_option("", options) is None
