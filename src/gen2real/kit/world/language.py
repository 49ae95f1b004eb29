"""What can be said of a scene: captions, questions with answers, and captions that are wrong in one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from gen2real.kit.world.scenes import Scene, Toy, draw_toy, may_show
from gen2real.kit.world.vocabulary import COLOURS, GROUNDS, KINDS, PATTERNS, SIZES, WEB_GROUNDS

NUMBERS = ("no", "one", "two", "three")
_OPENINGS = ("", "a photo of ", "a picture of ", "")


@dataclass(frozen=True)
class Question:
    """A question about a picture and its one right answer, in lower case. topic: colour, count, place, …"""

    question: str
    answer: str
    topic: str


def name(toy: Toy, *, size: bool = False, pattern: bool = False, article: bool = True) -> str:
    """`a small striped red ball`; medium and plain are never said."""
    words = [
        *([toy.size] if size and toy.size != "medium" else []),
        *([toy.pattern] if pattern and toy.pattern != "plain" else []),
        toy.colour,
        toy.kind,
    ]
    phrase = " ".join(words)
    return f"{_article(phrase)} {phrase}" if article else phrase


def caption(scene: Scene, random: np.random.Generator) -> str:
    """One short caption, true of the scene; what it mentions is drawn by chance.

    `a red ball`, `a photo of a small striped red ball on a mint background`, `a red ball to the left of a blue car`.
    """
    size, pattern = bool(random.random() < 0.5), bool(random.random() < 0.6)
    names = [name(toy, size=size, pattern=pattern) for toy in scene.toys]
    opening = _OPENINGS[int(random.integers(len(_OPENINGS)))]
    if len(names) == 1 and random.random() < 0.15:
        body = f"{_article(scene.toys[0].kind)} {scene.toys[0].kind}"
    elif len(names) == 2 and random.random() < 0.5:
        body = _beside(names[0], names[1], reverse=bool(random.random() < 0.5))
    else:
        body = listed(names)
    ground = f" {GROUNDS[scene.ground]}" if random.random() < 0.4 else ""
    return f"{opening}{body}{ground}"


def long_caption(scene: Scene) -> str:
    """Everything there is to see, in two or more sentences."""
    toys = scene.toys
    described = [name(toy, size=True, pattern=True) for toy in toys]
    ground = GROUNDS[scene.ground]
    if len(toys) == 1:
        return f"There is one toy {ground}. It is {described[0]}."
    places = ("left", "right") if len(toys) == 2 else ("left", "middle", "right")
    where = [
        f"{described[index]} {'is in the' if place == 'middle' else 'is on the'} {place}"
        for index, place in enumerate(places)
    ]
    count = f"There are {NUMBERS[len(toys)]} toys {ground}."
    return " ".join([count, *(_sentence(f"{sentence}.") for sentence in where)])


def noisy_caption(scene: Scene, random: np.random.Generator, noise: float) -> str:
    """A short caption as found on the web: with probability `noise` something in it is wrong.

    Half of the wrong ones differ in one thing (see `hard_negatives`), half are of another toy, drawn by chance: one in
    a hundred of these is right after all.
    """
    if noise == 0 or random.random() >= noise:
        return caption(scene, random)
    if random.random() < 0.5:
        wrong = hard_negatives(scene, random)
        return wrong[int(random.integers(len(wrong)))]
    stranger = draw_toy(random, scene.domain)
    return f"{_OPENINGS[int(random.integers(len(_OPENINGS)))]}{name(stranger)}"


def hard_negatives(scene: Scene, random: np.random.Generator) -> list[str]:
    """Captions that are wrong in one thing: another colour, another kind; for several toys also attributes swapped,
    the order swapped, one too few. None names a toy that the scene's domain never shows, and none is true by chance.
    """
    toys = scene.toys
    place = int(random.integers(len(toys)))
    chosen = toys[place]
    others = {(toy.kind, toy.colour) for toy in toys}
    colours = [c for c in COLOURS if (chosen.kind, c) not in others and may_show(scene.domain, chosen.kind, c)]
    kinds = [k for k in KINDS if (k, chosen.colour) not in others and may_show(scene.domain, k, chosen.colour)]
    recoloured = replace(chosen, colour=str(random.choice(colours)))
    recast = replace(chosen, kind=str(random.choice(kinds)))
    wrong = [_told((*toys[:place], changed, *toys[place + 1 :])) for changed in (recoloured, recast)]
    if len(toys) > 1:
        first, second = toys[0], toys[1]
        swapped = replace(first, colour=second.colour), replace(second, colour=first.colour)
        differ = first.colour != second.colour and first.kind != second.kind
        if differ and all(may_show(scene.domain, toy.kind, toy.colour) for toy in swapped):
            wrong.append(_told((*swapped, *toys[2:])))
        if (first.kind, first.colour) != (second.kind, second.colour):
            # Where the third is like the first, the second does stand to the left of such a one.
            again = (first.kind, first.colour) in [(toy.kind, toy.colour) for toy in toys[2:]]
            order = _told((second, first, second)) if again else f"{name(second)} to the left of {name(first)}"
            wrong.append(order)
        wrong.append(f"{NUMBERS[len(toys) - 1]} toy{'s' if len(toys) > 2 else ''} {GROUNDS[scene.ground]}")
    return wrong


def questions(scene: Scene) -> list[Question]:
    """All questions that have one right answer in this scene, in a fixed order.

    A kind that is there twice is not asked about as `the ball`; what is to the left of a toy is asked where it is one.
    """
    toys = scene.toys
    kinds = [toy.kind for toy in toys]
    asked = [Question("how many toys are there?", NUMBERS[len(toys)], "count")]
    for toy in toys:
        if kinds.count(toy.kind) > 1:
            continue
        asked += [
            Question(f"what colour is the {toy.kind}?", toy.colour, "colour"),
            Question(f"what pattern does the {toy.kind} have?", toy.pattern, "pattern"),
        ]
    if len(toys) == 1:
        asked += [
            Question("what is this?", toys[0].kind, "kind"),
            Question(f"what size is the {toys[0].kind}?", toys[0].size, "size"),
        ]
    if len(toys) > 1 and kinds.count(kinds[1]) == 1:
        asked.append(Question(f"what is to the left of the {kinds[1]}?", kinds[0], "place"))
    if len(toys) > 1 and kinds.count(kinds[-2]) == 1:
        asked.append(Question(f"what is to the right of the {kinds[-2]}?", kinds[-1], "place"))
    for left, right in pairwise(toys):
        if kinds.count(left.kind) == kinds.count(right.kind) == 1:
            asked += [
                Question(f"is the {left.kind} to the left of the {right.kind}?", "yes", "relation"),
                Question(f"is the {right.kind} to the left of the {left.kind}?", "no", "relation"),
            ]
    absent = KINDS[(KINDS.index(kinds[0]) + 7) % len(KINDS)]
    while absent in kinds:
        absent = KINDS[(KINDS.index(absent) + 1) % len(KINDS)]
    asked += [
        Question(f"is there {_article(kinds[0])} {kinds[0]}?", "yes", "presence"),
        Question(f"is there {_article(absent)} {absent}?", "no", "presence"),
        Question("where is this?", GROUNDS[scene.ground], "ground"),
    ]
    for kind in sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        asked.append(Question(f"how many {plural(kind)} are there?", NUMBERS[kinds.count(kind)], "count"))
    return asked


def vocabulary() -> list[str]:
    """Every toy by size, pattern, colour and kind, every ground of `web`, every plural: a tokenizer can be trained on
    these and on captions."""
    looks = [f"{size} {pattern} {colour}" for size in SIZES for pattern in PATTERNS for colour in COLOURS]
    things = [f"a {look} {kind}" for look in looks for kind in KINDS]
    return [*things, *WEB_GROUNDS.values(), *(plural(kind) for kind in KINDS)]


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def plural(kind: str) -> str:
    """More than one of a kind."""
    return kind if kind == "fish" else f"{kind}s"


def _told(toys: Sequence[Toy]) -> str:
    return listed([name(toy) for toy in toys])


def _beside(left: str, right: str, *, reverse: bool) -> str:
    return f"{right} to the right of {left}" if reverse else f"{left} to the left of {right}"


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
