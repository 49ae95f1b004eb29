"""Multimodal models in folders, measured on tasks by `gen2real evaluate`: each command against the model itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from commands import gen2real_
from gen2real.cli_evaluate import OF_FILES, RagTemplate, Task
from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.captioning import caption_scores
from gen2real.evaluation.knowledge import rouge_scores
from gen2real.evaluation.rag import TEMPLATES, EncoderRetriever, read_entries
from gen2real.evaluation.tasks import TASKS, Asked
from gen2real.evaluation.yes_no import says_yes
from gen2real.methods import finished_tasks
from gen2real.methods.finished_tasks import evaluate_task
from gen2real.models import load_dual_encoder, load_multimodal, save_multimodal
from gen2real.models.embedder import Embedder
from gen2real.models.multimodal import MultimodalModel
from gen2real.models.multimodal_folder import make_trainable
from gen2real.models.retrieval_head import RetrievalHead
from tiny import tiny_clip
from tiny_multimodal import tiny_llava
from tiny_sets import colour_set

DECODING = {"max_tokens": 4, "beams": 1, "batch_size": 3}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`tuned`, a LLaVA with a head and a recipe, and `set`, two pictures of each colour."""
    root = tmp_path_factory.mktemp("tasks")
    llava = load_multimodal(tiny_llava(root / "llava", tiny_clip(root / "clip")))
    make_trainable(llava, rank=2, alpha=4.0)
    torch.manual_seed(0)
    llava.head = RetrievalHead(llava.width, 24, 16)
    recipe = {"decoding": DECODING, "discriminative": {"image_readout": "last"}, "data": {}}
    save_multimodal(root / "tuned", llava, made_by={"recipe": recipe})
    colour_set(root / "set", origin="real", per_class=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        patch.chdir(root)
        yield root


@pytest.fixture(scope="module")
def tuned(place: Path) -> MultimodalModel:
    return load_multimodal(place / "tuned")


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def asks(place: Path, task: str, *lines: dict[str, Any]) -> Path:
    path = place / "set" / f"{task}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_commands_tasks_are_those_that_there_are() -> None:
    assert set(TASKS) <= set(get_args(Task))
    assert set(OF_FILES) == set(TASKS) - {"questions", "captioning", "retrieval"}
    assert set(get_args(RagTemplate)) == set(TEMPLATES)


def test_yes_or_no(place: Path, tuned: MultimodalModel) -> None:
    lines = [{"image": f"red/{n}.png", "question": f"is it {n}?", "answer": ("yes", "no")[n]} for n in (0, 1)]
    file = asks(place, "yes-no", *lines)
    done = gen2real_("evaluate", "tuned", file, "--task", "yes-no", "--json")
    assert (done.code, done.err) == (0, "")
    said = tuned.answer([place / "set" / line["image"] for line in lines], ["is it 0?", "is it 1?"], **DECODING)
    assert [one["answer"] for one in done.value["samples"]] == said
    right = [says_yes(said[0]), not says_yes(said[1])]
    assert done.value["measures"]["accuracy"]["mean"] == np.mean(right)
    assert list(done.value["measures"]) == ["accuracy", "f1"]
    told = gen2real_("evaluate", "tuned", file, "--task", "yes-no").out
    assert [line.split("  ")[0] for line in told.splitlines()[:7]] == [
        "measure", "accuracy", "F1", "precision", "recall", "yes rate", "accuracy plus",
    ]  # fmt: skip
    assert "is it 1?" in told


def test_knowledge_and_a_limit(place: Path, tuned: MultimodalModel) -> None:
    file = asks(
        place,
        "knowledge",
        {"question": "who?", "answer": "nobody", "facts": ["There is nobody."]},
        {"images": ["blue/0.png", "red/0.png"], "question": "which?", "answer": "none"},
        {"image": "blue/1.png", "question": "what?", "answer": "nothing"},
    )
    done = gen2real_("evaluate", "tuned", file, "--task", "knowledge", "--limit", 2, "--json")
    assert (done.code, done.err) == (0, "")
    pictures = [[], [place / "set" / name for name in ("blue/0.png", "red/0.png")]]
    said = tuned.answer(pictures, ["Reference information:\nThere is nobody.\nwho?", "which?"], **DECODING)
    assert [one["answer"] for one in done.value["samples"]] == said
    assert done.value["measures"]["rouge_l"]["mean"] == pytest.approx(rouge_scores(said, [["nobody"], ["none"]]).mean())


@pytest.mark.parametrize("task", ["questions", "choice", "position"])
def test_other_files_are_asked(place: Path, task: str) -> None:
    line = {"image": "red/0.png", "question": "what is it?"}
    more: dict[str, dict[str, Any]] = {
        "questions": {"answers": ["red", "dark red"]},
        "choice": {"options": ["red", "blue"], "answer": 0},
        "position": {"answer": "yes", "relevant": 1, "pairs": ["it is blue", {"image": "red/1.png", "text": "red"}]},
    }
    done = gen2real_("evaluate", "tuned", asks(place, task, {**line, **more[task]}), "--task", task, "--json")
    assert (done.code, done.err) == (0, "")
    found = evaluate_task("tuned", task, place / "set" / f"{task}.jsonl")
    assert done.value == json.loads(json.dumps(found.to_json()))
    assert 0 <= done.value["measures"]["accuracy"]["mean"] <= 1


@pytest.fixture(scope="module")
def known(place: Path) -> Path:
    """What is looked up: of each colour a picture, its question and answer."""
    lines = [{"image": f"{name}/1.png", "question": f"is it {name}?", "answer": name} for name in ("red", "blue")]
    return asks(place, "known", *lines)


@pytest.mark.parametrize("retriever", [None, "clip"])
def test_questions_with_what_is_looked_up(
    place: Path, tuned: MultimodalModel, known: Path, retriever: str | None
) -> None:
    """By hand: the entry whose embedding is nearest, the model's own or the dual encoder's, and then the answer."""
    lines = [{"image": f"{name}/0.png", "question": "which?", "answer": name} for name in ("blue", "green", "red")]
    file = asks(place, "asked", *lines)
    more = () if retriever is None else ("--rag-retriever", retriever)
    done = gen2real_("evaluate", "tuned", file, "--task", "questions", "--rag", known, *more, "--json")
    assert (done.code, done.err) == (0, "")
    entries, asked = read_entries(known), [Asked((place / "set" / line["image"],), "which?") for line in lines]
    if retriever is None:
        embedder = Embedder(tuned, tuned.head, "last")
        keys, queries = (
            embedder.embed([[one.pictures[0], f"\n{one.question}"] for one in own])
            for own in ([entry.asked for entry in entries], asked)
        )
    else:
        by_clip = EncoderRetriever(load_dual_encoder(place / retriever))
        keys, queries = by_clip([entry.asked for entry in entries]), by_clip(asked)
    found = [entries[row] for row in (queries @ keys.T).argmax(dim=1).tolist()]
    put = [f"<image>\n{one.asked.question} {one.answer}\n<image>\nwhich?" for one in found]
    pictures = [[*one.asked.pictures, *own.pictures] for one, own in zip(found, asked, strict=True)]
    assert [one["answer"] for one in done.value["samples"]] == tuned.answer(pictures, put, **DECODING)
    told = done.value["details"]["looked_up"]
    assert (told["entries"], told["count"], told["found"]) == (2, 1, 1.0)
    assert told["similarity"] == pytest.approx((queries @ keys.T).max(dim=1).values.mean().item(), abs=1e-5)


def test_two_are_put_before_a_question_and_told(place: Path, known: Path) -> None:
    file = asks(place, "about-one", {"image": "red/1.png", "question": "sure?", "answer": "yes"})
    done = gen2real_("evaluate", "tuned", file, "--task", "yes-no", "--rag", known, "--rag-count", 2)
    assert done.code == 0, done.err
    said = next(line for line in done.out.splitlines() if line.startswith("Looked up"))
    assert re.fullmatch(
        r"Looked up: 2 of 2 a question, similarity -?[01]\.\d\d; "
        r"1 question\(s\) are about a picture that is among them",
        said,
    )


def test_in_the_papers_words_and_only_what_is_alike_enough(
    place: Path, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the similarities of the two to a question lies a threshold that one of them passes."""
    file = asks(place, "alike", {"image": "red/0.png", "question": "which?", "answer": "red"})
    words = ("evaluate", "tuned", file, "--task", "questions", "--rag", known, "--rag-template", "reference", "--json")
    put: list[str] = []
    answer = MultimodalModel.answer

    def kept(self: MultimodalModel, pictures: Any, questions: Any, **more: Any) -> Any:
        put.extend(questions)
        return answer(self, pictures, questions, **more)

    monkeypatch.setattr(MultimodalModel, "answer", kept)
    nearest, both = (
        gen2real_(*words, "--rag-count", count).value["details"]["looked_up"]["similarity"] for count in (1, 2)
    )
    assert nearest > both
    for threshold, found in ((both, 1), (2 * both - nearest - 1e-3, 2), (1, 0)):
        done = gen2real_(*words, "--rag-count", 2, "--rag-threshold", threshold)
        assert (done.code, done.err) == (0, "")
        told = done.value["details"]["looked_up"]
        assert (told["found"], told["threshold"]) == (found, threshold)
        if not found:
            assert put[-1] == "which?"
            continue
        head, *entries, asked = re.split(r"(?:^|\n)(?=<image>)", put[-1])
        assert head.startswith("Answer the question by its picture.")
        assert head.endswith("\nReference information:")
        assert len(entries) == found
        assert asked == "<image>\nwhich?"


def test_files_are_read_before_the_model_is_loaded(place: Path, known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished_tasks, "open_multimodal", None)
    wrong = asks(place, "wrong", {"image": "red/9.png", "question": "?", "answer": "a"}, {"image": "red/0.png"})
    with pytest.raises(
        ImageSetError, match=r"(?s)2 line\(s\).*line 1: there is no picture.*line 2: 'question' must be"
    ):
        evaluate_task("tuned", "questions", wrong)
    with pytest.raises(ImageSetError, match=r"wrong\.jsonl: 2 line"):
        evaluate_task(
            "tuned", "questions", asks(place, "a", {"question": "?", "answer": "a", "image": "red/0.png"}), rag=wrong
        )
    with pytest.raises(ImageSetError, match="1 of 1 questions are among what is looked up"):
        evaluate_task(
            "tuned",
            "questions",
            asks(place, "b", {"image": "red/1.png", "question": "Is it red", "answer": "a"}),
            rag=known,
        )
    with pytest.raises(ModelError, match="nowhere"):
        evaluate_task("tuned", "questions", place / "set" / "a.jsonl", rag=known, rag_retriever="nowhere/clip")


def test_captions_of_the_first_few(place: Path, tuned: MultimodalModel) -> None:
    done = gen2real_("evaluate", "tuned", "set", "--task", "captioning", "--limit", 3, "--json")
    assert (done.code, done.err) == (0, "")
    paths = [place / "set" / name for name in ("red/0.png", "red/1.png", "green/0.png")]
    said = tuned.answer(paths, ["Describe the image briefly."] * 3, **DECODING)
    assert [one["answer"] for one in done.value["samples"]] == said
    known = [["a red square"], ["a red square"], ["a green square"]]
    assert done.value["measures"]["cider"]["mean"] == caption_scores(said, known).means()["cider"]


def test_retrieval_is_by_its_own_embeddings_as_it_was_taught(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Embedder] = []
    embed = Embedder.embed

    def kept(self: Embedder, *parts: Any, **more: Any) -> Any:
        used.append(self)
        return embed(self, *parts, **more)

    monkeypatch.setattr(Embedder, "embed", kept)
    done = gen2real_("evaluate", "tuned", "set", "--task", "retrieval", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.value["measures"]["image_to_text_recall@1"]["count"] == 8
    assert used[0].dim == 16
    assert {one.image for one in used} == {"last"}


def test_answers_for_others_to_judge(place: Path, tuned: MultimodalModel) -> None:
    lines = [
        {"image": f"red/{n}.png", "question": f"is it {n}?", "benchmark": "mm-vet", "submission": {"id": f"v1_{n}"}}
        for n in (0, 1)
    ]
    file = asks(place, "vet", *lines)
    said = tuned.answer([place / "set" / line["image"] for line in lines], ["is it 0?", "is it 1?"], **DECODING)
    done = gen2real_("answer", "tuned", file, "--out", "vet.json")
    assert (done.code, done.err) == (0, "")
    assert json.loads((place / "vet.json").read_text()) == {"v1_0": said[0], "v1_1": said[1]}
    assert done.out.splitlines()[-1] == "vet.json: 2 answers, as mm-vet wants them"
    done = gen2real_("answer", "tuned", file, "--out", "one.json", "--limit", 1, "--max-tokens", 9, "--json")
    assert done.value == {"file": "one.json", "benchmark": "mm-vet", "answers": 1}
    (longer,) = json.loads((place / "one.json").read_text()).values()
    assert longer.startswith(said[0])
    assert len(longer) > len(said[0])
    for words, told in (
        (("--out", "vet.json"), "vet.json exists already"),
        (("--out", "vet.jsonl"), "are written as .json; name it vet.json"),
        (("--out", "x.json", "--limit", 0), "--limit 0: give at least 1"),
    ):
        done = gen2real_("answer", "tuned", file, *words)
        assert done.code == 2
        assert told in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("tuned set/yes-no.jsonl", "holds the items of a task; say which: --task questions, or one of yes-no, choice"),
        ("tuned set/yes-no.jsonl --task yes-no --steps 3", "--steps: not for --task yes-no of a multimodal model"),
        ("tuned set/none.jsonl --task choice", "none.jsonl does not exist"),
        ("clip set/yes-no.jsonl --task yes-no", "not a multimodal model"),
        ("clip set --limit 3", "--limit is for the tasks of multimodal models"),
        ("tuned set/yes-no.jsonl --task yes-no --limit 0", "a limit of 0 leaves nothing"),
        ("tuned set/yes-no.jsonl --task position --rag k.jsonl", "--task position asks none that they could"),
        (
            "tuned set --task retrieval --rag k.jsonl",
            "leave --rag out. It is for --task questions, yes-no, choice, knowl",
        ),
        ("tuned set --task captioning --rag k.jsonl", "MODEL FILE.jsonl --task questions --rag k.jsonl; or yes-no"),
        ("clip set --rag k.jsonl", "--rag is for questions of a file that a multimodal model answers"),
        ("tuned set/yes-no.jsonl --rag k.jsonl", "say which: --task questions"),
        ("tuned set/yes-no.jsonl --task yes-no --rag-count 2", "add --rag FILE.jsonl"),
        ("tuned set/yes-no.jsonl --task yes-no --rag-retriever clip", "add --rag FILE.jsonl"),
        (
            "tuned set/yes-no.jsonl --task yes-no --rag-template reference --rag-threshold 0.5",
            "--rag-template, --rag-threshold: how to look up; add --rag FILE.jsonl",
        ),
        ("tuned set/yes-no.jsonl --task yes-no --rag k.jsonl --rag-count 0", "--rag-count 0: give at least 1"),
        ("tuned set/yes-no.jsonl --task yes-no --rag k.jsonl --rag-threshold 1.5", "--rag-threshold 1.5: similarities"),
        ("tuned set/yes-no.jsonl --task yes-no --rag k.jsonl", "k.jsonl does not exist"),
    ],
)
def test_mistakes(place: Path, words: str, said: str) -> None:
    asks(place, "yes-no", {"image": "red/0.png", "question": "is it?", "answer": "no"})
    done = gen2real_("evaluate", *words.split())
    assert done.code != 0
    assert said in " ".join(done.err.split())
