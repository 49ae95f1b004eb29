"""The plan: one row a picture, each a pure function of the settings and the source's content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gen2real.files import digest
from gen2real.generation.settings import GenerateConfig
from gen2real.generation.sources import Subject, read_subjects
from gen2real.imagesets.manifest import ClassName

# Exactly representable wherever a manifest may be read, in JSON and in a spreadsheet too.
_SEED_BITS = 53


@dataclass(frozen=True)
class PlannedPicture:
    """One picture to draw.

    generator: index into the settings' generators. wording: which of its subject's prompts it has.
    """

    id: str
    prompt: str
    generator: int
    label: str | None = None
    wording: int = 0
    caption_row: int | None = None
    pair_id: str | None = None


@dataclass(frozen=True)
class Plan:
    """Every picture of a generation, and the classes of its set."""

    pictures: tuple[PlannedPicture, ...]
    classes: tuple[ClassName, ...]

    @property
    def fingerprint(self) -> str:
        """Of every row: tells that the source's content has changed where its path has not."""
        return digest([[one.id, one.prompt, one.label, one.generator, one.pair_id] for one in self.pictures])

    def share(self, place: int, count: int) -> list[PlannedPicture]:
        """The pictures of process number `place` of `count`: by a hash of the id, so that no process asks another."""
        return [one for one in self.pictures if _hash(one.id) % count == place]


def make_plan(config: GenerateConfig) -> Plan:
    """Every picture of `config`, in the order of the source.

    The pictures of a subject take its wordings in turn; each wording is dealt to the generators in turn.

    Raises: what `read_subjects` raises.
    """
    subjects, classes = read_subjects(config)
    generators = len(config.generators)
    pictures = []
    for place, subject in enumerate(subjects):
        # A subject of one wording may have one picture; the next one then goes to the next generator.
        first = place * subject.count if len(subject.prompts) == 1 else 0
        pictures += [_picture(subject, number, first + number, generators) for number in range(subject.count)]
    return Plan(tuple(pictures), tuple(classes))


def seed_of(seed: int, picture_id: str, redraw: int = 0) -> int:
    """The seed of one picture, and of its redraws: a function of the run's seed and the picture's id alone."""
    return _hash(f"{seed}\0{picture_id}\0{redraw}") >> (64 - _SEED_BITS)


def ordered(pictures: Iterable[PlannedPicture]) -> list[PlannedPicture]:
    """Equal prompts side by side, so that each is encoded once."""
    return sorted(pictures, key=lambda one: (one.prompt, one.id))


def _picture(subject: Subject, number: int, turn: int, generators: int) -> PlannedPicture:
    wording = turn // generators % len(subject.prompts)
    return PlannedPicture(
        id=f"{subject.stem}{'/' if subject.caption_row is None else '-'}{number:05d}",
        prompt=subject.prompts[wording],
        generator=turn % generators,
        label=subject.label,
        wording=wording,
        caption_row=subject.caption_row,
        pair_id=subject.pair_id,
    )


def columns_of(picture: PlannedPicture) -> dict[str, Any]:
    """What the plan knows of a row of the manifest."""
    return {
        "id": picture.id,
        "origin": "generated",
        "label": picture.label,
        "captions": [picture.prompt],
        "pair_id": picture.pair_id,
        "prompt": picture.prompt,
        "wording": picture.wording,
        "caption_row": picture.caption_row,
    }


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])
