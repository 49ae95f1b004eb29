"""Hard questions of the kit: right is true of its picture, wrong is not, and nothing but looking helps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from toy_language import PHRASES, could_be_true, is_true, read, read_name

from gen2real.errors import ImageSetError
from gen2real.files import digest
from gen2real.kit.world import (
    HELD_OUT,
    SPLITS,
    Scene,
    long_caption,
    noisy_caption,
    questions,
    sample_scene,
    sample_story,
)
from gen2real.kit.world.hard_questions import (
    SOURCES,
    Sources,
    choice_about,
    choice_between,
    sample_foursome,
    sample_reference,
    sample_sources,
    text_first,
    yes_no_about,
)
from gen2real.kit.world.scenes import stream

COUNT = 160
DOMAINS = ("web", "home")


def looks(scene: Scene) -> list[tuple[str, str]]:
    return [(toy.kind, toy.colour) for toy in sorted(scene.toys, key=lambda toy: toy.x)]


def is_shown(name: str, scene: Scene) -> bool:
    """`a red ball`, or `a ball`: one of the toys."""
    return any(read_name(name).fits(toy) for toy in scene.toys)


def keeps_to_its_domain(scenes: list[Scene]) -> bool:
    """`web` shows no held-out pair of kind and colour."""
    return all(scene.domain == "home" or not set(looks(scene)) & HELD_OUT for scene in scenes)


@pytest.fixture(scope="module", params=DOMAINS)
def scenes(request: pytest.FixtureRequest) -> list[Scene]:
    return [sample_scene(request.param, "test", number) for number in range(COUNT)]


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_foursomes_captions_have_the_same_words_and_each_fits_its_own_picture(domain: str) -> None:
    for number in range(COUNT):
        found = sample_foursome(domain, "test", number)  # type: ignore[arg-type]
        assert sorted(found.captions[0].split()) == sorted(found.captions[1].split())
        for place, caption in enumerate(found.captions):
            said = read(caption)
            assert is_true(said, found.scenes[place]), (caption, found.scenes[place].toys)
            assert not could_be_true(said, found.scenes[1 - place])
        assert found.category == ("colours", "order", "patterns", "sizes")[number % 4]
        # One place, and another noise of the sensor.
        first, second = found.scenes
        assert (first.ground, first.light, first.horizon) == (second.ground, second.light, second.horizon)
        assert first.variety[:3] == second.variety[:3]
        assert first.variety != second.variety
        assert keeps_to_its_domain([first, second])


def test_one_option_of_a_choice_is_right(scenes: list[Scene]) -> None:
    places, categories = Counter[tuple[int, int]](), Counter[str]()
    for number, scene in enumerate(scenes):
        one = choice_about(scene, number, split="test")
        places[len(one.options), one.answer] += 1
        categories[one.category] += 1
        assert len(set(one.options)) == len(one.options)
        right = one.options[one.answer]
        wrong = [option for option in one.options if option != right]
        if one.question == "which caption fits the picture?":
            assert len(wrong) == 1
            assert is_true(read(right), scene)
            assert not could_be_true(read(wrong[0]), scene), (wrong, scene.toys)
            assert read(right).relation == read(wrong[0]).relation
        else:
            assert (one.question, right) in [(asked.question, asked.answer) for asked in questions(scene)]
            assert len(wrong) == 3
    for options in (2, 4):
        share = np.array([places[options, place] for place in range(options)])
        assert abs(share / share.sum() - 1 / options).max() < 0.13, share
    assert {"colour", "pattern", "kind", "place", "one colour", "one kind", "colours", "order"} == set(categories)


def test_wrong_options_are_what_the_other_toys_are(scenes: list[Scene]) -> None:
    """Whoever sees the picture but not which toy is asked about finds another toy's colour among the options."""
    several = 0
    for number, scene in enumerate(scenes):
        one = choice_about(scene, number, split="test")
        if one.category == "colour" and one.question.startswith("what"):
            others = {toy.colour for toy in scene.toys}
            assert others <= set(one.options)
            several += len(others) > 1
    assert several > 5


def test_a_choice_between_pictures_names_one_of_them() -> None:
    answers = []
    for number in range(100):
        foursome = sample_foursome("home", "test", number)
        one = choice_between(foursome, number, split="test")
        caption = one.question.removeprefix("which picture shows ").removesuffix("?")
        assert [is_true(read(caption), scene) for scene in foursome.scenes] == [one.answer == 0, one.answer == 1]
        assert one.options == ("the first picture", "the second picture")
        answers.append(one.answer)
    assert 35 < sum(answers) < 65


def test_yes_and_no_are_true_and_as_often_as_each_other(scenes: list[Scene]) -> None:
    counts = Counter[tuple[str, str]]()
    adversarial = 0
    for number, scene in enumerate(scenes):
        for one in yes_no_about(scene, number, split="test"):
            counts[one.category, one.answer] += 1
            if one.category == "order":
                left, right = one.question.removeprefix("is ").removesuffix("?").split(" to the left of ")
                order = [toy.kind for toy in sorted(scene.toys, key=lambda toy: toy.x)]
                first = order.index(left.removeprefix("the ")) < order.index(right.removeprefix("the "))
                assert one.answer == ("yes" if first else "no")
                continue
            thing = one.question.removeprefix("is there ").removesuffix("?")
            assert one.answer == ("yes" if is_shown(thing, scene) else "no"), (one, scene.toys)
            if one.category == "colour" and one.answer == "no" and len({toy.colour for toy in scene.toys}) > 1:
                adversarial += read_name(thing).colour in {toy.colour for toy in scene.toys}
    for category in ("kind", "colour", "order"):
        assert counts[category, "yes"] == counts[category, "no"] > 0
    assert counts["kind", "yes"] == COUNT
    assert adversarial > COUNT / 8


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_references_changes_are_what_happened(domain: str) -> None:
    from test_world_stories import happens

    for number in range(0, COUNT, 4):
        found = sample_reference(domain, "test", number)  # type: ignore[arg-type]
        before = looks(found.scene)
        after = [looks(scene) for _, scene in found.changes]
        assert [happens(sentence, before) for sentence, _ in found.changes] == after
        # All targets differ, so neither the reference nor a ground alone finds one of them.
        assert len({tuple(one) for one in [before, *after]}) == 5
        assert len({scene.ground for scene in [found.scene, *(scene for _, scene in found.changes)]}) == 1
        assert keeps_to_its_domain([found.scene, *(scene for _, scene in found.changes)])


@pytest.fixture(scope="module", params=DOMAINS)
def sources(request: pytest.FixtureRequest) -> list[Sources]:
    return [sample_sources(request.param, "test", number) for number in range(COUNT)]


def test_sources_stand_on_grounds_of_their_own_and_one_answers(sources: list[Sources]) -> None:
    for number, one in enumerate(sources):
        grounds = [scene.ground for scene in one.scenes]
        assert len(set(grounds)) == len(grounds) == SOURCES
        assert list(one.texts) == [f"a photo {PHRASES[ground]}" for ground in grounds]
        assert keeps_to_its_domain(list(one.scenes))
        shown = one.scenes[one.relevant]
        question, answer = one.asked
        assert PHRASES[shown.ground] in question
        if one.topic == "describe":
            assert answer == long_caption(shown)
            continue
        plain = question.replace(f" {PHRASES[shown.ground]}", "")
        assert (plain, answer) in [(asked.question, asked.answer) for asked in questions(shown)]
        # Exactly one other picture has such a toy, and there the answer is another.
        kind = next(toy.kind for toy in shown.toys if f" {toy.kind}" in plain)
        rivals = [toy for scene in one.scenes if scene is not shown for toy in scene.toys if toy.kind == kind]
        assert len(rivals) == 1
        assert answer not in (rivals[0].colour, rivals[0].pattern)
        assert one.topic == ("colour", "pattern", "describe")[number % 3]
    assert set(np.bincount([one.relevant for one in sources], minlength=SOURCES) > COUNT / 6) == {True}


def test_yes_or_no_over_sources_needs_the_relevant_one(sources: list[Sources]) -> None:
    answers = Counter[str]()
    for one in sources:
        question, answer = one.yes_no
        answers[answer] += 1
        shown = one.scenes[one.relevant]
        thing = question.removeprefix("is there ").removesuffix(f" {PHRASES[shown.ground]}?")
        assert answer == ("yes" if is_shown(thing, shown) else "no")
        # Such a toy is in one of the pictures either way.
        assert sum(is_shown(thing, scene) for scene in one.scenes) == 1
    assert answers["yes"] == answers["no"] == COUNT / 2


def test_everything_is_a_function_of_its_number() -> None:
    scene = sample_scene("home", "test", 4)
    for sample in (sample_foursome, sample_reference, sample_sources):
        assert sample("home", "test", 4) == sample("home", "test", 4)
        assert sample("home", "test", 4) != sample("home", "test", 8)
        assert sample("home", "test", 4) != sample("home", "test", 4, seed=1)
        with pytest.raises(ImageSetError, match="home test has scenes 0 to 1999"):
            sample("home", "test", 2_000)
    assert choice_about(scene, 4, split="test") == choice_about(scene, 4, split="test")
    assert yes_no_about(scene, 4, split="test") == yes_no_about(scene, 4, split="test")
    halves = [text_first("home", "train", number) for number in range(200)]
    assert 80 < sum(halves) < 120


def test_what_the_world_said_before_it_still_says() -> None:
    """Captions, questions and stories as they were before there were hard questions (digest of commit ac94023)."""
    said = []
    for domain, split in SPLITS:
        for index in range(10):
            scene, random = sample_scene(domain, split, index), stream(0, domain, split, index, purpose=2)
            asked = [vars(question) for question in questions(scene)]
            told = sample_story(domain, split, index).sentences
            said.append([noisy_caption(scene, random, 0.2), long_caption(scene), asked, told])
    assert digest(said) == "b8551dec9701971deeca83d04d4c9fd3d629228e7b3560c884948e9ed59559f6"
