"""One look at every picture file: does it decode, does it show anything, and what are its perceptual hashes?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.curation.search import Codes
from gen2real.imagesets.decoding import decode, is_blank, over_pictures
from gen2real.imagesets.hashing import perceptual_hash_views
from gen2real.models.dual_encoder import DualEncoder

MIDDLE = 0.9
SAMPLE = 256


@dataclass(frozen=True)
class Looks:
    """Of N pictures: `faults`, why one does not decode (None where it does); `blank` bool [N]; `hashes` [N 4] of text,
    empty where it does not decode: the picture's, its mirror image's, its middle's, and the mirrored middle's."""

    faults: list[str | None]
    blank: np.ndarray[tuple[int], np.dtype[np.bool_]]
    hashes: list[tuple[str, str, str, str]]

    @property
    def clear(self) -> list[int]:
        """Rows of pictures that decode and show something."""
        return [row for row, fault in enumerate(self.faults) if fault is None and not self.blank[row]]

    def codes(self, rows: Sequence[int], view: int) -> Codes:
        """One view's hashes of some rows as uint64."""
        return np.array([int(self.hashes[row][view], 16) for row in rows], dtype=np.uint64)


def look_at(paths: Sequence[Path], *, workers: int = 4) -> Looks:
    """Decodes every picture once."""

    def look(path: Path) -> tuple[bool, tuple[str, str, str, str]]:
        picture = decode(path)
        return is_blank(np.asarray(picture)), perceptual_hash_views(picture, middle=MIDDLE)

    faults: list[str | None] = []
    blank: list[bool] = []
    hashes: list[tuple[str, str, str, str]] = []
    for found in over_pictures(look, paths, workers=workers):
        failed = isinstance(found, str)
        faults.append(found if failed else None)
        blank.append(False if failed else found[0])
        hashes.append(("", "", "", "") if failed else found[1])
    return Looks(faults, np.array(blank, dtype=bool), hashes)


def same_picture_cosine(
    encoder: DualEncoder, paths: Sequence[Path], features: Tensor, different: Tensor | None, *, batch_size: int = 64
) -> float:
    """From which cosine on two pictures are one to this encoder, whose cosines mean nothing by themselves.

    It is the median cosine between a picture and its own middle (nine tenths of each side); or, where an encoder sees
    too little for that, the cosine that only one picture in a hundred reaches with a picture that is surely another.
    Of at most 256 pictures, evenly spread.

    features: [N D] of the pictures. different: bool [K N], for the K = len(sample_of(N)) sampled pictures which of all
        are surely other ones; None: not known.
    """
    rows = sample_of(len(paths))
    crops = []
    for start in range(0, len(rows), batch_size):
        crops.append(_encode_middles(encoder, [paths[row] for row in rows[start : start + batch_size]]))
    own, unit = normalize(features[rows], dim=-1), normalize(features, dim=-1)
    limit = float((normalize(torch.cat(crops), dim=-1) * own).sum(dim=-1).median())
    if different is not None and different.any():
        nearest = (own @ unit.T).masked_fill(~different, -1.0).amax(dim=1)
        limit = max(limit, float(nearest.quantile(0.99)))
    return limit


def sample_of(count: int) -> Tensor:
    """Int64 [≤ 256]: the rows that `same_picture_cosine` looks at."""
    return torch.linspace(0, count - 1, min(count, SAMPLE)).long()


@torch.no_grad()
def _encode_middles(encoder: DualEncoder, paths: Sequence[Path]) -> Tensor:
    pixels = torch.stack([encoder.preprocess.geometry(_middle(decode(path))) for path in paths])
    return encoder.encode_image(encoder.preprocess.normalize(pixels.to(encoder.logit_scale.device))).float().cpu()


def _middle(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    left, top = round(width * (1 - MIDDLE) / 2), round(height * (1 - MIDDLE) / 2)
    return picture.crop((left, top, width - left, height - top))
