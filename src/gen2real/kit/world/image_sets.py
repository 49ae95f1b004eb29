"""A split of the world as an image set on disk, with questions about its pictures beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from gen2real.errors import ImageSetError
from gen2real.files import sha256_of
from gen2real.imagesets import ImageSet
from gen2real.imagesets.manifest import MANIFEST, ClassName
from gen2real.imagesets.questions import QUESTIONS, write_questions
from gen2real.kit.world.language import long_caption, noisy_caption, questions
from gen2real.kit.world.render import render
from gen2real.kit.world.scenes import Scene, sample_scene, scenes_of, stream
from gen2real.kit.world.vocabulary import DOMAINS, KINDS, DomainName, Split

_AT_A_TIME = 256


def write_image_set(
    root: Path,
    domain: DomainName,
    split: Split,
    count: int,
    *,
    seed: int = 0,
    toys: int | None = None,
    captions: int = 1,
    on_progress: Callable[[int], None] | None = None,
) -> ImageSet:
    """Renders the first `count` scenes of a split and writes them as an image set of real pictures.

    The label is the toy's kind where there is one toy; captions are as the domain has them (`web`: some are wrong),
    and the column `long_caption` is always right. Columns `kinds`, `colours` and `ground` hold what is in the picture.
    `questions.jsonl` beside the manifest holds every question of `questions` about each picture, for `read_questions`.

    Args:
        toys: so many in every picture; None: one, two or three.
        captions: short captions of each picture.
        on_progress: told how many pictures are done.

    Raises: ImageSetError, before anything is written, where the split has fewer scenes or `root` holds a manifest, and
    as `sample_scene`.
    """
    _check(root, domain, split, count, captions)
    rows: list[dict[str, Any]] = []
    asked: list[dict[str, Any]] = []
    (root / "images").mkdir(parents=True, exist_ok=True)
    for start in range(0, count, _AT_A_TIME):
        numbers = range(start, min(start + _AT_A_TIME, count))
        scenes = [sample_scene(domain, split, number, seed=seed, toys=toys) for number in numbers]
        for number, scene, picture in zip(numbers, scenes, render(scenes), strict=True):
            path = root / "images" / f"{number:06d}.png"
            Image.fromarray(picture).save(path, compress_level=1)
            random = stream(seed, domain, split, number, purpose=2)
            told = [noisy_caption(scene, random, DOMAINS[domain].caption_noise) for _ in range(captions)]
            rows.append(_row(f"{domain}-{split}-{number:06d}", path, scene, told))
            asked += _asked(rows[-1], scene)
        if on_progress is not None:
            on_progress(numbers[-1] + 1)
    write_questions(root / QUESTIONS, asked)
    return ImageSet.write(root, rows, [ClassName(kind, kind) for kind in KINDS])


def _check(root: Path, domain: DomainName, split: Split, count: int, captions: int) -> None:
    scenes = scenes_of(domain, split)
    if not 1 <= count <= scenes:
        raise ImageSetError(f"{domain} {split} has {scenes} scenes; a set takes 1 to {scenes} of them, not {count}.")
    if captions < 0:
        raise ImageSetError(f"a picture has 0 captions or more; got {captions}.")
    if (root / MANIFEST).exists():
        raise ImageSetError(f"{root / MANIFEST} exists and is never rewritten. Choose another folder.")


def _row(id: str, path: Path, scene: Scene, captions: list[str]) -> dict[str, Any]:
    return {
        "id": id,
        "path": f"images/{path.name}",
        "origin": "real",
        "label": scene.label,
        "captions": captions,
        "sha256": sha256_of(path),
        "kept": True,
        "long_caption": long_caption(scene),
        "kinds": [toy.kind for toy in scene.toys],
        "colours": [toy.colour for toy in scene.toys],
        "ground": scene.ground,
    }


def _asked(row: dict[str, Any], scene: Scene) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{row['id']}-{number}",
            # As a path it is found with the image set and without.
            "image": row["path"],
            "question": one.question,
            "answer": one.answer,
            "topic": one.topic,
        }
        for number, one in enumerate(questions(scene))
    ]
