"""Captions and answers of finished models, scored; and the image tower that an aligned model is measured through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from commands import gen2real_
from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.captioning import caption_scores
from gen2real.evaluation.retrieval import caption_positives, retrieval_metrics
from gen2real.imagesets import ImageSet
from gen2real.imagesets.loading import Pictures
from gen2real.methods.finished import evaluate_model, evaluate_retrieval, open_classifier, task_of
from gen2real.methods.finished_texts import evaluate_captioning, evaluate_questions
from gen2real.models import (
    load_aligned,
    load_captioner,
    load_decoder,
    load_dual_encoder,
    load_multimodal,
    new_captioner,
    save_aligned,
    save_captioner,
    save_multimodal,
)
from gen2real.models.multimodal import MultimodalModel
from gen2real.models.multimodal_folder import make_trainable
from tiny import tiny_clip, tiny_gpt2
from tiny_multimodal import tiny_llava
from tiny_sets import COLOURS, colour_set


@dataclass(frozen=True)
class Finished:
    """Models of each kind, and pictures of four colours, two of each, with questions."""

    root: Path
    pictures: ImageSet

    @property
    def questions(self) -> Path:
        return self.root / "questions.jsonl"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    root = tmp_path_factory.mktemp("texts")
    clip = tiny_clip(root / "clip")
    encoder = load_dual_encoder(clip)
    torch.manual_seed(0)
    decoder, tokenizer = load_decoder(tiny_gpt2(root / "gpt2"))
    captioner = new_captioner(decoder, tokenizer, encoder.embedding_dim, max_tokens=12).eval()
    made_by = {"recipe": {"decoding": {"beams": 2, "max_tokens": 12, "ends_at": "end_token"}}}
    save_captioner(root / "captioner", captioner, encoder, made_by=made_by)

    shift = {name: 0.3 * torch.randn_like(value) for name, value in encoder.vision.named_parameters() if value.ndim > 1}
    save_aligned(root / "aligned", encoder, shift, real_projection=torch.randn(20, 20), made_by={})

    llava = load_multimodal(tiny_llava(root / "llava", clip))
    make_trainable(llava, rank=2, alpha=4.0)
    own = next((name, value) for name, value in llava.vision.named_parameters() if "q_proj.weight" in name)
    llava.shift = {own[0]: torch.randn_like(own[1])}
    recipe = {
        "decoding": {"max_tokens": 5, "beams": 1, "batch_size": 3},
        "data": {"prompts": ["which colour?", "another prompt"]},
    }
    save_multimodal(root / "tuned", llava, made_by={"recipe": recipe})

    pictures = colour_set(root / "set", origin="real", per_class=2)
    lines = [
        {"id": "a", "image": "red-0", "question": "what colour is it?", "answer": "red"},
        {"id": "b", "image": "red-0", "question": "is it blue?", "answers": ["no"] * 6 + ["yes"] * 3 + ["maybe"]},
        {"id": "c", "image": "blue-1", "question": "what colour is it?", "answer": "blue"},
    ]
    (root / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        yield Finished(root, pictures)


def test_a_captioner_is_scored_as_it_decodes(finished: Finished) -> None:
    found = evaluate_captioning(finished.root / "captioner", finished.pictures)
    loaded = load_captioner(finished.root / "captioner")
    said = loaded.captions(Pictures(finished.pictures, loaded.encoder.preprocess), beams=2)
    assert found.captions == said
    assert found.ids == finished.pictures.ids
    assert found.scores.means() == caption_scores(said, finished.pictures.captions).means()


def test_the_command_scores_a_captioner(finished: Finished) -> None:
    done = gen2real_("evaluate", finished.root / "captioner", finished.pictures.root, "--json")
    assert (done.code, done.err) == (0, "")
    found = evaluate_captioning(finished.root / "captioner", finished.pictures)
    assert done.value == found.to_json()
    assert list(done.value) == ["pictures", "bleu4", "rouge_l", "cider", "notes", "captions"]
    assert done.value["captions"][0] == {"id": "red-0", "caption": found.captions[0]}
    said = gen2real_("evaluate", finished.root / "captioner", finished.pictures.root, "--task", "captioning").out
    lines = said.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["measure", "BLEU-4", "ROUGE-L", "CIDEr-D", "pictures"]
    assert "Note: meteor and spice not counted" in said


def test_a_captioner_has_one_tower_and_no_answers(finished: Finished) -> None:
    with pytest.raises(ModelError, match=r"is a captioner.*leave --through f_g out"):
        evaluate_captioning(finished.root / "captioner", finished.pictures, through="f_g")
    with pytest.raises(ModelError, match=r"reads no questions. Use --task captioning"):
        evaluate_questions(finished.root / "captioner", finished.pictures, finished.questions)


@pytest.mark.parametrize("through", ["f_r", "f_g"])
def test_a_multimodal_model_describes_as_its_recipe_says(finished: Finished, through: Any) -> None:
    found = evaluate_captioning(finished.root / "tuned", finished.pictures, through=through)
    loaded = load_multimodal(finished.root / "tuned")
    said = loaded.answer(
        finished.pictures.paths, ["which colour?"] * 8, max_tokens=5, beams=1, batch_size=3, branch=through
    )
    assert found.captions == said
    assert found.scores.means() == caption_scores(said, finished.pictures.captions).means()


def test_a_multimodal_model_without_an_alignment_has_one_tower(finished: Finished) -> None:
    for model, through in (("llava", "f_g"), ("tuned", "projection")):
        with pytest.raises(ModelError, match=f"one image tower for all pictures: leave --through {through} out"):
            evaluate_captioning(finished.root / model, finished.pictures, through=through)


def test_answers_are_scored(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def answer(_: Any, pictures: Any, questions: Any, **options: Any) -> list[str]:
        given.update(pictures=pictures, questions=questions, options=options)
        return ["Red.", "yes", "green"]

    monkeypatch.setattr(MultimodalModel, "answer", answer)
    done = gen2real_(
        "evaluate", finished.root / "tuned", finished.pictures.root, "--questions", finished.questions, "--json"
    )
    assert (done.code, done.err) == (0, "")
    red, blue = finished.pictures.paths[0], finished.pictures.paths[5]
    assert given["pictures"] == [red, red, blue]
    assert given["questions"] == ["what colour is it?", "is it blue?", "what colour is it?"]
    assert given["options"] == {"branch": "f_r", "max_tokens": 5, "beams": 1, "batch_size": 3}
    # Three of ten said yes: 0.9. The interval is over the two pictures.
    assert list(done.value) == ["questions", "pictures", "accuracy", "answers"]
    assert (done.value["questions"], done.value["pictures"]) == (3, 2)
    assert done.value["accuracy"]["mean"] == pytest.approx(1.9 / 3)
    assert done.value["accuracy"]["count"] == 2
    assert [one["accuracy"] for one in done.value["answers"]] == pytest.approx([1, 0.9, 0])
    assert done.value["answers"][1] == {"id": "b", "answer": "yes", "accuracy": pytest.approx(0.9)}
    said = gen2real_("evaluate", finished.root / "tuned", finished.pictures.root, "--questions", finished.questions)
    assert "accuracy   63.3 %" in said.out
    assert "3 about 2 picture(s)" in said.out


def test_real_answers_come_from_the_model(finished: Finished) -> None:
    found = evaluate_questions(finished.root / "tuned", finished.pictures, finished.questions, through="f_g")
    asked = [finished.pictures.paths[row] for row in (0, 0, 5)]
    texts = ["what colour is it?", "is it blue?", "what colour is it?"]
    loaded = load_multimodal(finished.root / "tuned")
    assert found.answers == loaded.answer(asked, texts, max_tokens=5, beams=1, batch_size=3, branch="f_g")


def test_pictures_that_cannot_be_read_are_left_out(finished: Finished, tmp_path: Path) -> None:
    torn = colour_set(tmp_path, origin="real", per_class=1)
    torn.paths[0].write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="1 of 4 picture"):
        found = evaluate_captioning(finished.root / "captioner", torn, on_unreadable="skip")
    assert found.ids == torn.ids[1:]
    with pytest.warns(UserWarning, match="1 of 4 picture"):
        assert evaluate_captioning(finished.root / "tuned", torn, on_unreadable="skip").ids == torn.ids[1:]
    line = {"image": "red-0", "question": "what colour?", "answer": "red"}
    (tmp_path / "q.jsonl").write_text(json.dumps(line))
    with (
        pytest.warns(UserWarning, match="1 of 1 picture"),
        pytest.raises(ImageSetError, match="asks about no picture that can be read"),
    ):
        evaluate_questions(finished.root / "tuned", torn, tmp_path / "q.jsonl", on_unreadable="skip")


def test_what_is_measured_unless_told_otherwise(finished: Finished) -> None:
    root, pictures = finished.root, finished.pictures
    kinds = {name: task_of(pictures, root / name) for name in ("clip", "aligned", "captioner", "llava", "tuned")}
    assert kinds == {
        "clip": "classification", "aligned": "classification",
        "captioner": "captioning", "llava": "captioning", "tuned": "captioning",
    }  # fmt: skip
    assert task_of(pictures, root / "llava", asked=True) == "questions"
    assert task_of(pictures, "openai/clip-vit-base-patch32") == "classification"


@pytest.mark.parametrize("through", ["f_r", "f_g", "projection"])
def test_retrieval_through_each_tower(finished: Finished, through: Any) -> None:
    found = evaluate_retrieval(finished.root / "aligned", finished.pictures, through=through)
    aligned = load_aligned(finished.root / "aligned")
    texts, positives = caption_positives(finished.pictures.captions)
    with torch.no_grad():
        image, text = aligned.tower(through)(pixels(finished, aligned.encoder)), aligned.encoder.encode_text(texts)
    assert found.to_json() == retrieval_metrics(image, text, positives).to_json()


def test_classification_through_each_tower(finished: Finished) -> None:
    aligned = load_aligned(finished.root / "aligned")
    head = open_classifier(finished.root / "clip", list(COLOURS)).classifier
    for through in ("f_r", "f_g", "projection"):
        done = gen2real_("evaluate", finished.root / "aligned", finished.pictures.root, "--through", through, "--json")
        with torch.no_grad():
            logits = head.classify_features(aligned.tower(through)(pixels(finished, aligned.encoder)))
        right = (logits.argmax(dim=1).numpy() == finished.pictures.labels).mean()
        assert done.value["top1"]["mean"] == pytest.approx(right)
        found = evaluate_model(finished.root / "aligned", finished.pictures, through=through)
        assert np.array_equal(found.predicted.numpy(), logits.argmax(dim=1).numpy())
    # The encoder's own tower is the plain encoder's.
    plain = evaluate_model(finished.root / "clip", finished.pictures)
    assert evaluate_model(finished.root / "aligned", finished.pictures).to_json() == plain.to_json()


def pixels(finished: Finished, encoder: Any) -> torch.Tensor:
    pictures = Pictures(finished.pictures, encoder.preprocess)
    return encoder.preprocess.normalize(pictures.evaluation(range(len(pictures))))
