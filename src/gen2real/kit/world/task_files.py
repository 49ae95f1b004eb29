"""Stories and hard questions of a split as files, beside the pictures of its image set: what multimodal models are
taught and asked (`evaluation/tasks.py`).

    stories.jsonl       documents (`read_interleaved`), their pictures in stories/; sentences first in half of them
    winoground.jsonl    foursomes, in winoground/
    choices.jsonl       options: about the set's own pictures, and which of a foursome's two a caption fits
    yes-no.jsonl        about the set's own pictures
    composed.jsonl      four searches from each reference, in composed/
    knowledge.jsonl     one of four pictures of different grounds is asked about, in sources/
    position.jsonl      the same pictures, answered yes or no
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from gen2real.errors import ImageSetError
from gen2real.imagesets.importers.samples import document
from gen2real.imagesets.interleaved import MARK, write_interleaved
from gen2real.imagesets.json_lines import write_json_lines
from gen2real.kit.world.hard_questions import (
    CHANGES,
    choice_about,
    choice_between,
    sample_foursome,
    sample_reference,
    sample_sources,
    text_first,
    yes_no_about,
)
from gen2real.kit.world.render import render
from gen2real.kit.world.scenes import Scene, sample_scene, scenes_of
from gen2real.kit.world.stories import sample_story
from gen2real.kit.world.vocabulary import DomainName, Split

STORIES = "stories.jsonl"
TASK_FILES = {
    "winoground": "winoground.jsonl",
    "choice": "choices.jsonl",
    "yes-no": "yes-no.jsonl",
    "composed-retrieval": "composed.jsonl",
    "knowledge": "knowledge.jsonl",
    "position": "position.jsonl",
}
"""A task's name → its file."""
_AT_A_TIME = 256

Line = dict[str, Any]


def check_count(domain: DomainName, split: Split, count: int, what: str) -> None:
    """Raises: ImageSetError for more stories or questions than the split has scenes."""
    scenes = scenes_of(domain, split)
    if not 0 <= count <= scenes:
        raise ImageSetError(f"{domain} {split} has {scenes} scenes, so there are 0 to {scenes} {what}, not {count}.")


def check_questions(domain: DomainName, split: Split, count: int, pictures: int) -> None:
    """Raises: ImageSetError as `check_count`, and for more hard questions than pictures that they are about."""
    check_count(domain, split, count, "hard questions")
    if count > pictures:
        raise ImageSetError(
            f"{count} hard questions are about as many pictures, and there are {pictures}. Render as many: "
            f"--count {count}"
        )


def write_stories(root: Path, domain: DomainName, split: Split, count: int, *, seed: int = 0) -> Path:
    """The first `count` stories of a split as documents; pictures in `stories/`. Returns the file.

    Raises: ImageSetError as `check_count`.
    """
    check_count(domain, split, count, "stories")
    files = _Files(root)
    samples = []
    for number in range(count):
        story = sample_story(domain, split, number, seed=seed)
        paths = [files.add(f"stories/{number:06d}-{shot}.png", scene) for shot, scene in enumerate(story.scenes)]
        last = text_first(domain, split, number, seed=seed)
        told = [f"{sentence} {MARK}" if last else f"{MARK} {sentence}" for sentence in story.sentences]
        pictures = [root / path for path in paths]
        samples.append(document(f"{domain}-{split}-story-{number:06d}", " ".join(told), pictures))
    files.finish()
    write_interleaved(root / STORIES, samples)
    return root / STORIES


def write_tasks(
    root: Path, domain: DomainName, split: Split, count: int, *, seed: int = 0, toys: int | None = None
) -> list[Path]:
    """The first `count` hard questions of each kind (yes or no: those about the first `count` pictures).

    Args:
        root: where `write_image_set` wrote the split's first `count` pictures at least, with the same seed and toys.

    Returns: the files of `TASK_FILES`.
    Raises: ImageSetError as `check_count`, and where pictures are missing.
    """
    there = next((number for number in range(count) if not (root / _own(number)).is_file()), count)
    check_questions(domain, split, count, there)
    files = _Files(root)
    lines: dict[str, list[Line]] = {task: [] for task in TASK_FILES}
    for number in range(count):
        for task, line in _lines(files, domain, split, number, count, seed, toys):
            lines[task].append({"id": f"{domain}-{split}-{len(lines[task]):06d}", **line})
    files.finish()
    for task, name in TASK_FILES.items():
        write_json_lines(root / name, lines[task])
    return [root / name for name in TASK_FILES.values()]


def _lines(
    files: _Files, domain: DomainName, split: Split, number: int, count: int, seed: int, toys: int | None
) -> Iterator[tuple[str, Line]]:
    scene = sample_scene(domain, split, number, seed=seed, toys=toys)
    foursome = sample_foursome(domain, split, number, seed=seed)
    pair = [files.add(f"winoground/{number:06d}-{shot}.png", one) for shot, one in enumerate(foursome.scenes)]
    yield "winoground", {"images": pair, "captions": list(foursome.captions), "category": foursome.category}

    if number % 3 == 2:
        shown, choice = pair, choice_between(foursome, number, split=split, seed=seed)
    else:
        shown, choice = [_own(number)], choice_about(scene, number, split=split, seed=seed)
    options: Line = {"options": list(choice.options), "answer": choice.answer, "category": choice.category}
    yield "choice", {"images": shown, "question": choice.question, **options}

    for one in yes_no_about(scene, number, split=split, seed=seed):
        asked = {"question": one.question, "answer": one.answer, "category": one.category}
        yield "yes-no", {"image": _own(number), **asked}

    if number % CHANGES == 0:
        reference = sample_reference(domain, split, number, seed=seed)
        before = files.add(f"composed/{number:06d}-0.png", reference.scene)
        for shot, (sentence, after) in enumerate(reference.changes[: count - number], start=1):
            target = files.add(f"composed/{number:06d}-{shot}.png", after)
            yield "composed-retrieval", {"image": before, "text": sentence, "target": target}

    sources = sample_sources(domain, split, number, seed=seed)
    paths = [files.add(f"sources/{number:06d}-{shot}.png", one) for shot, one in enumerate(sources.scenes)]
    pairs = [{"image": path, "text": text} for path, text in zip(paths, sources.texts, strict=True)]
    question, answer = sources.asked
    yield "knowledge", {"question": question, "answer": answer, "facts": pairs, "category": sources.topic}
    question, answer = sources.yes_no
    yield "position", {"question": question, "answer": answer, "pairs": pairs, "relevant": sources.relevant}


def _own(number: int) -> str:
    return f"images/{number:06d}.png"


class _Files:
    """Scenes that become pictures, many at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.waiting: list[tuple[str, Scene]] = []

    def add(self, path: str, scene: Scene) -> str:
        self.waiting.append((path, scene))
        if len(self.waiting) == _AT_A_TIME:
            self.finish()
        return path

    def finish(self) -> None:
        paths = [self.root / path for path, _ in self.waiting]
        for folder in {path.parent for path in paths}:
            folder.mkdir(parents=True, exist_ok=True)
        if paths:
            for path, picture in zip(paths, render([scene for _, scene in self.waiting]), strict=True):
                Image.fromarray(picture).save(path, compress_level=1)
        self.waiting = []
