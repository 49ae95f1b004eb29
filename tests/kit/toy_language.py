"""A little reader of the kit's captions, written from what they should mean and not from the code that makes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from gen2real.kit.world import Scene, Toy

KINDS = [
    "ball",
    "block",
    "boat",
    "car",
    "cat",
    "cup",
    "duck",
    "fish",
    "flower",
    "heart",
    "house",
    "moon",
    "mushroom",
    "ring",
    "rocket",
    "star",
    "tree",
    "umbrella",
]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white"]
NUMBERS = {"one": 1, "two": 2, "three": 3}
PHRASES = {
    "white studio": "on a white background",
    "grey studio": "on a grey background",
    "cream studio": "on a cream background",
    "mint studio": "on a mint background",
    "sky studio": "on a light blue background",
    "striped paper": "on striped paper",
    "dotted paper": "on dotted paper",
    "wooden table": "on a wooden table",
    "tiled floor": "on a tiled floor",
    "checked cloth": "on a checked tablecloth",
    "woollen rug": "on a woollen rug",
    "lawn": "on a lawn",
    "bed sheet": "on a bed sheet",
}
_NAME = re.compile(
    rf"(a|an|the) (?:(small|large) )?(?:(striped|dotted|checked) )?(?:({'|'.join(COLOURS)}) )?({'|'.join(KINDS)})"
)


@dataclass(frozen=True)
class Name:
    """What is said of one toy; None where nothing is."""

    size: str | None
    pattern: str | None
    colour: str | None
    kind: str

    def fits(self, toy: Toy) -> bool:
        """Whether the toy is all that is said."""
        said = (self.size, self.pattern, self.colour, self.kind)
        return all(a in (None, b) for a, b in zip(said, (toy.size, toy.pattern, toy.colour, toy.kind), strict=True))


@dataclass(frozen=True)
class Reading:
    """A caption taken apart. relation: `listed`, `left of` (the first name stands left of the second), or `count`."""

    names: tuple[Name, ...]
    relation: str
    count: int | None
    ground: str | None


def read_name(text: str) -> Name:
    """`a small red ball` taken apart. Raises: AssertionError where it is not English of the kit."""
    found = _NAME.fullmatch(text)
    assert found, f"not the name of a toy: {text!r}"
    article, size, pattern, colour, kind = found.groups()
    vowel = text.split(" ", 1)[1][0] in "aeiou"
    assert article == "the" or article == ("an" if vowel else "a"), text
    return Name(size, pattern, colour, kind)


def read(caption: str) -> Reading:
    """A short caption taken apart. Raises: AssertionError where it is not English of the kit."""
    body = re.sub(r"^a (photo|picture) of ", "", caption)
    ground = next((name for name, phrase in PHRASES.items() if body.endswith(f" {phrase}")), None)
    if ground is not None:
        body = body.removesuffix(f" {PHRASES[ground]}")
    if found := re.fullmatch(r"(one|two|three) toy(s?)", body):
        assert (found[1] == "one") == (found[2] == ""), caption
        return Reading((), "count", NUMBERS[found[1]], ground)
    for words, order in ((" to the left of ", 1), (" to the right of ", -1)):
        if words in body:
            left, right = body.split(words)[::order]
            return Reading((read_name(left), read_name(right)), "left of", None, ground)
    names = tuple(read_name(part) for part in re.split(r", | and ", body))
    return Reading(names, "listed", None, ground)


def is_true(said: Reading, scene: Scene) -> bool:
    """As a caption of the whole picture: a list names every toy, from left to right."""
    if said.ground not in (None, scene.ground):
        return False
    if said.relation == "count":
        return said.count == len(scene.toys)
    if said.relation == "left of":
        return stands_left(said.names[0], said.names[1], scene)
    together = zip(said.names, scene.toys, strict=False)
    return len(said.names) == len(scene.toys) and all(name.fits(toy) for name, toy in together)


def could_be_true(said: Reading, scene: Scene) -> bool:
    """As leniently as one can read it: a list names some of the toys, in any order."""
    if said.relation != "listed":
        return is_true(said, scene)
    if said.ground not in (None, scene.ground) or len(said.names) > len(scene.toys):
        return False
    return any(
        all(name.fits(toy) for name, toy in zip(said.names, chosen, strict=True))
        for chosen in permutations(scene.toys, len(said.names))
    )


def stands_left(left: Name, right: Name, scene: Scene) -> bool:
    """Whether any toy that is called `left` stands left of any that is called `right`."""
    by_place = sorted(scene.toys, key=lambda toy: toy.x)
    return any(left.fits(a) and right.fits(b) for i, a in enumerate(by_place) for b in by_place[i + 1 :])


def pairs(said: Reading) -> Sequence[tuple[str, str]]:
    """Kind and colour of each toy that is named with both."""
    return [(name.kind, name.colour) for name in said.names if name.colour is not None]
