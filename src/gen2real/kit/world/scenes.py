"""Scenes: what stands where, in which light, before which camera; a function of seed, domain, split and index."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gen2real.errors import ImageSetError
from gen2real.kit.world.vocabulary import (
    COLOURS,
    DOMAINS,
    HELD_OUT,
    KINDS,
    PATTERNS,
    SIDE,
    SIZES,
    SPLITS,
    DomainName,
    Split,
)

# Half a toy's height in pixels: by how many toys there are, then by size.
_EXTENT = {1: (11.0, 15.5, 21.0), 2: (8.5, 11.5, 15.0), 3: (7.0, 9.0, 11.5)}
# How often a picture has one, two, three toys.
_COUNTS = (0.5, 0.3, 0.2)
_PATTERN_SHARES = (0.55, 0.15, 0.15, 0.15)


@dataclass(frozen=True)
class Toy:
    """One toy. x, y: its centre in pixels from the top left; extent: half its height in pixels; angle: degrees."""

    kind: str
    colour: str
    pattern: str
    size: str
    x: float
    y: float
    extent: float
    angle: float
    mirrored: bool


@dataclass(frozen=True)
class Clutter:
    """A thing out of focus in the background: a rounded bar. Centre and half sizes in pixels, colour from 0 to 1."""

    x: float
    y: float
    width: float
    height: float
    colour: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """A picture before it is taken. Toys stand from left to right; `variety` seeds ground texture and sensor noise."""

    domain: DomainName
    ground: str
    toys: tuple[Toy, ...]
    clutter: tuple[Clutter, ...]
    horizon: float
    light: float
    ambient: float
    warmth: float
    exposure: float
    blur: float
    noise: float
    vignette: float
    variety: tuple[int, ...]

    @property
    def label(self) -> str | None:
        """The kind, where there is one toy only; None where there are several."""
        return self.toys[0].kind if len(self.toys) == 1 else None


def stream(seed: int, domain: DomainName, split: Split, index: int, purpose: int = 0) -> np.random.Generator:
    """Random numbers that belong to one scene.

    purpose: 0 what is in it, 1 its noise, 2 what is said of it, 3 its ground's texture; 4 to 9 `hard_questions`.
    """
    place = list(SPLITS).index((domain, split))
    return np.random.default_rng([seed, place, index, purpose])


def scenes_of(domain: DomainName, split: Split) -> int:
    """How many scenes a split has. Raises: ImageSetError for an unknown domain or split."""
    if (domain, split) not in SPLITS:
        known = ", ".join(" ".join(pair) for pair in SPLITS)
        raise ImageSetError(f"no split {split!r} of domain {domain!r}; there are: {known}.")
    return SPLITS[domain, split]


def sample_scene(
    domain: DomainName, split: Split, index: int, *, seed: int = 0, kind: str | None = None, toys: int | None = None
) -> Scene:
    """Scene number `index` of a split.

    Args:
        kind: makes it a picture of one toy of this kind.
        toys: makes it a picture of so many toys; None: one, two or three.

    Raises: ImageSetError for an unknown domain, split or kind, for an index that is outside the split, for a negative
    seed, for other than one to three toys, and for a kind and several toys at once.
    """
    scenes = scenes_of(domain, split)
    if not 0 <= index < scenes:
        raise ImageSetError(f"{domain} {split} has scenes 0 to {scenes - 1}; {index} is none of them.")
    if seed < 0:
        raise ImageSetError(f"a seed is 0 or more; got {seed}.")
    if kind is not None and kind not in KINDS:
        raise ImageSetError(f"no kind {kind!r}; there are {', '.join(KINDS)}.")
    if toys not in (None, *_EXTENT):
        raise ImageSetError(f"a picture shows 1, 2 or 3 toys; got toys={toys}. Leave it out for a mixture.")
    if kind is not None and toys not in (None, 1):
        raise ImageSetError(f"a picture of a {kind} shows one toy; got toys={toys}. Leave out one of the two.")
    random = stream(seed, domain, split, index)
    settings = DOMAINS[domain]

    def between(limits: tuple[float, float]) -> float:
        return float(random.uniform(*limits))

    count = toys or 1 + int(random.choice(3, p=_COUNTS))
    if kind is not None:
        count = 1
    horizon = between(settings.horizon) * SIDE
    distance = between(settings.distance)
    placed = tuple(_toy(random, domain, kind, place, count, distance) for place in range(count))
    return Scene(
        domain=domain,
        ground=str(random.choice(settings.grounds)),
        toys=placed,
        clutter=tuple(_clutter(random, horizon) for _ in range(int(random.integers(0, settings.clutter + 1)))),
        horizon=horizon,
        light=between(settings.light),
        ambient=between(settings.ambient),
        warmth=between(settings.warmth),
        exposure=between(settings.exposure),
        blur=between(settings.blur),
        noise=between(settings.noise),
        vignette=between(settings.vignette),
        variety=(seed, list(SPLITS).index((domain, split)), index),
    )


def arrange(scene: Scene, toys: tuple[Toy, ...]) -> Scene:
    """The same scene with other toys, from left to right, each moved to its place in the row."""
    moved = []
    for place, toy in enumerate(toys):
        x, y = _place(place, len(toys))
        extent = _EXTENT[len(toys)][SIZES.index(toy.size)]
        moved.append(replace(toy, x=x, y=_standing(y, extent), extent=extent))
    return replace(scene, toys=tuple(moved))


def may_show(domain: DomainName, kind: str, colour: str) -> bool:
    """Whether the domain has toys of this kind in this colour."""
    return DOMAINS[domain].held_out or (kind, colour) not in HELD_OUT


def draw_toy(random: np.random.Generator, domain: DomainName, kind: str | None = None) -> Toy:
    """A toy that the domain may show, not yet placed."""
    while True:
        chosen = kind or str(random.choice(KINDS))
        colour = str(random.choice(list(COLOURS)))
        if may_show(domain, chosen, colour):
            break
    return Toy(
        kind=chosen,
        colour=colour,
        pattern=str(random.choice(PATTERNS, p=_PATTERN_SHARES)),
        size=str(random.choice(SIZES)),
        x=0.0,
        y=0.0,
        extent=0.0,
        angle=float(random.uniform(-1, 1)) * DOMAINS[domain].tilt,
        mirrored=bool(random.random() < 0.5),
    )


def _toy(
    random: np.random.Generator, domain: DomainName, kind: str | None, place: int, count: int, distance: float
) -> Toy:
    toy = draw_toy(random, domain, kind)
    extent = _EXTENT[count][SIZES.index(toy.size)] * distance
    x, y = _place(place, count)
    loose = {1: 9.0, 2: 2.5, 3: 1.2}[count]
    slack = max(0.0, min(loose, SIDE / 2 - extent - 2))
    return replace(
        toy,
        x=x + float(random.uniform(-slack, slack)),
        y=_standing(y + float(random.uniform(-3.0, 3.0)), extent),
        extent=extent,
    )


def _place(place: int, count: int) -> tuple[float, float]:
    """Where the toy's foot stands, in pixels."""
    x = {1: (0.5,), 2: (0.28, 0.72), 3: (0.2, 0.5, 0.8)}[count][place] * SIDE
    y = {1: (0.84,), 2: (0.8, 0.8), 3: (0.8, 0.74, 0.8)}[count][place] * SIDE
    return x, y


def _standing(foot: float, extent: float) -> float:
    """The centre's height, so that the foot stands at `foot` and the top stays in the picture."""
    return max(foot - extent, extent + 2.0)


def _clutter(random: np.random.Generator, horizon: float) -> Clutter:
    hue = random.uniform(0.35, 0.75, 3)
    height = float(random.uniform(4, 13))
    return Clutter(
        x=float(random.uniform(0, SIDE)),
        y=horizon - height * 0.8,
        width=float(random.uniform(2, 7)),
        height=height,
        colour=(float(hue[0]), float(hue[1]), float(hue[2])),
    )
