"""How well pictures find their texts and texts their pictures: recall at k and median rank, by exact search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.statistics import Interval, bootstrap_interval

RECALLS_AT = (1, 5, 10)
# Cosines closer than this are a tie: one text encoded in two batches differs by about so much.
TIE = 1e-6
# Scores that are held at once (64 MiB in float32), or one query's where the gallery is larger.
_CELLS = 1 << 24


@dataclass(frozen=True, eq=False)
class Ranking:
    """One direction of `retrieval_metrics`.

    queries: how many asked. gallery: among how many each one searched.
    recall: k → the share of queries with a positive among the first k, with its interval.
    chance: k → what the recall would be in random order; large where the gallery is small or positives are many.
    median_rank: of the best positive; 1 is first.
    ranks: [queries], the best positive's, for paired tests; `to_json` leaves them out.
    """

    queries: int
    gallery: int
    recall: Mapping[int, Interval]
    chance: Mapping[int, float]
    median_rank: float
    ranks: Int[Tensor, " q"]

    def to_json(self) -> dict[str, Any]:
        return {
            "queries": self.queries,
            "gallery": self.gallery,
            **{f"recall@{k}": found.to_json() for k, found in self.recall.items()},
            "chance": {f"recall@{k}": share for k, share in self.chance.items()},
            "median_rank": self.median_rank,
        }


@dataclass(frozen=True, eq=False)
class Retrieval:
    """What `retrieval_metrics` finds.

    image_to_text: pictures ask among texts; CLIP_benchmark calls it text_retrieval_recall, papers TR.
    text_to_image: texts ask among pictures; image_retrieval_recall there, or IR.
    """

    image_to_text: Ranking
    text_to_image: Ranking

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and dicts, always with the same keys."""
        return {"image_to_text": self.image_to_text.to_json(), "text_to_image": self.text_to_image.to_json()}


def caption_positives(captions: Sequence[Sequence[str]]) -> tuple[list[str], Int[Tensor, "p 2"]]:
    """The distinct texts of N pictures' captions, and which picture belongs to which text.

    Returns: the texts, each as first written, and int64 [P 2], rows (picture, text). Captions that differ in case and
    white space only are one text, which all of their pictures are positives of: to CLIP's and SigLIP's tokenizers they
    are one, and as two they would count as errors of each other. Where no two captions are equal this is
    CLIP_benchmark's gallery. Empty captions are left out.
    """
    places: dict[str, int] = {}
    texts: list[str] = []
    pairs = []
    for picture, own in enumerate(captions):
        for caption in own:
            key = " ".join(caption.split()).casefold()
            if not key:
                continue
            if key not in places:
                places[key] = len(texts)
                texts.append(caption)
            pairs.append((picture, places[key]))
    return texts, torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)


def retrieval_metrics(
    image: Float[Tensor, "n d"], text: Float[Tensor, "m d"], positives: Int[Tensor, "p 2"]
) -> Retrieval:
    """Search by cosine in both directions, over the whole gallery.

    Args:
        image: [N D] and text: [M D], normalised inside. Searched in blocks; no N × M matrix is held.
        positives: [P 2], rows (picture, text) that belong together, as `caption_positives` gives; a row of either side
            may have several. One without any is not a query, but stays in the other direction's gallery.

    A query is answered at k if *any* positive is among the first k, as in CLIP_benchmark. Its rank counts what is not
    a positive and scores above the best positive, or as high (within `TIE`): ties are broken against the model. An
    encoder that gives one vector for everything has recall 0 rather than 100 %, unless the gallery is smaller than k.

    Intervals are 95 % percentile bootstraps over pictures. The captions of one picture stand or fall together, so a
    text counts with its (first) picture; a bootstrap over single captions would be too narrow.

    Raises ModelError for unequal widths and for features that are not finite; ImageSetError without positives, or
    with one that lies outside of the features.
    """
    positives = _checked(image, text, positives)
    image, text = _unit(image), _unit(text)
    to_text, to_image = positives, positives.flip(1)
    image_ranks = _best_ranks(image, text, to_text)
    text_ranks = _best_ranks(text, image, to_image)
    first_picture = torch.full((len(text),), len(image)).scatter_reduce_(0, to_image[:, 0], to_image[:, 1], "amin")
    return Retrieval(
        _ranking(image_ranks, to_text, len(text), to_text[:, 0].unique()),
        _ranking(text_ranks, to_image, len(image), first_picture[to_image[:, 0].unique()]),
    )


def _best_ranks(query: Float[Tensor, "n d"], gallery: Float[Tensor, "m d"], pairs: Int[Tensor, "p 2"]) -> Tensor:
    """Int64 [Q]: the rank of the best positive of every query that has one, in order; pairs are (query, gallery)."""
    pairs = pairs[pairs[:, 0].argsort(stable=True)]
    asking, row = pairs[:, 0].unique_consecutive(return_inverse=True)
    column = pairs[:, 1]
    block = max(1, _CELLS // len(gallery))
    ranks = []
    for start in range(0, len(asking), block):
        scores = query[asking[start : start + block].to(query.device)] @ gallery.T
        first, last = torch.searchsorted(row, torch.tensor([start, start + block])).tolist()
        own_row, own_column = (row[first:last] - start).to(scores.device), column[first:last].to(scores.device)
        own = scores[own_row, own_column]
        best = scores.new_full((len(scores),), -math.inf).scatter_reduce_(0, own_row, own, "amax")
        as_high = (scores >= (best - TIE)[:, None]).sum(dim=1)
        positives_as_high = torch.zeros_like(as_high).index_add_(0, own_row, (own >= best[own_row] - TIE).long())
        ranks.append((1 + as_high - positives_as_high).cpu())
    return torch.cat(ranks)


def _ranking(ranks: Tensor, pairs: Int[Tensor, "p 2"], gallery: int, picture: Int[Tensor, " q"]) -> Ranking:
    """picture: [Q], whom each query is resampled with."""
    positives = pairs[:, 0].unique(return_counts=True)[1]
    return Ranking(
        queries=len(ranks),
        gallery=gallery,
        recall={k: _share(ranks <= k, picture) for k in RECALLS_AT},
        chance={k: _chance(positives, gallery, k) for k in RECALLS_AT},
        median_rank=float(np.median(ranks.numpy())),
        ranks=ranks,
    )


def _share(hits: Tensor, picture: Int[Tensor, " q"]) -> Interval:
    """The share of hits, with an interval over pictures of one or several queries each."""
    _, of = picture.unique(return_inverse=True)
    size = torch.bincount(of).double()
    hit = torch.bincount(of, weights=hits.double())
    share = float(hits.double().mean())
    # Resampling pictures changes how many queries there are: a ratio of sums, linearised about the share. The mean
    # of these values is the share, and with equally many queries a picture they are the pictures' own shares.
    found = bootstrap_interval(share + (hit - share * size) / size.mean())
    return replace(found, mean=share, low=max(0.0, min(share, found.low)), high=min(1.0, max(share, found.high)))


def _chance(positives: Int[Tensor, " q"], gallery: int, k: int) -> float:
    """The mean probability that one of p positives is among the first k of a random order: 1 − C(g−p, k) / C(g, k)."""
    k = min(k, gallery)
    orders = math.comb(gallery, k)
    numbers, times = positives.unique(return_counts=True)
    found = [(orders - math.comb(gallery - p, k)) / orders for p in numbers.tolist()]
    return sum(share * count for share, count in zip(found, times.tolist(), strict=True)) / len(positives)


def _unit(features: Tensor) -> Tensor:
    features = features.detach()
    return normalize(features if features.dtype == torch.float64 else features.float(), dim=1)


def _checked(image: Tensor, text: Tensor, positives: Tensor) -> Tensor:
    """The positives on the CPU, each once, in order; features must be fit to be compared."""
    if image.ndim != 2 or text.ndim != 2 or image.shape[1] != text.shape[1]:
        raise ModelError(
            f"pictures have features of shape {list(image.shape)} and texts of {list(text.shape)}; expected [N, D] and "
            "[M, D] of one dual encoder"
        )
    for name, features in (("picture", image), ("text", text)):
        broken = int((~torch.isfinite(features)).any(dim=1).sum())
        if broken:
            raise ModelError(
                f"{broken} of {len(features)} {name} features hold NaN or infinity; the model's weights or its "
                "precision are broken. Try float32."
            )
    if positives.ndim != 2 or positives.shape[1] != 2 or len(positives) == 0:
        raise ImageSetError(
            f"positives have shape {list(positives.shape)}; expected [P, 2], rows (picture, text), with P of at least "
            "1. Pictures need captions to be searched by."
        )
    positives = positives.detach().cpu().long()
    limits = torch.tensor([len(image), len(text)])
    if bool(((positives < 0) | (positives >= limits)).any()):
        raise ImageSetError(
            f"positives must lie in 0…{len(image) - 1} (pictures) and 0…{len(text) - 1} (texts); got "
            f"{positives.amin(dim=0).tolist()} to {positives.amax(dim=0).tolist()}"
        )
    return positives.unique(dim=0)
