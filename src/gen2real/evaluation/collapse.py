"""Does what a dual encoder sees shrink to a point or a line, and does its text encoder forget what words meant?

"Semantic collapse" has no known formula (UniDiff's abstract names it and no more), so this panel is ours: four
established measures of held-out features, and how far text states moved. One number says little; compare the panel
before and after a training, on the same pictures and texts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.distances import modality_gap
from gen2real.evaluation.diversity import effective_rank


@dataclass(frozen=True)
class Collapse:
    """A panel of unit-length features.

    image_rank, text_rank: `diversity.effective_rank`, falling with collapse; at most `pictures` − 1 and `texts` − 1.
    image_uniformity, text_uniformity: `uniformity`, rising towards 0 with collapse.
    caption_cosine: mean cosine of two different captions, rising towards 1.
    modality_gap: distance of the centroids of pictures and texts, in [0, 2].
    pictures, texts: how many; equal captions are one text.
    """

    image_rank: float
    text_rank: float
    image_uniformity: float
    text_uniformity: float
    caption_cosine: float
    modality_gap: float
    pictures: int
    texts: int

    def to_json(self) -> dict[str, float | int]:
        return asdict(self)


@dataclass(frozen=True)
class Drift:
    """How far text states are from the original's, as means over all states.

    direction: 1 − cosine; 0 where nothing moved, at most 2. norm: length as a share of the original's; 1 unchanged.
    """

    direction: float
    norm: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def collapse_panel(
    image: Float[Tensor, "n d"], text: Float[Tensor, "m d"], groups: Int[Tensor, " m"] | None = None
) -> Collapse:
    """The panel of held-out features of one dual encoder; normalised inside.

    Args:
        image, text: [N D] and [M D]; usually a picture's and its caption's. Nothing pairs them here.
        groups: [M], equal numbers are equal captions, of which the first counts; None: all are different.

    Raises: ImageSetError for fewer than two pictures or different texts; ModelError for features that are not finite.
    """
    texts = text if groups is None else text[_first_of(groups)]
    seen, read = _unit(image, "pictures"), _unit(texts, "different texts")
    return Collapse(
        image_rank=effective_rank(seen),
        text_rank=effective_rank(read),
        image_uniformity=uniformity(seen),
        text_uniformity=uniformity(read),
        caption_cosine=mean_cosine(read),
        modality_gap=modality_gap(seen, read).distance,
        pictures=len(seen),
        texts=len(read),
    )


def uniformity(features: Float[Tensor, "n d"], *, t: float = 2.0) -> float:
    """log E exp(−t ‖u − v‖²) over pairs of different rows, of unit length (Wang and Isola 2020, L_uniform).

    At most 0, where all rows are one point; the more even on the sphere, the lower.

    Raises: ImageSetError for fewer than two rows; ModelError for features that are not finite.
    """
    unit = _unit(features, "rows")
    # ‖u − v‖² = 2 − 2 u·v
    exponents = -t * torch.nn.functional.pdist(unit).square()
    return float(torch.logsumexp(exponents, dim=0) - torch.tensor(len(exponents), dtype=torch.float64).log())


def mean_cosine(features: Float[Tensor, "n d"]) -> float:
    """The mean cosine of two different rows.

    Raises: as `uniformity`.
    """
    unit = _unit(features, "rows")
    count = len(unit)
    # Σ_{i≠j} u_i·u_j = ‖Σ u_i‖² − Σ ‖u_i‖²
    together = unit.sum(dim=0).square().sum() - unit.square().sum()
    return float(together / (count * (count - 1)))


def text_drift(
    states: Float[Tensor, "p l d"], original: Float[Tensor, "p l d"], mask: Bool[Tensor, "p l"] | None = None
) -> Drift:
    """How far the states [P L D] of P prompts moved from those of the text encoder before it was trained.

    Args:
        mask: [P L], the states that count; None: all, padding as well, since a denoiser reads it all the same.

    Raises: ImageSetError where no state counts; ModelError for states that are not finite.
    """
    now, then = states.detach().double(), original.detach().double()
    if mask is not None:
        now, then = now[mask], then[mask]
    now, then = now.reshape(-1, now.shape[-1]), then.reshape(-1, then.shape[-1])
    if not len(now):
        raise ImageSetError("text drift needs at least one prompt with a state that counts; got none")
    _check_finite(torch.cat([now, then]))
    cosine = torch.cosine_similarity(now, then, dim=1)
    share = now.norm(dim=1) / then.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    return Drift(direction=max(0.0, float(1 - cosine.mean())), norm=float(share.mean()))


def _first_of(groups: Int[Tensor, " m"]) -> Int[Tensor, " g"]:
    """The row of each group's first member, in order."""
    _, member = groups.unique(return_inverse=True)
    first = torch.full((int(member.max()) + 1 if len(member) else 0,), len(groups), device=groups.device)
    return first.scatter_reduce_(0, member, torch.arange(len(groups), device=groups.device), "amin").sort().values


def _unit(features: Float[Tensor, "n d"], what: str) -> Float[Tensor, "n d"]:
    if features.ndim != 2 or len(features) < 2:
        raise ImageSetError(f"collapse needs features [N, D] of at least 2 {what}; got {list(features.shape)}")
    _check_finite(features)
    return normalize(features.detach().double(), dim=1)


def _check_finite(features: Tensor) -> None:
    broken = int((~torch.isfinite(features)).any(dim=1).sum())
    if broken:
        raise ModelError(f"features must be finite; {broken} of {len(features)} rows hold NaN or infinity")
