"""Pictures of an evaluation set among those to train on: the same file, the same hash, or the same to an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gen2real.curation.looking import Looks, look_at
from gen2real.curation.rules import Leaks
from gen2real.curation.search import ROUNDING, Index, hamming_pairs, nearest_cosine
from gen2real.errors import ImageSetError
from gen2real.imagesets.manifest import ImageSet

PLAIN, MIRRORED, MIDDLE, MIRRORED_MIDDLE = range(4)
# (view of a picture to train on, view of an evaluation picture). Either may be a crop of the other; which of the two
# was mirrored makes no difference.
VIEWS = (
    (PLAIN, PLAIN), (PLAIN, MIRRORED), (PLAIN, MIDDLE), (PLAIN, MIRRORED_MIDDLE), (MIDDLE, PLAIN), (MIDDLE, MIRRORED),
)  # fmt: skip
_WORDS = ("", "mirrored", "cropped", "cropped and mirrored", "cropped", "cropped and mirrored")


@dataclass(frozen=True)
class EvaluationPictures:
    """The pictures of one evaluation set that decode: what they look like and their features. Labels are not read."""

    name: str
    image_set: ImageSet
    looks: Looks
    features: Tensor

    @classmethod
    def of(cls, path: Path, encode: Callable[[ImageSet], Tensor]) -> EvaluationPictures:
        """The set at `path`; `encode` gives features [N D] of a set's pictures. Raises: ImageSetError for none."""
        whole = ImageSet.read(path).kept()
        looks = look_at(whole.paths)
        if not looks.clear:
            raise ImageSetError(f"none of the {len(whole)} pictures of the evaluation set {path} can be read.")
        clear = whole.select(looks.clear)
        return cls(str(path), clear, looks, encode(clear))


def find_leaks(
    count: int,
    place: Index,
    seen: ImageSet,
    features: Tensor,
    looks: Looks,
    evaluation: Sequence[EvaluationPictures],
    *,
    bits: int,
    cosine: float,
) -> Leaks:
    """Which pictures are in an evaluation set: byte for byte, by hash, or by the encoder.

    count: rows of the whole set. place: int64 [N], the row of each picture of `seen`. features: [N D]. looks: of the
    rows that were looked at, `seen` being the clear ones. bits: by which hashes may differ, of the picture as it is,
    mirrored, its middle, and that mirrored. cosine: from which on two pictures are the same to the encoder.
    """
    ids = [row for tested in evaluation for row in tested.image_set.ids]
    names = [tested.name for tested in evaluation for _ in range(len(tested.image_set))]
    nearest, value = nearest_cosine(features, torch.cat([tested.features for tested in evaluation]))
    reasons: list[str | None] = [
        f"cosine {found:.4f} to {ids[other]} of {names[other]}, from {cosine:.4f} on the same picture"
        if found >= cosine - ROUNDING
        else None
        for other, found in zip(nearest, value, strict=True)
    ]
    distance = np.full(len(seen), 65, dtype=np.int64)
    for (own, theirs), words in zip(VIEWS, _WORDS, strict=True):
        tested_codes = np.concatenate([tested.looks.codes(tested.looks.clear, theirs) for tested in evaluation])
        for pairs in hamming_pairs(looks.codes(looks.clear, own), tested_codes, radius=bits):
            for row, other, differing in zip(*(part.tolist() for part in pairs), strict=True):
                if differing < distance[row]:
                    distance[row], nearest[row] = differing, other
                    value[row] = _cosine(features[row], evaluation, other)
                    like = f"{words} " if words else ""
                    reasons[row] = f"{differing} bits from {like}{ids[other]} of {names[other]}, up to {bits} the same"
    tested_hashes = [one for tested in evaluation for one in tested.image_set.table["sha256"].to_pylist()]
    file_of = {one: other for other, one in reversed(list(enumerate(tested_hashes))) if one}
    for row, own_hash in enumerate(seen.table["sha256"].to_pylist()):
        if own_hash in file_of:
            other = file_of[own_hash]
            nearest[row], distance[row], value[row] = other, 0, 1.0
            reasons[row] = f"the same file as {ids[other]} of {names[other]}"
    return _spread(count, place, nearest, value, distance, reasons, ids, names)


def _cosine(row: Tensor, evaluation: Sequence[EvaluationPictures], other: int) -> float:
    for tested in evaluation:
        if other < len(tested.features):
            return float(torch.nn.functional.cosine_similarity(row, tested.features[other], dim=0))
        other -= len(tested.features)
    raise AssertionError("a row of no set")


def _spread(
    count: int,
    place: Index,
    nearest: Index,
    value: np.ndarray[tuple[int], np.dtype[np.float64]],
    distance: Index,
    reasons: Sequence[str | None],
    ids: Sequence[str],
    names: Sequence[str],
) -> Leaks:
    whole = Leaks(
        [None] * count, [None] * count, np.full(count, np.nan), np.full(count, -1, dtype=np.int64), [None] * count
    )
    whole.cosine[place] = value
    whole.bits[place] = np.where(distance <= 64, distance, -1)
    for row, other, reason in zip(place.tolist(), nearest.tolist(), reasons, strict=True):
        whole.ids[row], whole.sets[row], whole.reasons[row] = ids[other], names[other], reason
    return whole
