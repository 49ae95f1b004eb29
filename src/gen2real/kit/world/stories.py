"""Stories: three to six pictures of one place, each with a sentence of what happened."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gen2real.kit.world.language import name
from gen2real.kit.world.scenes import Scene, Toy, arrange, draw_toy, sample_scene, stream
from gen2real.kit.world.vocabulary import DomainName, Split


@dataclass(frozen=True)
class Story:
    """Scenes and sentences, one for one, in the order they happen."""

    scenes: tuple[Scene, ...]
    sentences: tuple[str, ...]


def sample_story(domain: DomainName, split: Split, index: int, *, seed: int = 0) -> Story:
    """Story number `index`: toys come, go, change places and are painted; ground, light and camera stay.

    A toy that is already there is `the red ball`, one that comes `a red ball`; every sentence is true of its picture.
    No two toys of a picture have both kind and colour in common, so it is clear which one is meant.

    Raises: ImageSetError as `sample_scene`.
    """
    first = sample_scene(domain, split, index, seed=seed, toys=1)
    random = stream(seed, domain, split, index, purpose=2)
    toys: tuple[Toy, ...] = first.toys
    scenes = [arrange(first, toys)]
    sentences = [f"Once there was {name(toys[0])}."]
    for step in range(1, int(random.integers(3, 7))):
        toys, sentence = happens(toys, random, domain)
        # The camera's noise is another one in every picture.
        scenes.append(replace(arrange(first, toys), variety=(*first.variety, step)))
        sentences.append(sentence)
    return Story(tuple(scenes), tuple(sentences))


def happens(toys: tuple[Toy, ...], random: np.random.Generator, domain: DomainName) -> tuple[tuple[Toy, ...], str]:
    """The toys after something happened to them, from left to right and not yet placed, and a sentence of what."""
    can = ["paint"]
    can += ["come", "come"] if len(toys) < 3 else []
    can += ["go", "swap"] if len(toys) > 1 else []
    match can[int(random.integers(len(can)))]:
        case "come":
            guest = _stranger(toys, random, domain)
            if random.random() < 0.5:
                return (guest, *toys), f"{name(guest).capitalize()} came from the left."
            return (*toys, guest), f"{name(guest).capitalize()} came from the right."
        case "go":
            place = int(random.integers(len(toys)))
            return (*toys[:place], *toys[place + 1 :]), f"{_the(toys[place])} went away."
        case "swap":
            first, last = toys[0], toys[-1]
            between = toys[1:-1]
            return (last, *between, first), f"{_the(first)} and {_the(last).lower()} changed places."
        case _:
            place = int(random.integers(len(toys)))
            old = toys[place]
            new = replace(old, colour=_stranger(toys, random, domain, old.kind).colour)
            return (*toys[:place], new, *toys[place + 1 :]), f"{_the(old)} was painted {new.colour}."


def _stranger(toys: tuple[Toy, ...], random: np.random.Generator, domain: DomainName, kind: str | None = None) -> Toy:
    """A toy that is none of `toys` by kind and colour."""
    taken = {(toy.kind, toy.colour) for toy in toys}
    while True:
        guest = draw_toy(random, domain, kind)
        if (guest.kind, guest.colour) not in taken:
            return guest


def _the(toy: Toy) -> str:
    return f"The {name(toy, article=False)}"
