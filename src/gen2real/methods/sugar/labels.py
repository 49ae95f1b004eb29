"""How alike two prefixes ought to be, in the eyes of frozen encoders: the label matrix m^l of Sugar's L_d.

Chow et al., arXiv 2411.00304, equations 2 and 4. Slices (pictures and sentences) are seen once by the teachers, before
training; a batch's labels are then products of small matrices and one dynamic program over all its pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, pad

from gen2real.errors import ModelError
from gen2real.evaluation.features import FeatureCache, cached_texts, cached_views
from gen2real.imagesets.interleaved import Part, Slice
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.losses.global_alignment_kernel import global_alignment_kernel
from gen2real.methods.sugar.settings import KernelSettings, TeacherSettings
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.image_encoder import load_image_encoder
from gen2real.models.text_encoder import load_text_encoder

# By how many of two slices are pictures.
BRANCHES = ("text and text", "picture and text", "picture and picture")
# Slices of one file of the cache: a killed run goes on behind the last whole one.
_KEPT_TOGETHER = 8192
# Distances that are held at once, in float64: 128 MiB, and on a CPU what its cache holds.
_CELLS, _CACHED_CELLS = 1 << 24, 1 << 19
_SAMPLE = 2048


@dataclass(frozen=True, eq=False)
class SliceFeatures:
    """What the teachers see in S distinct slices; vectors have unit length.

    rows: content → its row: a picture's file, or a sentence.
    pictures: [S], which of them are. own: [S D1], of the image teacher or the text teacher, zeros filling up the
    narrower one's. joint: [S D2], of the dual encoder.
    """

    rows: Mapping[Part, int]
    pictures: Bool[Tensor, " s"]
    own: Float[Tensor, "s d1"]
    joint: Float[Tensor, "s d2"]

    def prefix(self, slices: Sequence[Slice]) -> list[int]:
        """The rows of a sample's first slices, as `prefix_targets` takes them. Raises: KeyError for one never seen."""
        return [self.rows[one.content] for one in slices]

    def to(self, device: torch.device | str) -> SliceFeatures:
        """The same on another device; labels are computed where the features lie."""
        return SliceFeatures(self.rows, self.pictures.to(device), self.own.to(device), self.joint.to(device))


class Teachers:
    """The frozen encoders whose similarities are the labels; needed before training only.

    Raises: ModelError for what cannot be loaded or does not look or read as asked.
    """

    def __init__(self, settings: TeacherSettings, *, device: torch.device | str = "cpu") -> None:
        self.joint = load_dual_encoder(settings.joint).to(device)
        self.image = None if settings.image is None else load_image_encoder(settings.image)
        if self.image is not None:
            self.image.vision.to(device)
        self.text = None
        if settings.text is not None:
            self.text = load_text_encoder(settings.text, settings.text_pooling).to(device)

    def features(self, slices: Sequence[Slice], *, cache: FeatureCache | None = None) -> SliceFeatures:
        """Features of all distinct slices, on the CPU: from the disk where the same encoders have seen them before.

        The cache knows pictures and sentences by their content. A killed run goes on where it was. Of several
        processes the first computes and the others read.

        Raises: UnreadablePictures listing pictures that do not decode; ModelError for features that are not finite.
        """
        cache = cache or FeatureCache()
        distinct = list(dict.fromkeys(one.content for one in slices))
        paths = [one for one in distinct if isinstance(one, Path)]
        texts = [one for one in distinct if isinstance(one, str)]
        with PartialState().main_process_first():
            joint = [self._seen(self.joint, paths, cache), self._read(self.joint, texts, cache)]
            own = [
                joint[0] if self.image is None else self._seen(self.image, paths, cache),
                joint[1] if self.text is None else self._read(self.text, texts, cache),
            ]
        width = max(part.shape[1] for part in own)
        rows: dict[Part, int] = dict(zip([*paths, *texts], range(len(distinct)), strict=True))
        return SliceFeatures(
            rows=rows,
            pictures=torch.arange(len(distinct)) < len(paths),
            own=torch.cat([pad(part, (0, width - part.shape[1])) for part in own]),
            joint=torch.cat([part for part in joint if len(part)] or joint),
        )

    def _seen(self, encoder: Any, paths: list[Path], cache: FeatureCache) -> Tensor:
        parts = []
        for some in _shards(paths):
            pictures = Pictures(ImageSet.of(some), encoder.preprocess, cache="none")
            parts.append(cached_views(encoder.vision, pictures, views=1, seed=0, cache=cache)[0])
        return _unit(parts, encoder.name)

    def _read(self, encoder: Any, texts: list[str], cache: FeatureCache) -> Tensor:
        return _unit([cached_texts(encoder, some, cache) for some in _shards(texts)], encoder.name)


@dataclass(frozen=True)
class Calibration:
    """Each branch's distances brought to one mean and spread (ours; the paper compares them as they are).

    mean, std: of all distances; the standard deviation is pooled: within branches. branches: name → (mean, standard
    deviation) as measured. local: whose distances they are.
    """

    local: str
    mean: float
    std: float
    branches: Mapping[str, tuple[float, float]]

    def applied(self, distance: Float[Tensor, "u u"], branch: Int[Tensor, "u u"]) -> Float[Tensor, "u u"]:
        """(φ − mean of its branch) · std / std of its branch + mean, kept within what unit vectors have: 0 … 4."""
        own = [self.branches.get(name, (self.mean, self.std)) for name in BRANCHES]
        centre, spread = distance.new_tensor(own).unbind(dim=1)
        # A branch of equal distances has no spread to be brought to another.
        scale = torch.where(spread > 1e-9, self.std / spread.clamp(min=1e-9), 1.0)
        return ((distance - centre[branch]) * scale[branch] + self.mean).clamp(0, 4)

    def to_json(self) -> dict[str, Any]:
        """For a run's result."""
        branches = {name: {"mean": mean, "std": std} for name, (mean, std) in self.branches.items()}
        return {"local": self.local, "mean": self.mean, "std": self.std, "branches": branches}


def calibrate(features: SliceFeatures, settings: KernelSettings, *, seed: int = 0) -> Calibration | None:
    """What `calibrate: true` measures: distances between up to 2,048 slices, drawn by seed; None where it is false.

    Raises: ModelError where there are fewer than two slices.
    """
    if not settings.calibrate:
        return None
    count = len(features.pictures)
    if count < 2:
        raise ModelError(f"kernel.calibrate measures distances between slices; there are {count}. Leave it out.")
    drawn = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:_SAMPLE].to(features.own.device)
    distance, branch = _distances(features, drawn, settings)
    first, second = torch.triu_indices(len(drawn), len(drawn), 1, device=drawn.device)
    distance, branch = distance[first, second], branch[first, second]
    found = {name: distance[branch == place] for place, name in enumerate(BRANCHES)}
    found = {name: own for name, own in found.items() if len(own)}
    within = sum(float((own - own.mean()).square().sum()) for own in found.values()) / len(distance)
    branches = {name: (float(own.mean()), float(own.std(correction=0))) for name, own in found.items()}
    return Calibration(settings.local, float(distance.mean()), within**0.5, branches)


@torch.no_grad()
def prefix_targets(
    features: SliceFeatures,
    prefixes: Sequence[Sequence[int]],
    owners: Sequence[int],
    settings: KernelSettings,
    *,
    calibration: Calibration | None = None,
) -> Float[Tensor, "n n"]:
    """m^l: how alike each two of n prefixes ought to be, float32 on the features' device; symmetric, its diagonal 1.

    Args:
        prefixes: for each, the rows of its slices in order (`SliceFeatures.prefix`), at least one.
        owners: for each, its sample's number; prefixes of one sample are 1 where `settings.same_sample`.
        calibration: what `calibrate` gave for these settings.

    Prefixes of one slice each are compared by cosine, 1 − φ/2 (paper), others by the kernel; `self` divides by
    √(K(x,x)·K(y,y)), in which σ is of a prefix's own length (ours). `mean`, the control, is the mean cosine over all
    pairs of slices. Order matters in the kernel, not in the mean.

    Raises: ModelError for an empty prefix, rows or owners that do not fit, and a calibration that is not of `settings`.
    """
    _check(features, prefixes, owners, settings, calibration)
    device = features.own.device
    count = len(prefixes)
    lengths = torch.tensor([len(one) for one in prefixes], device=device)
    rows = torch.tensor(list(chain.from_iterable(prefixes)), dtype=torch.long, device=device)
    distinct, place = rows.unique(return_inverse=True)
    distance, branch = _distances(features, distinct, settings)
    if calibration is not None:
        distance = calibration.applied(distance, branch)
    # A slice is no distance from itself, neither by rounding nor by another branch's mean.
    distance.fill_diagonal_(0)

    sample = torch.tensor(list(owners), device=device)
    # Each two once, in order of the longer one's length, which comes first: alike lengths are computed together.
    order = lengths.argsort(stable=True)
    first, second = order[torch.tril_indices(count, count, -1, device=device)]
    if settings.same_sample:
        others = sample[first] != sample[second]
        first, second = first[others], second[others]
    if settings.alignment == "mean":
        found = _mean_similarity(distance, place, lengths)[first, second]
    else:
        found = _kernel(distance, place, lengths, first, second, settings)
    same = sample[:, None] == sample if settings.same_sample else torch.eye(count, dtype=torch.bool, device=device)
    targets = same.double()
    targets[first, second] = found
    targets[second, first] = found
    return targets.float().fill_diagonal_(1)


def _distances(
    features: SliceFeatures, rows: Int[Tensor, " u"], settings: KernelSettings
) -> tuple[Float[Tensor, "u u"], Int[Tensor, "u u"]]:
    """φ of each two of some slices, float64, and which branch each is of (a place in `BRANCHES`)."""
    seen, own, joint = features.pictures[rows], features.own[rows], features.joint[rows]
    branch = seen.long()[:, None] + seen.long()
    if settings.local == "joint":
        cosine = joint @ joint.T
    else:
        # φ(a, b) = ‖a_1 − b_1‖² of one modality, ‖a_2 − b_2‖² of two (equation 4); of unit vectors 2 − 2 cos.
        cosine = joint.new_empty(branch.shape)
        pictures, texts = (which.nonzero().squeeze(1) for which in (seen, ~seen))
        for alike in (pictures, texts):
            cosine[alike[:, None], alike] = own[alike] @ own[alike].T
        across = joint[pictures] @ joint[texts].T
        cosine[pictures[:, None], texts] = across
        cosine[texts[:, None], pictures] = across.T
    return (2 - 2 * cosine.double()).clamp(0, 4), branch


def _mean_similarity(
    distance: Float[Tensor, "u u"], place: Int[Tensor, " r"], lengths: Int[Tensor, " n"]
) -> Float[Tensor, "n n"]:
    """The mean of 1 − φ/2 over all pairs of slices of two prefixes."""
    prefix = torch.arange(len(lengths), device=place.device).repeat_interleave(lengths)
    # Sums over one prefix's slices, then over the other's.
    sums = distance.new_zeros(len(lengths), len(distance)).index_add_(0, prefix, 1 - distance[place] / 2)
    sums = distance.new_zeros(len(lengths), len(lengths)).index_add_(1, prefix, sums[:, place])
    return sums / (lengths[:, None] * lengths)


def _kernel(
    distance: Float[Tensor, "u u"],
    place: Int[Tensor, " r"],
    lengths: Int[Tensor, " n"],
    first: Int[Tensor, " p"],
    second: Int[Tensor, " p"],
    settings: KernelSettings,
) -> Float[Tensor, " p"]:
    """The global alignment kernel of pairs of prefixes, the longer one first, in order of its length; of two single
    slices their cosine."""
    if not len(first):
        return distance.new_empty(0)
    longest = int(lengths.max())
    slots = place.new_zeros(len(lengths), longest)
    slots[torch.arange(longest, device=place.device) < lengths[:, None]] = place
    # [L N], and of fewest bytes: a distance is looked up by its place among all, and places are what is moved most.
    small = distance.numel() <= torch.iinfo(torch.int32).max
    slots = slots.T.to(torch.int32 if small else torch.int64).contiguous()
    # K(x, y) / √(K(x, x) · K(y, y)) is made of sums.
    normalize: Literal["paths", "none"] = "paths" if settings.normalize == "paths" else "none"

    def kernels(left: Tensor, right: Tensor) -> Tensor:
        return _aligned(distance, slots, lengths, left, right, bandwidth=settings.bandwidth, normalize=normalize)

    values = kernels(first, second)
    if settings.normalize == "self":
        order = lengths.argsort(stable=True)
        alone = distance.new_empty(len(lengths)).index_copy_(0, order, kernels(order, order).sqrt())
        values = values / alone[first] / alone[second]
    single = (lengths[first] == 1) & (lengths[second] == 1)
    begin = slots[0].long()
    cosine = 1 - distance[begin[first], begin[second]] / 2
    return torch.where(single, cosine, values)


def _aligned(
    distance: Tensor,
    slots: Tensor,
    lengths: Tensor,
    left: Tensor,
    right: Tensor,
    *,
    bandwidth: float,
    normalize: Literal["paths", "none"],
) -> Tensor:
    """The kernel of each pair, as many at once as fit: pairs as `_kernel` has them, so that little is padding."""
    values = []
    for start, end in _portions(lengths[left], len(slots), distance.device):
        one, other = left[start:end], right[start:end]
        along = torch.stack([lengths[one], lengths[other]], dim=1)
        rows, columns = along.amax(dim=0).tolist()
        # [N M P], the pairs side by side in memory: what the kernel's program goes over.
        above = slots[:rows].index_select(1, one).mul_(len(distance))
        places = above[:, None] + slots[:columns].index_select(1, other)
        cells = distance.flatten().index_select(0, places.flatten()).view(places.shape)
        values.append(global_alignment_kernel(cells.permute(2, 0, 1), along, bandwidth=bandwidth, normalize=normalize))
    return torch.cat(values)


def _portions(longer: Tensor, longest: int, device: torch.device) -> Iterator[tuple[int, int]]:
    """Where pairs in order of length are cut: where padding would exceed what it pads, or what is held at once."""
    held = min(_CELLS, _CACHED_CELLS) if device.type == "cpu" else _CELLS
    bounds = [1]
    while bounds[-1] < longest:
        bounds.append(bounds[-1] * 2)
    ends = torch.searchsorted(longer.contiguous(), longer.new_tensor(bounds), right=True).tolist()
    for bound, start, end in zip(bounds, [0, *ends], ends, strict=False):
        size = max(1, held // min(bound, longest) ** 2)
        yield from ((begin, min(begin + size, end)) for begin in range(start, end, size))


def _shards(contents: list[Any]) -> list[list[Any]]:
    return [contents[start : start + _KEPT_TOGETHER] for start in range(0, len(contents), _KEPT_TOGETHER)]


def _unit(parts: list[Tensor], name: str) -> Tensor:
    features = torch.cat(parts) if parts else torch.zeros(0, 1)
    broken = int((~torch.isfinite(features).all(dim=1)).sum())
    if broken:
        raise ModelError(f"{name} gives {broken} of {len(features)} slices features that are NaN or infinite.")
    return normalize(features, dim=1)


def _check(
    features: SliceFeatures,
    prefixes: Sequence[Sequence[int]],
    owners: Sequence[int],
    settings: KernelSettings,
    calibration: Calibration | None,
) -> None:
    if len(prefixes) != len(owners):
        raise ModelError(f"{len(prefixes)} prefixes have {len(owners)} owners; give the sample's number of each.")
    if empty := [number for number, one in enumerate(prefixes) if not len(one)]:
        raise ModelError(f"prefix {empty[0]} holds no slice; a prefix ends with a picture or a sentence.")
    known = len(features.pictures)
    if any(min(one) < 0 or max(one) >= known for one in prefixes):
        raise ModelError(f"the rows of slices must lie in 0…{known - 1}.")
    if settings.calibrate != (calibration is not None) or (calibration and calibration.local != settings.local):
        given = "none" if calibration is None else f"one of {calibration.local!r} distances"
        raise ModelError(
            f"kernel.calibrate is {settings.calibrate} with local={settings.local!r}, and the calibration given is "
            f"{given}; give what calibrate(features, settings) returns."
        )
