"""The task `story-retrieval`: the last picture of a story, found from its captions, or from earlier pictures as well.

The protocol of FROMAGe (Koh et al. 2023, arXiv 2301.13823), which Sugar reports on VIST: a query is
caption₁, picture₁, …, caption₄, picture₄, caption₅; the gallery is every picture of the file. "†" in the papers' tables
is the same without the story's own earlier pictures, here `…_unseen`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from gen2real.errors import ImageSetError
from gen2real.evaluation.target_ranks import Gallery, Search, search
from gen2real.evaluation.tasks import TaskInput, TaskScores
from gen2real.imagesets.interleaved import Interleaved, read_interleaved

_SHOWN = 20


@dataclass(frozen=True)
class Story:
    """Pictures and a caption of each, in order; at least two."""

    id: str
    captions: tuple[str, ...]
    pictures: tuple[Path, ...]

    @property
    def told(self) -> list[str | Path]:
        """The query of captions alone."""
        return [" ".join(self.captions)]

    @property
    def shown(self) -> list[str | Path]:
        """The query of captions and earlier pictures: each caption before its picture, the last one without."""
        parts: list[str | Path] = []
        for caption, picture in zip(self.captions, self.pictures[:-1], strict=False):
            parts += [f" {caption} " if parts else f"{caption} ", picture]
        return [*parts, f" {self.captions[-1]}"]


def read_stories(path: Path) -> list[Story]:
    """Documents in which pictures and texts take turns, as `read_interleaved` reads them.

    Where a document begins with a picture, a picture's caption follows it; else it stands before it.

    Raises: ImageSetError for samples that are not such, all of them told; and as `read_interleaved`.
    """
    found: list[Story] = []
    faults: list[str] = []
    for sample in read_interleaved(path):
        story = _story(sample)
        if isinstance(story, Story):
            found.append(story)
        else:
            faults.append(f"  {sample.id}: {story}")
    if faults:
        more = [f"  … and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise ImageSetError(
            "\n".join([f"{path}: {len(faults)} sample(s) are no stories to search for:", *faults[:_SHOWN], *more])
        )
    return found


def measure_story_retrieval(given: TaskInput) -> TaskScores:
    """Recall at 1, 5 and 10 of stories' last pictures, an item a story.

    Measures: `captions_recall@k` and `story_recall@k` (captions and earlier pictures), and both as `…_unseen_recall@k`,
    without the story's own earlier pictures in the gallery.

    Raises: ImageSetError with every fault of the file; ModelError; Unreadable.
    """
    stories = list(given.first(read_stories(given.path)))
    gallery = Gallery.of([picture for story in stories for picture in story.pictures])
    pictures = given.embed([[picture] for picture in gallery.pictures])
    targets = [gallery.rows[story.pictures[-1]] for story in stories]
    earlier = [[gallery.rows[picture] for picture in story.pictures[:-1]] for story in stories]
    asked: dict[str, Sequence[list[str | Path]]] = {
        "captions": [story.told for story in stories],
        "story": [story.shown for story in stories],
    }
    found: dict[str, Search] = {}
    for name, queries in asked.items():
        embedded = given.embed(queries)
        found[name] = search(embedded, pictures, targets)
        found[f"{name}_unseen"] = search(embedded, pictures, targets, without=earlier)
    values = {key: own for name, one in found.items() for key, own in one.recalls(name).items()}
    details = {"stories": len(stories), **{name: one.told() for name, one in found.items()}}
    best = found["story_unseen"]
    samples = [
        {
            "id": story.id,
            "pictures": [str(picture) for picture in story.pictures[:-1]],
            "question": " ".join(story.captions),
            "references": [str(story.pictures[-1])],
            "answer": str(gallery.pictures[first]),
            "score": float(rank == 1),
            "rank": int(rank),
        }
        for story, first, rank in zip(stories, best.first, best.ranks, strict=True)
    ]
    return TaskScores(values, details, samples)


def _story(sample: Interleaved) -> Story | str:
    if not sample.is_document:
        return "it is a conversation; a story is a document, without answers"
    parts = [part if isinstance(part, Path) else part.strip() for part in sample.parts]
    parts = [part for part in parts if part != ""]
    pictures = tuple(part for part in parts if isinstance(part, Path))
    captions = tuple(part for part in parts if isinstance(part, str))
    turns = all(isinstance(one, Path) != isinstance(other, Path) for one, other in pairwise(parts))
    if not turns or len(pictures) != len(captions):
        return f"{len(pictures)} pictures and {len(captions)} texts do not take turns, one text to each picture"
    if len(pictures) < 2:
        return "it has one picture; a story has two at least"
    return Story(sample.id, captions, pictures)
