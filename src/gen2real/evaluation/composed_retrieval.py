"""The task `composed-retrieval`: a picture and what is to be different find another picture, as of CIRR and FashionIQ.

    {"image": "a.png", "text": "the same, but blue", "target": "b.png"}

The gallery is every picture of the file, references too; a query's own reference is left out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gen2real.evaluation.statistics import bootstrap_interval
from gen2real.evaluation.target_ranks import Gallery, search
from gen2real.evaluation.task_files import Values, read_items
from gen2real.evaluation.tasks import TaskInput, TaskScores, by_item
from gen2real.imagesets.json_lines import Fault, PictureFiles, id_of, text_of

_EXAMPLE = '{"image": "a.png", "text": "the same, but blue", "target": "b.png"}'


@dataclass(frozen=True)
class Change:
    """A reference, what is to be different, and the picture that is meant."""

    id: str
    picture: Path
    text: str
    target: Path


def read_changes(path: Path) -> list[Change]:
    """Raises: ImageSetError with every fault and its line, and for an empty file."""
    return read_items(path, _change, example=_EXAMPLE, what="search")


def measure_composed_retrieval(given: TaskInput) -> TaskScores:
    """`composed_recall@1`, `@5` and `@10`, an item the queries from one reference.

    `details` has the same of the reference alone and of the text alone: what does not beat both composes nothing.

    Raises: ImageSetError with every fault of the file; ModelError; Unreadable.
    """
    items = list(given.first(read_changes(given.path)))
    gallery = Gallery.of([picture for one in items for picture in (one.picture, one.target)])
    pictures = given.embed([[picture] for picture in gallery.pictures])
    references, targets = [gallery.rows[one.picture] for one in items], [gallery.rows[one.target] for one in items]
    queries = {
        "composed": given.embed([[one.picture, f" {one.text}"] for one in items]),
        "reference alone": pictures[references],
        "text alone": given.embed([[one.text] for one in items]),
    }
    own = [[row] for row in references]
    found = {name: search(embedded, pictures, targets, without=own) for name, embedded in queries.items()}
    composed = found.pop("composed")
    asked = [(one.picture,) for one in items]
    values = {name: by_item(own, asked) for name, own in composed.recalls("composed").items()}
    controls = {
        name: {key: bootstrap_interval(by_item(own, asked)).to_json() for key, own in one.recalls().items()}
        for name, one in found.items()
    }
    samples = [
        {
            "id": one.id,
            "pictures": [str(one.picture)],
            "question": one.text,
            "references": [str(one.target)],
            "answer": str(gallery.pictures[first]),
            "score": float(rank == 1),
            "rank": int(rank),
        }
        for one, first, rank in zip(items, composed.first, composed.ranks, strict=True)
    ]
    details = {"queries": len(items), **composed.told(), "controls": controls}
    return TaskScores(values, details, samples)


def _change(values: Values, number: int, files: PictureFiles) -> Change:
    picture, target = files.find(text_of(values, "image")), files.find(text_of(values, "target"))
    if picture == target:
        raise Fault("'image' and 'target' are one file; a reference is never its own target")
    return Change(id_of(values, number), picture, text_of(values, "text"), target)
