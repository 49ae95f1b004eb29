from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from toy_language import read_name

from gen2real.errors import ImageSetError
from gen2real.kit.world import HELD_OUT, Story, Toy, render, sample_story

STORIES = 300


@pytest.fixture(scope="module", params=["web", "home"])
def stories(request: pytest.FixtureRequest) -> list[Story]:
    return [sample_story(request.param, "test", index) for index in range(STORIES)]


def looks(toy: Toy) -> tuple[str, str]:
    return toy.kind, toy.colour


def named(text: str) -> tuple[str, str]:
    name = read_name(text.lower())
    assert name.colour is not None
    return name.kind, name.colour


def happens(sentence: str, before: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What stands there after a sentence, read without looking at the pictures."""
    if found := re.fullmatch(r"(An? .+) came from the (left|right)\.", sentence):
        guest = named(found[1])
        return [guest, *before] if found[2] == "left" else [*before, guest]
    if found := re.fullmatch(r"(The .+) went away\.", sentence):
        return [one for one in before if one != named(found[1])]
    if found := re.fullmatch(r"(The .+) and (the .+) changed places\.", sentence):
        a, b = named(found[1]), named(found[2])
        return [{a: b, b: a}.get(one, one) for one in before]
    found = re.fullmatch(r"(The .+) was painted (\w+)\.", sentence)
    assert found, sentence
    old = named(found[1])
    return [(old[0], found[2]) if one == old else one for one in before]


def test_every_sentence_is_true_of_its_picture(stories: list[Story]) -> None:
    for story in stories:
        found = re.fullmatch(r"Once there was (.+)\.", story.sentences[0])
        assert found
        there = [named(found[1])]
        assert [looks(toy) for toy in story.scenes[0].toys] == there
        for scene, sentence in zip(story.scenes[1:], story.sentences[1:], strict=True):
            after = happens(sentence, there)
            assert after != there, sentence
            there = after
            assert [looks(toy) for toy in sorted(scene.toys, key=lambda toy: toy.x)] == there, sentence


def test_three_to_six_pictures_with_one_to_three_toys(stories: list[Story]) -> None:
    sizes = Counter(len(story.scenes) for story in stories)
    assert set(sizes) == {3, 4, 5, 6}
    assert min(sizes.values()) > STORIES / 8
    assert {len(scene.toys) for story in stories for scene in story.scenes} == {1, 2, 3}
    assert all(len(story.sentences) == len(story.scenes) for story in stories)


def test_it_is_always_clear_which_toy_is_meant(stories: list[Story]) -> None:
    for story in stories:
        for scene in story.scenes:
            assert len({looks(toy) for toy in scene.toys}) == len(scene.toys)


def test_what_is_held_out_is_in_home_only(stories: list[Story]) -> None:
    shown = {looks(toy) for story in stories for scene in story.scenes for toy in scene.toys}
    assert bool(shown & HELD_OUT) == (stories[0].scenes[0].domain == "home")


def test_the_place_stays(stories: list[Story]) -> None:
    for story in stories:
        assert len({(scene.ground, scene.light, scene.exposure, scene.horizon) for scene in story.scenes}) == 1


def test_what_is_painted_stays_as_it_stood(stories: list[Story]) -> None:
    for story in stories:
        for before, after, sentence in zip(story.scenes, story.scenes[1:], story.sentences[1:], strict=False):
            if " was painted " in sentence:
                (changed,) = [(a, b) for a, b in zip(before.toys, after.toys, strict=True) if a != b]
                assert {key for key, value in vars(changed[0]).items() if vars(changed[1])[key] != value} == {"colour"}


def test_the_ground_looks_the_same_in_every_picture() -> None:
    """Far from the toys only the sensor's noise differs: by no more than it differs within a picture."""
    story = next(
        story
        for story in (sample_story("home", "train", index) for index in range(100))
        if story.scenes[0].ground == "tiled floor" and len(story.scenes) > 3
    )
    corners = render(story.scenes)[:, 56:, :4].astype(float).mean((1, 2))
    assert np.ptp(corners, axis=0).max() < 4
    wall = render(story.scenes)[:, :4].astype(float).mean((1, 2))
    assert np.ptp(wall, axis=0).max() < 2


def test_a_story_is_a_function_of_its_number() -> None:
    assert sample_story("web", "train", 5) == sample_story("web", "train", 5)
    assert sample_story("web", "train", 5) != sample_story("web", "train", 5, seed=1)
    with pytest.raises(ImageSetError, match="home test has scenes 0 to 1999"):
        sample_story("home", "test", 2_000)
