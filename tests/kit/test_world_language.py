from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from toy_language import (
    COLOURS,
    KINDS,
    NUMBERS,
    PHRASES,
    could_be_true,
    is_true,
    pairs,
    read,
    read_name,
    stands_left,
)

from gen2real.kit.world import HELD_OUT, Scene, caption, hard_negatives, long_caption, noisy_caption, questions
from gen2real.kit.world.language import listed, plural, vocabulary


def numbers(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_captions_are_true(web: list[Scene], home: list[Scene]) -> None:
    for place, scene in enumerate((*web, *home)):
        text = caption(scene, numbers(place))
        assert is_true(read(text), scene), (text, scene.toys)


def test_captions_are_drawn_anew_each_time(web: list[Scene]) -> None:
    random = numbers(0)
    assert len({caption(web[0], random) for _ in range(20)}) > 5
    assert caption(web[0], numbers(3)) == caption(web[0], numbers(3))


def test_captions_say_everything_there_is_to_say(web: list[Scene]) -> None:
    said = [read(caption(scene, numbers(place))) for place, scene in enumerate(web)]
    named = [name for one in said for name in one.names]
    assert {name.kind for name in named} == set(KINDS)
    assert {name.colour for name in named} == {*COLOURS, None}
    assert {name.size for name in named} == {"small", "large", None}
    assert {name.pattern for name in named} == {"striped", "dotted", "checked", None}
    assert {one.relation for one in said} == {"listed", "left of"}


def test_long_captions_are_true_and_leave_nothing_out(web: list[Scene], home: list[Scene]) -> None:
    for scene in (*web, *home):
        first, *rest = re.findall(r"[^.]+\.", long_caption(scene))
        count, ground = re.fullmatch(r"There (?:is|are) (one|two|three) toys? (.+)\.", first).groups()  # type: ignore[union-attr]
        assert (NUMBERS[count], ground) == (len(scene.toys), PHRASES[scene.ground])
        assert len(rest) == len(scene.toys)
        for toy, sentence in zip(scene.toys, rest, strict=True):
            told = re.fullmatch(r" (?:It is (.+)|(.+) is (?:on|in) the (left|middle|right))\.", sentence)
            assert told, sentence
            name = read_name((told[1] or told[2]).lower())
            assert name.fits(toy)
            assert (name.size or "medium", name.pattern or "plain") == (toy.size, toy.pattern)
            if told[3]:
                at = {"left": 0, "middle": (len(scene.toys) - 1) / 2, "right": len(scene.toys) - 1}[told[3]]
                assert scene.toys[int(at)] == toy


def test_hard_negatives_are_false_however_one_reads_them(web: list[Scene], home: list[Scene]) -> None:
    for place, scene in enumerate((*web, *home)):
        wrong = hard_negatives(scene, numbers(place))
        assert len(set(wrong)) == len(wrong) >= (2 if len(scene.toys) == 1 else 3)
        for text in wrong:
            assert not could_be_true(read(text), scene), (text, scene.toys)


def test_hard_negatives_are_wrong_in_one_thing(web: list[Scene]) -> None:
    """One colour, one kind, two colours that changed places, the order, the number."""
    faults: Counter[object] = Counter()
    for place, scene in enumerate(web):
        for text in hard_negatives(scene, numbers(place)):
            said = read(text)
            if said.relation == "count":
                assert said.count == len(scene.toys) - 1
                faults["number"] += 1
            elif said.relation == "left of":
                assert stands_left(said.names[1], said.names[0], scene)
                faults["order"] += 1
            else:
                together = list(zip(said.names, scene.toys, strict=True))
                recoloured = sum(name.colour != toy.colour for name, toy in together)
                recast = sum(name.kind != toy.kind for name, toy in together)
                if (recoloured, recast) not in ((1, 0), (0, 1), (2, 0)):
                    # Of three, where the outer ones are alike, the order is told as a list.
                    first, second, third = said.names
                    assert first == third
                    assert first.fits(scene.toys[1])
                    assert second.fits(scene.toys[0])
                    assert second.fits(scene.toys[2])
                    recoloured = recast = 3
                faults[recoloured, recast] += 1
    assert set(faults) == {"number", "order", (1, 0), (0, 1), (2, 0), (3, 3)}


def test_no_text_of_web_names_a_pair_that_is_held_out(web: list[Scene]) -> None:
    for place, scene in enumerate(web):
        random = numbers(place, 1)
        texts = [caption(scene, random), noisy_caption(scene, random, 1.0), *hard_negatives(scene, random)]
        for text in texts:
            assert not HELD_OUT.intersection(pairs(read(text))), text


def test_texts_of_home_name_them(home: list[Scene]) -> None:
    named = {pair for place, scene in enumerate(home) for pair in pairs(read(caption(scene, numbers(place))))}
    assert named >= HELD_OUT


def test_as_many_captions_are_wrong_as_asked_for(web: list[Scene]) -> None:
    random = numbers(0)
    wrong = [not could_be_true(read(noisy_caption(scene, random, 0.2)), scene) for scene in web]
    assert np.mean(wrong) == pytest.approx(0.2, abs=0.03)


def test_without_noise_it_is_the_plain_caption(web: list[Scene]) -> None:
    assert [noisy_caption(scene, numbers(1), 0) for scene in web[:20]] == [
        caption(scene, numbers(1)) for scene in web[:20]
    ]


def answers(question: str, scene: Scene) -> set[str]:
    """Every answer that could be called right, by looking at the scene."""
    toys = sorted(scene.toys, key=lambda toy: toy.x)
    kinds = [toy.kind for toy in toys]

    def only(kind: str) -> int:
        assert kinds.count(kind) == 1, f"{question}: there is not one {kind}"
        return kinds.index(kind)

    words = {number: word for word, number in NUMBERS.items()}
    rules = {
        r"how many toys are there\?": lambda: {words[len(toys)]},
        r"how many (\w+?) are there\?": lambda kind: {words[kinds.count(kind if kind in KINDS else kind[:-1])]},
        r"what colour is the (\w+)\?": lambda kind: {toys[only(kind)].colour},
        r"what pattern does the (\w+) have\?": lambda kind: {toys[only(kind)].pattern},
        r"what size is the (\w+)\?": lambda kind: {toys[only(kind)].size},
        r"what is this\?": lambda: set(kinds),
        r"what is to the left of the (\w+)\?": lambda kind: set(kinds[: only(kind)]),
        r"what is to the right of the (\w+)\?": lambda kind: set(kinds[only(kind) + 1 :]),
        r"is the (\w+) to the left of the (\w+)\?": lambda a, b: {"yes" if only(a) < only(b) else "no"},
        r"is there an? (\w+)\?": lambda kind: {"yes" if kind in kinds else "no"},
        r"where is this\?": lambda: {PHRASES[scene.ground]},
    }
    for rule, answer in rules.items():
        if found := re.fullmatch(rule, question):
            return answer(*found.groups())
    raise AssertionError(f"no rule for {question!r}")


def test_every_question_has_one_answer_and_it_is_the_one_given(web: list[Scene], home: list[Scene]) -> None:
    topics: Counter[str] = Counter()
    for scene in (*web, *home):
        asked = questions(scene)
        assert len({one.question for one in asked}) == len(asked)
        for one in asked:
            assert answers(one.question, scene) == {one.answer}, (one, [toy.kind for toy in scene.toys])
            topics[one.topic] += 1
    assert set(topics) == {"count", "colour", "pattern", "kind", "size", "place", "relation", "presence", "ground"}


def test_yes_and_no_are_as_frequent(web: list[Scene]) -> None:
    told = Counter(one.answer for scene in web for one in questions(scene) if one.topic in ("relation", "presence"))
    assert told["yes"] == told["no"]


def test_a_tokenizer_sees_every_word_of_web(web: list[Scene]) -> None:
    taught = set(" ".join(vocabulary()).split())
    assert taught >= {*KINDS, *COLOURS, "striped", "dotted", "checked", "small", "large", "mint", "paper"}
    assert not any(phrase in vocabulary() for phrase in ("on a lawn", "on a wooden table"))


def test_words_are_joined_and_multiplied_as_in_english() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert [plural(kind) for kind in ("fish", "star", "umbrella")] == ["fish", "stars", "umbrellas"]
