"""Features as points on a plane: principal components that several sets share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize


@dataclass(frozen=True, eq=False)
class Plane:
    """points: name → [N 2]. explained: the share of all variance along each of the two axes."""

    points: dict[str, Tensor]
    explained: tuple[float, float]


def common_plane(features: Mapping[str, Float[Tensor, "_ d"]]) -> Plane:
    """The first two principal components of several sets of features [N D] together, and every row's place there.

    Rows are taken at unit length, as a cosine sees them. One pair of axes for all sets makes distances within and
    between them comparable; its signs are fixed by the largest entry of each axis.

    Raises ValueError for no rows.
    """
    unit = {name: normalize(value.detach().cpu().double(), dim=1) for name, value in features.items()}
    rows = torch.cat(list(unit.values()))
    if not len(rows):
        raise ValueError("a plane needs at least one row of features")
    mean = rows.mean(dim=0)
    axes, explained = _axes(rows - mean)
    return Plane({name: ((value - mean) @ axes).float() for name, value in unit.items()}, explained)


def sample_rows(count: int, most: int, seed: int = 0) -> Tensor:
    """At most `most` of `count` row numbers, in order; the same ones for the same arguments."""
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]
    return chosen.sort().values.to(torch.int32)


def _axes(centred: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """[D 2] unit vectors; zero where the rows do not span that many directions."""
    # The eigenvectors of the covariance, the largest last; D is the width of an encoder, a thousand or so.
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    found = torch.zeros(len(values), 2, dtype=centred.dtype)
    shares: Sequence[float] = [0.0, 0.0]
    total = float(values.clamp(min=0).sum())
    if total > 0:
        best = vectors.flip(1)[:, :2]
        largest = best.gather(0, best.abs().argmax(dim=0, keepdim=True))
        found[:, : best.shape[1]] = best * largest.sign()
        shares = [*(values.flip(0)[:2].clamp(min=0) / total).tolist(), 0.0]
    return found, (shares[0], shares[1])
