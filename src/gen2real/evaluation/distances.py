"""Distances between two sets of features, generated and real: symbols as in their papers, computed in float64.

Every function takes [N D] and [M D] of the same encoder and raises as `check_pair` does: ImageSetError for fewer than
two pictures on a side, ModelError for unequal widths and for non-finite features.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.evaluation.two_sample import check_pair

# Rows of a kernel or distance matrix that are held at once.
_ROWS = 2048


@dataclass(frozen=True)
class KernelDistance:
    """mean, std: of the unbiased squared MMD over subsets. Its expectation is 0 for equal sources, so it may be < 0."""

    mean: float
    std: float
    subsets: int
    subset_size: int

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True)
class Frechet:
    """distance = shift + spread: the squared shift of the mean, and the difference of the covariances.

    chance_shift, chance_spread: about what sets of this size have when both come from one source. Only the excess says
    anything of a gap.
    """

    distance: float
    shift: float
    spread: float
    chance_shift: float
    chance_spread: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class ModalityGap:
    """distance: between the two centroids of unit-length features, in [0, 2]. cosine: between those centroids."""

    distance: float
    cosine: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class PrecisionRecall:
    """precision: share of generated pictures that lie where real ones do. recall: share of real ones that the generated
    set covers. neighbours: k."""

    precision: float
    recall: float
    neighbours: int

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


def frechet_distance(generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> float:
    """‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of two Gaussians (Heusel et al. 2017); FID's formula on any features.

    Biased upwards, by more the fewer the pictures, and often by more than the distance itself: `frechet` says by how
    much. Compare only numbers from equally many pictures. `kernel_distance` has no such bias.
    """
    return sum(_frechet_terms(*_checked(generated, real)))


def frechet(generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"], *, seed: int = 0) -> Frechet:
    """`frechet_distance`, its two terms, and how much of each sets of this size have by chance.

    Chance shift: Tr Σ₁ / N + Tr Σ₂ / M, the expectation. Chance spread: that of the pictures of both sets, each
    centred, pooled and dealt out anew (once, with `seed`) to two sets of N and M.
    """
    x, y = _checked(generated, real)
    shift, spread = _frechet_terms(x, y)
    chance_shift = float(x.var(dim=0).sum() / len(x) + y.var(dim=0).sum() / len(y))
    # A set of N, centred, has (N − 1)/N of its variance; without making up for it the chance would come out too low.
    pool = torch.cat([(side - side.mean(dim=0)) * (len(side) / (len(side) - 1)) ** 0.5 for side in (x, y)])
    dealt = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)).to(pool.device)
    _, chance_spread = _frechet_terms(pool[dealt[: len(x)]], pool[dealt[len(x) :]])
    return Frechet(shift + spread, shift, spread, chance_shift, chance_spread)


def kernel_distance(
    generated: Float[Tensor, "n d"],
    real: Float[Tensor, "m d"],
    *,
    subsets: int = 100,
    subset_size: int = 1_000,
    seed: int = 0,
) -> KernelDistance:
    """The unbiased squared MMD with kernel k(x, y) = (x·y / D + 1)³, averaged over random subsets.

    KID's formula (Bińkowski et al. 2018) on any features. `subset_size` is cut to the smaller set; if both sets are
    used up there is one subset.
    """
    x, y = _checked(generated, real)
    size = min(subset_size, len(x), len(y))
    if size < 2 or subsets < 1:
        raise ValueError(f"need subset_size >= 2 and subsets >= 1; got {subset_size} and {subsets}")
    if size == len(x) == len(y):
        subsets = 1
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(subsets, dtype=torch.float64)
    for index in range(subsets):
        chosen_x = x[torch.randperm(len(x), generator=generator)[:size].to(x.device)]
        chosen_y = y[torch.randperm(len(y), generator=generator)[:size].to(y.device)]
        k_xx, k_yy, k_xy = (
            cubic_kernel(p, q) for p, q in ((chosen_x, chosen_x), (chosen_y, chosen_y), (chosen_x, chosen_y))
        )
        # Σ_{i≠j} k(x_i, x_j) / (m(m−1)) + Σ_{i≠j} k(y_i, y_j) / (m(m−1)) − 2 Σ_{ij} k(x_i, y_j) / m²
        within = (k_xx.sum() - k_xx.trace() + k_yy.sum() - k_yy.trace()) / (size * (size - 1))
        values[index] = within - 2 * k_xy.mean()
    return KernelDistance(float(values.mean()), float(values.std(unbiased=False)), subsets, size)


def cubic_kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """k(x, y) = (x·y / D + 1)³ of every row of `x` and of `y`: KID's kernel (Bińkowski et al. 2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def cmmd(
    generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"], *, sigma: float = 10.0, scale: float = 1_000.0
) -> float:
    """scale × the squared MMD with kernel exp(−‖x − y‖² / 2σ²) on unit-length features (Jayasumana et al. 2024).

    The biased estimate (diagonals included), σ and scale are that paper's; its numbers are for one CLIP (ViT-L/14 at
    336), so compare only within one encoder. On unit vectors so wide a kernel is all but linear: the value is close to
    (scale / σ²) · (modality gap)², and sees little besides the mean.
    """
    x, y = (normalize(features, dim=1) for features in _checked(generated, real))

    def mean_kernel(p: Tensor, q: Tensor) -> float:
        q_squared = q.square().sum(dim=1)
        total = 0.0
        for rows in p.split(_ROWS):
            squared = (rows.square().sum(dim=1, keepdim=True) + q_squared - 2 * rows @ q.T).clamp(min=0)
            total += float(torch.exp(squared / (-2 * sigma**2)).sum())
        return total / (len(p) * len(q))

    return max(0.0, scale * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y)))


def modality_gap(generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> ModalityGap:
    """How far the centroids of unit-length features lie apart (Liang et al. 2022, there between pictures and texts)."""
    x, y = (normalize(features, dim=1).mean(dim=0) for features in _checked(generated, real))
    return ModalityGap(float((x - y).norm()), centroid_cosine(x, y))


def centroid_cosine(x: Float[Tensor, " d"], y: Float[Tensor, " d"]) -> float:
    """The cosine of two vectors, in [−1, 1]; 0 if one of them is zero."""
    return min(1.0, max(-1.0, float(normalize(x, dim=0) @ normalize(y, dim=0))))


def precision_recall(
    generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"], *, neighbours: int = 3
) -> PrecisionRecall:
    """Share of each set that lies within the k-nearest-neighbour balls of the other (Kynkäänniemi et al. 2019).

    Both depend on how many pictures there are; compare only equal numbers. k is cut to one less than the smaller set.
    """
    x, y = _checked(generated, real)
    k = min(neighbours, len(x) - 1, len(y) - 1)
    return PrecisionRecall(_share_inside(x, y, k), _share_inside(y, x, k), k)


def _share_inside(points: Float[Tensor, "n d"], support: Float[Tensor, "m d"], k: int) -> float:
    # The nearest of a point to its own set is itself, hence k + 1.
    radii = torch.cat([torch.cdist(rows, support).kthvalue(k + 1, dim=1).values for rows in support.split(_ROWS)])
    inside = [(torch.cdist(rows, support) <= radii).any(dim=1) for rows in points.split(_ROWS)]
    return float(torch.cat(inside).double().mean())


def _checked(
    generated: Float[Tensor, "n d"], real: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    check_pair(generated, real)
    return generated.detach().double(), real.detach().double()


def _frechet_terms(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> tuple[float, float]:
    shift = float((x.mean(dim=0) - y.mean(dim=0)).square().sum())
    a, b = _covariance_root(x), _covariance_root(y)
    # With Σ₁ = AᵀA and Σ₂ = BᵀB, Tr (Σ₁Σ₂)^½ is the sum of the singular values of ABᵀ.
    cross = float(torch.linalg.svdvals(a @ b.T).sum())
    return shift, max(0.0, float(a.square().sum() + b.square().sum()) - 2 * cross)


def _covariance_root(features: Float[Tensor, "n d"]) -> Float[Tensor, "r d"]:
    """A with AᵀA the unbiased covariance, in min(N, D) rows."""
    root = (features - features.mean(dim=0)) / (len(features) - 1) ** 0.5
    return torch.linalg.qr(root, mode="r").R if root.shape[0] > root.shape[1] else root
