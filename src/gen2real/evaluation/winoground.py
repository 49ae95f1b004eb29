"""The task `winoground`: two pictures and two captions of the same words; which belongs to which?

    {"images": ["a.png", "b.png"], "captions": ["a cube on a ball", "a ball on a cube"]}

Thrush et al., "Winoground", CVPR 2022, arXiv 2204.03162, equations 1 to 3: s(C, I) says how well a caption fits.

    text   s(C₀, I₀) > s(C₁, I₀)  and  s(C₁, I₁) > s(C₀, I₁)
    image  s(C₀, I₀) > s(C₀, I₁)  and  s(C₁, I₁) > s(C₁, I₀)
    group  both

By chance alone these are 1/4, 1/4 and 1/6.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import ModelError
from gen2real.evaluation.retrieval import TIE
from gen2real.evaluation.statistics import bootstrap_interval
from gen2real.evaluation.task_files import Values, category_of, filled_texts, read_items
from gen2real.evaluation.tasks import TaskInput, TaskScores
from gen2real.imagesets.json_lines import Fault, PictureFiles, id_of

CHANCE = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}
_EXAMPLE = '{"images": ["a.png", "b.png"], "captions": ["a cube on a ball", "a ball on a cube"]}'


@dataclass(frozen=True)
class Twins:
    """Two pictures and their captions, in the same order. category: for a table of its own, or empty."""

    id: str
    pictures: tuple[Path, Path]
    captions: tuple[str, str]
    category: str


def read_twins(path: Path) -> list[Twins]:
    """Raises: ImageSetError with every fault and its line, and for an empty file."""
    return read_items(path, _twins, example=_EXAMPLE, what="foursome")


def winoground_scores(similarity: Float[Tensor, "n 2 2"]) -> dict[str, npt.NDArray[np.float64]]:
    """`text`, `image` and `group` → [N], 1 where right.

    Args:
        similarity: [N, caption, picture]. Ties (within `retrieval.TIE`) are wrong.

    Raises: ModelError for other shapes and values that are not finite.
    """
    if similarity.ndim != 3 or similarity.shape[1:] != (2, 2) or not bool(similarity.isfinite().all()):
        raise ModelError(f"winoground needs finite similarities [N 2 2]; got {list(similarity.shape)}, or NaN.")
    s = similarity.detach().cpu().double()
    text = (s[:, 0, 0] > s[:, 1, 0] + TIE) & (s[:, 1, 1] > s[:, 0, 1] + TIE)
    image = (s[:, 0, 0] > s[:, 0, 1] + TIE) & (s[:, 1, 1] > s[:, 1, 0] + TIE)
    return {name: right.double().numpy() for name, right in (("text", text), ("image", image), ("group", text & image))}


def measure_winoground(given: TaskInput) -> TaskScores:
    """`text`, `image` and `group`, an item a foursome; s is the cosine of a caption's and a picture's embedding.

    `details`: chance, and the three by category where the file has some.

    Raises: ImageSetError with every fault of the file; ModelError; Unreadable.
    """
    items = list(given.first(read_twins(given.path)))
    pictures = normalize(given.embed([[picture] for one in items for picture in one.pictures]).float(), dim=1)
    captions = normalize(given.embed([[caption] for one in items for caption in one.captions]).float(), dim=1)
    similarity = captions.unflatten(0, (-1, 2)) @ pictures.unflatten(0, (-1, 2)).transpose(1, 2)
    values = winoground_scores(similarity)
    categories = sorted({one.category for one in items} - {""})
    by_category = {
        category: {
            name: bootstrap_interval(own[[one.category == category for one in items]]).to_json()
            for name, own in values.items()
        }
        for category in categories
    }
    samples = [
        {
            "id": one.id,
            "pictures": [str(picture) for picture in one.pictures],
            "question": " / ".join(one.captions),
            "references": list(one.captions),
            "answer": _told(own.tolist()),
            "score": float(values["group"][place]),
        }
        for place, (one, own) in enumerate(zip(items, similarity, strict=True))
    ]
    details = {"foursomes": len(items), "chance": dict(CHANCE), **({"categories": by_category} if categories else {})}
    return TaskScores(values, details, samples)


def _told(similarity: list[list[float]]) -> str:
    return "; ".join(
        f"caption {caption + 1}: " + ", ".join(f"{value:.3f}" for value in own)
        for caption, own in enumerate(similarity)
    )


def _twins(values: Values, number: int, files: PictureFiles) -> Twins:
    names, captions = filled_texts(values, "images"), filled_texts(values, "captions")
    if len(names) != 2 or len(captions) != 2:
        raise Fault(f"it needs two images and two captions; got {len(names)} and {len(captions)}")
    first, second = (files.find(name) for name in names)
    return Twins(id_of(values, number), (first, second), (captions[0], captions[1]), category_of(values))
