from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict

import pytest
from toy_language import PHRASES

from gen2real.errors import Gen2RealError
from gen2real.kit.world import COLOURS, DOMAINS, HELD_OUT, KINDS, PATTERNS, SIDE, SIZES, SPLITS, Scene, sample_scene
from gen2real.kit.world.vocabulary import HOME_GROUNDS, WEB_GROUNDS


def words(scene: Scene) -> list[object]:
    """What is in a scene, numbers to three places."""
    return json.loads(json.dumps(asdict(scene)), parse_float=lambda text: f"{float(text):.3f}")


def test_the_same_number_is_the_same_scene(web: list[Scene]) -> None:
    assert sample_scene("web", "train", 7) == web[7]
    assert sample_scene("web", "train", 7, seed=1) != web[7]


def test_scenes_are_those_that_were_fixed(web: list[Scene], home: list[Scene]) -> None:
    """Whoever changes this changes every number that was ever measured on the kit."""
    text = json.dumps([words(scene) for scene in (*web[:50], *home[:50])])
    assert hashlib.sha256(text.encode()).hexdigest() == GOLDEN


GOLDEN = "7f9bed9ec377baa3bf3e6c13dd9eb62c620c257531b858047dd3cb1562ab0bb7"


def test_no_two_splits_have_a_scene_in_common() -> None:
    known = Counter(
        (scene.toys, scene.light, scene.exposure)
        for domain, split in SPLITS
        for scene in (sample_scene(domain, split, index) for index in range(300))
    )
    assert len(known) == 300 * len(SPLITS)


def test_the_world_is_as_large_as_it_says() -> None:
    assert (len(KINDS), len(COLOURS), len(PATTERNS), len(SIZES), SIDE) == (18, 8, 4, 3, 64)
    assert {**WEB_GROUNDS, **HOME_GROUNDS} == PHRASES
    assert not set(WEB_GROUNDS) & set(HOME_GROUNDS)


def test_two_colours_of_each_kind_are_held_out() -> None:
    assert Counter(kind for kind, _ in HELD_OUT) == dict.fromkeys(KINDS, 2)
    assert set(Counter(colour for _, colour in HELD_OUT).values()) == {4, 5}


def test_web_never_shows_what_is_held_out(web: list[Scene]) -> None:
    shown = {(toy.kind, toy.colour) for scene in web for toy in scene.toys}
    assert shown == {(kind, colour) for kind in KINDS for colour in COLOURS} - HELD_OUT
    assert {scene.ground for scene in web} == set(WEB_GROUNDS)


@pytest.mark.parametrize("kind", KINDS)
def test_web_never_shows_what_is_held_out_where_the_kind_is_asked_for(kind: str) -> None:
    colours = {sample_scene("web", "test", index, kind=kind).toys[0].colour for index in range(60)}
    assert not {(kind, colour) for colour in colours} & HELD_OUT
    assert len(colours) == len(COLOURS) - 2


def test_home_shows_every_pair_on_grounds_of_its_own(home: list[Scene]) -> None:
    assert {(toy.kind, toy.colour) for scene in home for toy in scene.toys} == {
        (kind, colour) for kind in KINDS for colour in COLOURS
    }
    assert {scene.ground for scene in home} == set(HOME_GROUNDS)


def test_every_pattern_and_size_is_shown(web: list[Scene], home: list[Scene]) -> None:
    for scenes in (web, home):
        assert {(toy.pattern, toy.size) for scene in scenes for toy in scene.toys} == {
            (pattern, size) for pattern in PATTERNS for size in SIZES
        }


def test_half_the_pictures_have_one_toy(web: list[Scene]) -> None:
    counts = Counter(len(scene.toys) for scene in web)
    assert counts[1] / len(web) == pytest.approx(0.5, abs=0.04)
    assert counts[2] / len(web) == pytest.approx(0.3, abs=0.04)
    assert counts[3] / len(web) == pytest.approx(0.2, abs=0.04)


def test_the_label_is_the_kind_of_a_toy_that_is_alone(web: list[Scene]) -> None:
    for scene in web:
        assert scene.label == (scene.toys[0].kind if len(scene.toys) == 1 else None)


def test_toys_stand_in_the_picture_from_left_to_right(web: list[Scene], home: list[Scene]) -> None:
    """A toy alone has room around it; the square about one of several may reach over the edge by two pixels."""
    for scene in (*web, *home):
        spare = 2.0 if len(scene.toys) == 1 else -2.0
        for toy in scene.toys:
            sides = (toy.x - toy.extent, SIDE - toy.x - toy.extent, toy.y - toy.extent, SIDE - toy.y - toy.extent)
            assert min(sides) >= spare, (scene.variety, toy)
        places = [toy.x for toy in scene.toys]
        assert places == sorted(places)


def test_camera_and_light_stay_in_the_domains_limits(web: list[Scene], home: list[Scene]) -> None:
    names = ("warmth", "exposure", "ambient", "light", "blur", "noise", "vignette")
    for scene in (*web, *home):
        domain = DOMAINS[scene.domain]
        for name in names:
            least, most = getattr(domain, name)
            assert least <= getattr(scene, name) <= most
        assert domain.horizon[0] <= scene.horizon / SIDE <= domain.horizon[1]
        assert len(scene.clutter) <= domain.clutter
        assert all(abs(toy.angle) <= domain.tilt for toy in scene.toys)


@pytest.mark.parametrize("toys", [1, 2, 3])
def test_so_many_toys_as_asked_for(toys: int) -> None:
    assert all(len(sample_scene("home", "train", index, toys=toys).toys) == toys for index in range(20))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "moon"}, "no split 'train' of domain 'moon'; there are: web train, web validation"),
        ({"split": "dev"}, "no split 'dev' of domain 'home'"),
        ({"index": 500}, "home train has scenes 0 to 499; 500 is none of them"),
        ({"index": -1}, "scenes 0 to 499; -1 is none of them"),
        ({"kind": "dog"}, "no kind 'dog'; there are ball, block"),
        ({"toys": 4}, "shows 1, 2 or 3 toys; got toys=4"),
        ({"toys": 0}, "shows 1, 2 or 3 toys; got toys=0"),
        ({"toys": 2, "kind": "cat"}, "a picture of a cat shows one toy; got toys=2"),
        ({"seed": -1}, "a seed is 0 or more; got -1"),
    ],
)
def test_a_mistake_is_told_with_what_there_is(arguments: dict[str, object], message: str) -> None:
    given = {"domain": "home", "split": "train", "index": 0, **arguments}
    with pytest.raises(ValueError) as caught:
        sample_scene(given.pop("domain"), given.pop("split"), given.pop("index"), **given)  # type: ignore[arg-type]
    assert isinstance(caught.value, Gen2RealError)
    assert message in str(caught.value)
