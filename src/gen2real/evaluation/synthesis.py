"""How good drawn pictures are: beside the real pictures of the same captions, and beside the captions themselves.

Every measure of `synthesis_values` has one value a picture whose mean is the measure, so its interval and its paired
tests are those of `evaluation.statistics`. What is no such mean (FID, CMMD) is in `synthesis_details`. All features are
one scorer's, which should be another model than any that was trained.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.distances import cmmd, cubic_kernel, frechet
from gen2real.evaluation.two_sample import check_pair

FID_PICTURES = 2_048
"""Of fewer, the covariance of Inception's 2048 features has no full rank; ours may be narrower, the bias remains."""

# Rows of the kernel matrices that are held at once.
_ROWS = 2_048

Values = dict[str, npt.NDArray[np.float64]]


def synthesis_values(
    drawn: Float[Tensor, "n d"], real: Float[Tensor, "n d"], texts: Float[Tensor, "n d"] | None = None
) -> Values:
    """`kernel_distance`, `clip_score`, `clip_i` → float64 [N], one value a picture, whose mean is the measure.

    kernel_distance: KID's formula on these features (`kernel_values`); lower is better. clip_score: cosine of a drawn
        picture and its caption (Hessel et al. 2021, without their factor 2.5 and their cut at 0). clip_i: cosine of a
        drawn picture and the real one whose caption it was drawn from (DreamBooth, arXiv 2208.12242, there of all
        pairs of one subject).

    Args:
        drawn, real, texts: of one encoder, un-normalised; row i was drawn from caption i of real picture i. Without
            texts (an encoder that reads none) there is no clip_score.

    Raises: ImageSetError for fewer than two pictures, or unequal numbers; ModelError for other widths and for features
        that are not finite.
    """
    _check_rows(drawn, real, "real pictures")
    values = {"kernel_distance": kernel_values(drawn, real)}
    if texts is not None:
        _check_rows(drawn, texts, "captions")
        values["clip_score"] = _cosines(drawn, texts)
    values["clip_i"] = _cosines(drawn, real)
    return values


def kernel_values(drawn: Float[Tensor, "n d"], real: Float[Tensor, "n d"]) -> npt.NDArray[np.float64]:
    """float64 [N]: one value a pair of pictures; the mean is KID's unbiased squared MMD of all N (`kernel_distance`).

    With v_i the part of pair i in the statistic U, so that mean(v) = U, the values are w_i = 2 v_i − U. Their mean is U
    as well, and their spread is U's: U has two places for every picture, so it moves by twice what v_i does
    (Hájek's projection, Serfling 1980, section 5.3). A bootstrap over v_i would be too narrow by half.

    The interval errs to the wide side: where both sets come from one source, where the projection vanishes, by √2, and
    by less the further they are apart. Each drawn picture is also compared with the real one of its own caption, as in
    KID: what such pairs have in common lowers U by about 2 (mean of own pairs − mean of others) / N, for every
    generator alike.

    Raises: as `synthesis_values`.
    """
    _check_rows(drawn, real, "real pictures")
    count = len(drawn)
    x, y = drawn.detach().double(), real.detach().double()
    within, across = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
    for start in range(0, count, _ROWS):
        rows = slice(start, start + _ROWS)
        for side in (x, y):
            kernel = cubic_kernel(side[rows], side)
            within[rows] += kernel.sum(dim=1) - kernel.diagonal(start)
        kernel = cubic_kernel(x[rows], y)
        across[rows] += kernel.sum(dim=1)
        across += kernel.sum(dim=0)
    # v_i = Σ_{j≠i} (k(x_i, x_j) + k(y_i, y_j)) / (n − 1) − Σ_j (k(x_i, y_j) + k(x_j, y_i)) / n
    parts = within / (count - 1) - across / count
    found: npt.NDArray[np.float64] = (2 * parts - parts.mean()).cpu().numpy()
    return found


def synthesis_details(drawn: Float[Tensor, "n d"], real: Float[Tensor, "m d"]) -> dict[str, Any]:
    """What is no mean over pictures, JSON-like: `fid` (`distances.frechet`), `cmmd`, `pictures`, `dimension`, `notes`.

    notes: in words, whatever makes these numbers less than they look: a sample too small for FID.

    Raises: as `check_pair`.
    """
    check_pair(drawn, real)
    found = frechet(drawn, real)
    chance = found.chance_shift + found.chance_spread
    return {
        "fid": found.to_json(),
        "cmmd": cmmd(drawn, real),
        "pictures": len(drawn),
        "dimension": drawn.shape[1],
        "notes": small_sample_notes(min(len(drawn), len(real)), drawn.shape[1], chance),
    }


def small_sample_notes(count: int, dimension: int, chance: float | None = None) -> list[str]:
    """Why FID of so few pictures is not to be trusted, in words; nothing where there are enough.

    chance: what FID would be about for two sets of this size from one source.
    """
    if count > dimension and count >= FID_PICTURES:
        return []
    told = f"FID of {count:,} pictures is biased upwards"
    if count <= dimension:
        told += f", and a covariance of {dimension:,} dimensions from so few has no full rank"
    if chance is not None:
        told += f": about {chance:.3g} of it would be there by chance"
    return [f"{told}. Compare it only between equally many pictures; kernel distance has no such bias."]


def diversity(features: Float[Tensor, "p k d"]) -> npt.NDArray[np.float64]:
    """float64 [P]: how much the K pictures of a prompt differ, as the mean of 1 − cosine over their K(K − 1)/2 pairs.

    0 where all are one picture. The form of DreamBooth's DIV (arXiv 2208.12242), on an encoder's features instead of
    LPIPS; ours.

    Raises: ImageSetError for fewer than two pictures a prompt; ModelError for features that are not finite.
    """
    prompts, samples, _ = features.shape
    if prompts < 1 or samples < 2:
        raise ImageSetError(
            f"diversity needs at least 2 pictures for each of at least 1 prompt; got {samples} for each of {prompts}"
        )
    _check_finite(features.flatten(0, 1))
    unit = normalize(features.detach().double(), dim=2)
    # Σ_{i≠j} u_i·u_j = ‖Σ u_i‖² − Σ ‖u_i‖²
    together = unit.sum(dim=1).square().sum(dim=1) - unit.square().sum(dim=(1, 2))
    found: npt.NDArray[np.float64] = (1 - together / (samples * (samples - 1))).cpu().numpy()
    return found


def _cosines(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = cosine_similarity(a.detach().double(), b.detach().double(), dim=1).cpu().numpy()
    return found


def _check_rows(drawn: Tensor, other: Tensor, what: str) -> None:
    check_pair(drawn, other)
    if len(drawn) != len(other):
        raise ImageSetError(
            f"{len(drawn)} drawn pictures and {len(other)} {what}; expected one for each, in the same order"
        )


def _check_finite(features: Tensor) -> None:
    broken = int((~torch.isfinite(features)).any(dim=1).sum())
    if broken:
        raise ModelError(f"features must be finite; {broken} of {len(features)} rows hold NaN or infinity")
