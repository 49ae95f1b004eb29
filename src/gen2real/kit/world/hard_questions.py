"""What only who looks closely gets right: pictures, captions and questions that differ in one thing.

Each is a pure function of (seed, domain, split, number), from random numbers of its own: pictures, captions and stories
of the same split do not change by them. Wrong and right are told in the same words and forms, as often as each other,
so that nothing but the pictures helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gen2real.kit.world.language import listed, long_caption, name, questions
from gen2real.kit.world.scenes import Scene, Toy, arrange, draw_toy, may_show, sample_scene, scenes_of, stream
from gen2real.kit.world.stories import happens
from gen2real.kit.world.vocabulary import COLOURS, DOMAINS, GROUNDS, KINDS, PATTERNS, DomainName, Split

FOURSOMES = ("colours", "order", "patterns", "sizes")
CHANGES = 4
"""Searches that start from one reference."""
SOURCES = 4
"""Pictures that are shown together, of which one is asked about."""
_FOURSOME, _CHOICE, _YES_NO, _SOURCES, _CHANGE = 4, 5, 6, 7, 8


@dataclass(frozen=True)
class Foursome:
    """Two scenes and their captions, in the same words. category: what is swapped, one of FOURSOMES."""

    scenes: tuple[Scene, Scene]
    captions: tuple[str, str]
    category: str


@dataclass(frozen=True)
class Choice:
    """A question with options, of which the one at `answer` is right."""

    question: str
    options: tuple[str, ...]
    answer: int
    category: str


@dataclass(frozen=True)
class YesNo:
    """A question that is answered yes or no. category: `kind` (POPE's), `colour` or `order`."""

    question: str
    answer: str
    category: str


@dataclass(frozen=True)
class Reference:
    """A scene, and what it may become: sentences and the scenes after them, all different."""

    scene: Scene
    changes: tuple[tuple[str, Scene], ...]


@dataclass(frozen=True)
class Sources:
    """Scenes on different grounds, what is said of each, and what is asked about the one at `relevant`.

    Another of them shows a toy of the same kind in another colour. asked: question and answer in few words, or in
    sentences (`topic`: colour, pattern, describe). yes_no: a question, and whether it is so.
    """

    scenes: tuple[Scene, ...]
    texts: tuple[str, ...]
    relevant: int
    asked: tuple[str, str]
    topic: str
    yes_no: tuple[str, str]


def sample_foursome(domain: DomainName, split: Split, number: int, *, seed: int = 0) -> Foursome:
    """Foursome number `number`, of the category whose turn it is. Raises: ImageSetError as `sample_scene`."""
    place = sample_scene(domain, split, number, seed=seed, toys=2)
    random = stream(seed, domain, split, number, purpose=_FOURSOME)
    category = FOURSOMES[number % len(FOURSOMES)]
    first, second = _two(random, domain)
    if category == "order":
        told = (
            f"{name(first)} to the left of {name(second)}",
            f"{name(second)} to the left of {name(first)}",
        )
        return _foursome(place, (first, second), (second, first), told, category)
    if category == "patterns":
        one, other = (str(pattern) for pattern in random.permutation(PATTERNS[1:])[:2])
        first, second = replace(first, pattern=one), replace(second, pattern=other)
        swapped = replace(first, pattern=other), replace(second, pattern=one)
    elif category == "sizes":
        one, other = (str(size) for size in random.permutation(("small", "large")))
        first, second = replace(first, size=one), replace(second, size=other)
        swapped = replace(first, size=other), replace(second, size=one)
    else:
        swapped = replace(first, colour=second.colour), replace(second, colour=first.colour)
    size, pattern = category == "sizes", category == "patterns"
    one_caption, other_caption = (
        listed([name(toy, size=size, pattern=pattern) for toy in toys]) for toys in ((first, second), swapped)
    )
    return _foursome(place, (first, second), swapped, (one_caption, other_caption), category)


def choice_about(scene: Scene, number: int, *, seed: int = 0, split: Split) -> Choice:
    """A choice about a picture of the split, its scene `number`: of four answers to a question, or of two captions.

    Captions of several toys differ in colours swapped, in the order, or in one toy's colour; of one toy in its colour
    or its kind.
    """
    random = stream(seed, scene.domain, split, number, purpose=_CHOICE)
    if number % 3 == 0:
        return _attribute(scene, random)
    right, wrong, category = _two_captions(scene, random)
    return _shuffled("which caption fits the picture?", right, [wrong], category, random)


def choice_between(foursome: Foursome, number: int, *, seed: int = 0, split: Split) -> Choice:
    """Which of a foursome's two pictures does a caption fit?"""
    random = stream(seed, foursome.scenes[0].domain, split, number, purpose=_CHOICE)
    answer = int(random.integers(2))
    question = f"which picture shows {foursome.captions[answer]}?"
    return Choice(question, ("the first picture", "the second picture"), answer, foursome.category)


def yes_no_about(scene: Scene, number: int, *, seed: int = 0, split: Split) -> list[YesNo]:
    """Questions about a picture of the split, its scene `number`: of each category one that is so and one that is not.

    `colour` asks for a kind that is there in a colour that another toy has, where there are several (POPE's adversarial
    questions: things that go together); `order` is asked where there are two kinds.
    """
    random = stream(seed, scene.domain, split, number, purpose=_YES_NO)
    toys = scene.toys
    kinds = [toy.kind for toy in toys]
    chosen = toys[int(random.integers(len(toys)))]
    absent = str(random.choice([kind for kind in KINDS if kind not in kinds]))
    colour = _other_colour(chosen, toys, scene.domain, random)
    asked = [
        YesNo(f"is there {_a(chosen.kind)}?", "yes", "kind"),
        YesNo(f"is there {_a(absent)}?", "no", "kind"),
        YesNo(f"is there {name(chosen)}?", "yes", "colour"),
        YesNo(f"is there {name(replace(chosen, colour=colour))}?", "no", "colour"),
    ]
    order = [YesNo(one.question, one.answer, "order") for one in questions(scene) if one.topic == "relation"]
    return asked + order[:2]


def sample_reference(domain: DomainName, split: Split, number: int, *, seed: int = 0) -> Reference:
    """Reference number `number`: two toys, and four different things that may happen to them, as in stories.

    Raises: ImageSetError as `sample_scene`.
    """
    place = sample_scene(domain, split, number, seed=seed, toys=2)
    random = stream(seed, domain, split, number, purpose=_CHANGE)
    toys = _two(random, domain)
    found: dict[tuple[tuple[str, str], ...], tuple[str, tuple[Toy, ...]]] = {}
    while len(found) < CHANGES:
        after, sentence = happens(toys, random, domain)
        found.setdefault(tuple((toy.kind, toy.colour) for toy in after), (sentence, after))
    told = [sentence for sentence, _ in found.values()]
    before, *scenes = _scenes(place, [toys, *(after for _, after in found.values())], _CHANGE)
    return Reference(before, tuple(zip(told, scenes, strict=True)))


def sample_sources(domain: DomainName, split: Split, number: int, *, seed: int = 0) -> Sources:
    """Sources number `number`; which of them is asked about is drawn.

    The question of `yes_no` names a toy that stands in one of the pictures whether it is so or not.

    Raises: ImageSetError as `sample_scene`.
    """
    random = stream(seed, domain, split, number, purpose=_SOURCES)
    grounds = [str(ground) for ground in random.permutation(DOMAINS[domain].grounds)[:SOURCES]]
    relevant, rival = (int(place) for place in random.permutation(SOURCES)[:2])
    first, guest = _two(random, domain)
    colours = [c for c in COLOURS if c != first.colour and may_show(domain, first.kind, c)]
    other = replace(first, colour=str(random.choice(colours)), pattern=_other(PATTERNS, first.pattern, random))
    scenes = []
    for place, ground in enumerate(grounds):
        # Different pictures of the split lend their light and camera; its own number is checked, the others wrap.
        other_number = (number + place * 97) % scenes_of(domain, split) if place else number
        lent = sample_scene(domain, split, other_number, seed=seed)
        toys = lent.toys
        if place in (relevant, rival):
            shown = first if place == relevant else other
            toys = (shown, guest) if random.random() < 0.5 else (guest, shown)
        else:
            toys = tuple(toy if toy.kind != first.kind else replace(toy, kind=guest.kind) for toy in toys)
            toys = tuple(toy for toy in toys if may_show(domain, toy.kind, toy.colour)) or (guest,)
        scenes.append(
            replace(arrange(lent, toys), ground=ground, variety=(*lent.variety, 100 * _SOURCES + number * 10 + place))
        )
    where = GROUNDS[grounds[relevant]]
    topic = ("colour", "pattern", "describe")[number % 3]
    asked = {
        "colour": (f"what colour is the {first.kind} {where}?", first.colour),
        "pattern": (f"what pattern does the {first.kind} {where} have?", first.pattern),
        "describe": (f"describe the picture {where} in detail.", long_caption(scenes[relevant])),
    }[topic]
    so = number % 2 == 0
    yes_no = (f"is there {name(first if so else other)} {where}?", "yes" if so else "no")
    texts = tuple(f"a photo {GROUNDS[ground]}" for ground in grounds)
    return Sources(tuple(scenes), texts, relevant, asked, topic, yes_no)


def text_first(domain: DomainName, split: Split, number: int, *, seed: int = 0) -> bool:
    """Whether a story's sentences stand before their pictures; half of all stories' do."""
    return bool(stream(seed, domain, split, number, purpose=9).random() < 0.5)


def _two(random: np.random.Generator, domain: DomainName) -> tuple[Toy, Toy]:
    """Two toys of different kinds and colours, of which each may have the other's colour."""
    while True:
        first, second = draw_toy(random, domain), draw_toy(random, domain)
        differ = first.kind != second.kind and first.colour != second.colour
        if differ and may_show(domain, first.kind, second.colour) and may_show(domain, second.kind, first.colour):
            return first, second


def _foursome(
    place: Scene, toys: tuple[Toy, Toy], others: tuple[Toy, Toy], captions: tuple[str, str], category: str
) -> Foursome:
    one, other = _scenes(place, (toys, others), _FOURSOME)
    return Foursome((one, other), captions, category)


def _scenes(place: Scene, toys: Sequence[tuple[Toy, ...]], purpose: int) -> tuple[Scene, ...]:
    """One place with these toys, each time with another noise of the camera."""
    return tuple(
        replace(arrange(place, own), variety=(*place.variety, 100 * purpose + shot)) for shot, own in enumerate(toys)
    )


def _attribute(scene: Scene, random: np.random.Generator) -> Choice:
    """A question about one toy, and what is so of the others among the options."""
    asked = [one for one in questions(scene) if one.topic in ("colour", "pattern", "kind", "place")]
    if not asked:
        right, wrong, category = _two_captions(scene, random)
        return _shuffled("which caption fits the picture?", right, [wrong], category, random)
    one = asked[int(random.integers(len(asked)))]
    known: dict[str, Sequence[str]] = {"colour": list(COLOURS), "pattern": PATTERNS}
    every = known.get(one.topic, KINDS)
    own = {"colour": [toy.colour for toy in scene.toys], "pattern": [toy.pattern for toy in scene.toys]}
    near = [value for value in own.get(one.topic, [toy.kind for toy in scene.toys]) if value != one.answer]
    rest = [str(value) for value in random.permutation(every) if value != one.answer and value not in near]
    others = [*dict.fromkeys(near), *rest][:3]
    return _shuffled(one.question, one.answer, others, one.topic, random)


def _two_captions(scene: Scene, random: np.random.Generator) -> tuple[str, str, str]:
    """A caption, one that is wrong in one thing, and in which."""
    toys = scene.toys
    place = int(random.integers(len(toys)))
    chosen = toys[place]

    def with_(toy: Toy) -> str:
        return listed([name(one) for one in (*toys[:place], toy, *toys[place + 1 :])])

    right = listed([name(toy) for toy in toys])
    wrong = {"one colour": with_(replace(chosen, colour=_other_colour(chosen, toys, scene.domain, random)))}
    if len(toys) == 1:
        kinds = [kind for kind in KINDS if kind != chosen.kind and may_show(scene.domain, kind, chosen.colour)]
        wrong["one kind"] = with_(replace(chosen, kind=str(random.choice(kinds))))
    pairs: dict[str, str] = {}
    if len(toys) > 1:
        first, second, *others = toys
        swapped = replace(first, colour=second.colour), replace(second, colour=first.colour)
        if first.kind != second.kind and first.colour != second.colour:
            if all(may_show(scene.domain, toy.kind, toy.colour) for toy in swapped):
                wrong["colours"] = listed([name(toy) for toy in (*swapped, *others)])
            if (first.kind, first.colour) not in [(toy.kind, toy.colour) for toy in others]:
                pairs["order"] = f"{name(second)} to the left of {name(first)}"
    category = str(random.choice([*wrong, *pairs]))
    if category == "order":
        return f"{name(toys[0])} to the left of {name(toys[1])}", pairs["order"], category
    return right, wrong[category], category


def _other_colour(toy: Toy, toys: Sequence[Toy], domain: DomainName, random: np.random.Generator) -> str:
    """A colour in which no toy of this kind is there: another toy's, if it may be."""
    taken = [one.colour for one in toys if one.kind == toy.kind]
    can = [colour for colour in COLOURS if colour not in taken and may_show(domain, toy.kind, colour)]
    near = sorted({one.colour for one in toys} & set(can))
    return str(random.choice(near or can))


def _other(values: Sequence[str], value: str, random: np.random.Generator) -> str:
    return str(random.choice([one for one in values if one != value]))


def _shuffled(question: str, right: str, wrong: Sequence[str], category: str, random: np.random.Generator) -> Choice:
    options = [str(option) for option in random.permutation([right, *wrong])]
    return Choice(question, tuple(options), options.index(right), category)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
