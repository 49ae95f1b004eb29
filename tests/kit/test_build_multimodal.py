"""The kit's multimodal model before it is trained much: what it is taught, token for token, and that branches are
computed as if each stood alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, CLIPModel, LlavaForConditionalGeneration

from gen2real.kit.build import lessons
from gen2real.kit.build.branching import rows
from gen2real.kit.build.clip import build_clip
from gen2real.kit.build.corpus import pixels
from gen2real.kit.build.lessons import Lesson, about_last, about_picture, about_story, about_text
from gen2real.kit.build.multimodal import Teller, build_multimodal
from gen2real.kit.build.settings import BuildConfig, StageSettings
from gen2real.kit.world import Scene, questions, render, sample_scene, sample_story
from gen2real.kit.world.language import long_caption
from gen2real.models.multimodal import MultimodalModel, load_multimodal

STAGE = StageSettings(steps=3, batch_size=8, lr=1e-3, warmup_steps=1)
SCENES = [sample_scene("web", "train", index) for index in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = BuildConfig(
        output=tmp_path_factory.mktemp("kit"),
        scenes=16,
        clip_width=32,
        clip_layers=2,
        multimodal_width=64,
        multimodal_layers=2,
        clip=STAGE,
        robust=STAGE,
        multimodal=STAGE,
    )
    build_clip(config, jobs=1, quiet=True)
    return build_multimodal(config, jobs=1, quiet=True)


@pytest.fixture(scope="module")
def model(folder: Path) -> MultimodalModel:
    return load_multimodal(folder)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def examples() -> list[Lesson]:
    return [
        about_picture(SCENES[0], random()),
        about_story(sample_story("web", "train", 3), random()),
        *(about_last(SCENES[:count], random(count)) for count in (2, 3, 4)),
        about_text(SCENES[0], random()),
    ]


def test_stock_transformers_loads_it_and_answers(folder: Path) -> None:
    stock, processor = LlavaForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert {parameter.dtype for parameter in stock.parameters()} == {torch.float32}
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is this?"}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    assert prompt == "USER: <image>\nwhat is this? ASSISTANT:"
    picture = Image.fromarray(render(SCENES[:1])[0])
    inputs = processor(images=[picture], text=prompt, return_tensors="pt")
    assert int((inputs["input_ids"] == stock.config.image_token_id).sum()) == 64
    assert inputs["input_ids"][0, 0] == processor.tokenizer.bos_token_id
    made = stock.generate(**inputs, max_new_tokens=3, do_sample=False)
    own = load_multimodal(folder).answer([picture], ["what is this?"], max_tokens=3)
    assert processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip() == own[0]


def test_the_tower_is_the_clips_own(folder: Path) -> None:
    tower = CLIPModel.from_pretrained(folder.parent / "clip").vision_model.state_dict()
    own = LlavaForConditionalGeneration.from_pretrained(folder).model.vision_tower.state_dict()
    assert own.keys() == tower.keys()
    assert all(torch.equal(own[key], tower[key]) for key in tower)


@pytest.mark.parametrize("number", range(6))
def test_a_lesson_is_what_the_chat_template_writes(model: MultimodalModel, number: int) -> None:
    """What is learnt is token for token what will be asked, and answered."""
    lesson = examples()[number]
    made = rows([lesson], model.tokenizer, 64)
    begun, first = "".join(piece.text for piece in lesson.prefix), _length(lesson, model)
    # Where positions fall back, another branch begins.
    back = (made.positions[0, 1:] <= made.positions[0, :-1]).nonzero()[:, 0] + 1
    bounds = pairwise([first, *back.tolist(), made.ids.shape[1]])
    for (asked, told), (begin, end) in zip(lesson.branches, bounds, strict=True):
        question = (begun + asked.text).removeprefix("USER: ").removesuffix(" ASSISTANT:")
        question = question.replace("<image>\n", "<image>")
        answer = told.text.removeprefix(" ").removesuffix("</s>")
        assert model.prompt(question, len(lesson.scenes)) == begun + asked.text
        assert model.answered(question, answer, len(lesson.scenes)) == told.text
        whole = f"{begun}{asked.text}{told.text}".replace("<image>", "<image>" * 64)
        assert [*made.ids[0, :first].tolist(), *made.ids[0, begin:end].tolist()] == model.token_ids(whole)
        assert model.tokenizer.decode(made.ids[0, begin:end][made.learnt[0, begin:end]]) == told.text


def _length(lesson: Lesson, model: MultimodalModel) -> int:
    begun = "".join(piece.text for piece in lesson.prefix).replace("<image>", "<image>" * 64)
    return len(model.token_ids(begun))


@pytest.mark.parametrize("number", range(6))
def test_branches_are_computed_as_if_each_stood_alone(model: MultimodalModel, number: int) -> None:
    """In a batch with others, padded, with its siblings: the logits are stock LLaVA's of the one conversation."""
    taught = examples()
    lesson, teller = taught[number], Teller(model.model)
    batch = rows(taught, model.tokenizer, 64)
    shown = pixels(render([scene for one in taught for scene in one.scenes]))
    with torch.inference_mode():
        found = teller(teller.see(shown), batch)
        before = int(batch.learnt[:number].sum())
        begun = "".join(piece.text for piece in lesson.prefix)
        own = pixels(render(list(lesson.scenes))) if lesson.scenes else None
        of_prefix = sum(len(_ids(model, piece.text)) for piece in lesson.prefix if piece.learnt)
        place = before + of_prefix
        for branch in lesson.branches:
            text = (begun + "".join(piece.text for piece in branch)).replace("<image>", "<image>" * 64)
            ids = torch.tensor([model.token_ids(text)])
            logits = model.model(input_ids=ids, pixel_values=own, attention_mask=torch.ones_like(ids)).logits[0]
            count = len(_ids(model, branch[1].text))
            torch.testing.assert_close(found[place : place + count], logits[-count - 1 : -1], atol=1e-4, rtol=1e-4)
            place += count
    assert place == before + int(batch.learnt[number].sum())


def _ids(model: MultimodalModel, text: str) -> Sequence[int]:
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def test_each_topic_is_asked_as_often_whatever_the_number_of_its_questions() -> None:
    scene = next(one for one in SCENES if len(one.toys) == 3)
    asked = [question.topic for seed in range(300) for question in lessons._by_topic(scene, 2, random(seed))]
    topics = {question.topic for question in questions(scene)}
    shares = [asked.count(topic) / 300 for topic in topics]
    assert all(abs(share - 2 / len(topics)) < 0.1 for share in shares)


def test_answers_are_true_and_options_hold_them() -> None:
    """Every answered question is one of the scene's own; a letter names the option that is its answer."""
    lettered = 0
    for scene in SCENES:
        known = {question.question: question.answer for question in questions(scene)}
        for seed in range(6):
            for asked, told in about_picture(scene, random(seed)).branches[3:]:
                text, *options = asked.text.removesuffix(" ASSISTANT:").split("\n")
                answer = told.text.strip().removesuffix("</s>")
                if len(options) > 1:
                    lettered += 1
                    answer = dict(line.split(". ", 1) for line in options[:-1])[answer]
                assert known[text[0].lower() + text[1:]] == answer
            doubted = [told.text.strip() for _, told in about_picture(scene, random(seed)).branches[-2:]]
            assert set(doubted) <= {"yes</s>", "no</s>"}
    assert lettered > 20


def test_a_picture_in_words_says_what_is_asked() -> None:
    for scene in SCENES:
        lesson = about_text(scene, random())
        assert (lesson.scenes, lesson.prefix[0].text) == ((), f"USER: {long_caption(scene)}")
        assert {turn[0].text.startswith(" ") for turn in lesson.branches} == {True}


def test_a_judged_captions_wording_does_not_tell_whether_it_fits() -> None:
    """Openings and looks would give it away: neither true nor false ones have any."""
    drawn = random()
    judged = [lessons._judged(scene, drawn) for scene in SCENES * 20]
    answers = {answer.text for _, answer in judged}
    assert answers == {" yes</s>", " no</s>"}
    for asked, answer in judged:
        said = asked.text.removeprefix("does the picture show ").removesuffix("? ASSISTANT:")
        assert not said.startswith(("a photo", "a picture")), answer
        assert not {"striped", "dotted", "checked", "small", "large"} & set(said.split()) or "paper" in said
    counts = {text: sum(a.text == text for _, a in judged) / len(judged) for text in answers}
    assert all(0.35 < share < 0.65 for share in counts.values())


def test_a_story_is_learnt_sentence_by_sentence_and_nothing_before_it(model: MultimodalModel) -> None:
    story = sample_story("web", "train", 5)
    lesson = about_story(story, random())
    made = rows([lesson], model.tokenizer, 64)
    end = _length(lesson, model)
    learnt = made.ids[0, :end][made.learnt[0, :end]]
    assert model.tokenizer.decode(learnt) == "".join(story.sentences)
    assert int((made.ids == model.model.config.image_token_id).sum()) == 64 * len(story.scenes)


def test_scenes_of_a_lesson_are_its_marks() -> None:
    for lesson in examples():
        assert "".join(piece.text for piece in lesson.prefix).count("<image>") == len(lesson.scenes)
        assert all(isinstance(scene, Scene) for scene in lesson.scenes)
