"""How well pictures find their texts and texts their pictures: recall at k and median rank, by exact search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.statistics import Interval, bootstrap_interval, group_values

RECALLS_AT = (1, 5, 10)
# Cosines closer than this are a tie: one text encoded in two batches differs by about so much.
TIE = 1e-6
# Rows that are looked through at once.
_CHECKED = 4096
# Scores that are held at once, and as many comparisons: twice 64 MiB in float32, whatever N and M are.
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
        image: [N D] and text: [M D], normalised inside. Searched tile by tile; no N × M matrix is held.
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
    to_text, to_image = positives, positives.flip(1)
    image_ranks, text_ranks = _best_ranks(image, text, positives)
    asking = _asking(positives)
    return Retrieval(
        _ranking(image_ranks, to_text, len(text), asking["image_to_text"]),
        _ranking(text_ranks, to_image, len(image), asking["text_to_image"]),
    )


def picture_values(
    retrieval: Retrieval, positives: Int[Tensor, "p 2"], pictures: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Recalls as one value a picture: `image_to_text_recall@1` … `text_to_image_recall@10` → float64 [N].

    Their mean is the recall. A text counts with its first picture; where pictures have unequally many queries, a value
    is the picture's part of the ratio, linearised about the recall, so it may lie outside 0 … 1.

    Args:
        positives: what `retrieval_metrics` was given. pictures: N, those without a text included.

    Raises: ImageSetError where the positives are not those of the retrieval.
    """
    asking = _asking(positives.detach().cpu().long())
    values = {}
    for direction, ranking in (("image_to_text", retrieval.image_to_text), ("text_to_image", retrieval.text_to_image)):
        picture = asking[direction]
        if len(picture) != len(ranking.ranks) or int(picture.max()) >= pictures:
            raise ImageSetError(
                f"these positives make {len(picture)} queries on pictures up to {int(picture.max())}; the retrieval "
                f"has {len(ranking.ranks)} on {pictures} pictures. Give the positives that it was measured with."
            )
        for k in RECALLS_AT:
            values[f"{direction}_recall@{k}"] = group_values(ranking.ranks <= k, picture, pictures)
    return values


def _asking(positives: Int[Tensor, "p 2"]) -> dict[str, Tensor]:
    """Direction → [Q]: the picture that each query counts with, in the order of its ranks."""
    texts, place = positives[:, 1].unique(return_inverse=True)
    first = torch.full((len(texts),), torch.iinfo(torch.int64).max)
    first_picture = first.scatter_reduce_(0, place, positives[:, 0], "amin")
    return {"image_to_text": positives[:, 0].unique(), "text_to_image": first_picture}


def _best_ranks(
    image: Float[Tensor, "n d"], text: Float[Tensor, "m d"], positives: Int[Tensor, "p 2"]
) -> tuple[Int[Tensor, " q"], Int[Tensor, " r"]]:
    """The rank of the best positive of every picture that has one, and of every text that has one, in order.

    Both directions are counted in one pass over the scores.
    """
    picture, caption = positives.to(image.device).T.contiguous()
    # The bar is taken from the very tiles that are counted later: an equal score computed otherwise may differ.
    own = _unit(image[:0]).new_empty(len(positives))
    for tile in _tiles(image, text, picture, caption, all_of_them=False):
        own[tile.pair] = tile.scores[tile.row, tile.column]
    image_bar, text_bar = (
        own.new_full((len(side),), math.inf).scatter_reduce_(0, of, own, "amax", include_self=False) - TIE
        for side, of in ((image, picture), (text, caption))
    )
    image_above, text_above = (torch.zeros(len(side), dtype=torch.int64, device=image.device) for side in (image, text))
    above = own.new_empty(0)
    for tile in _tiles(image, text, picture, caption, all_of_them=True):
        for bar, place, dim, count in (
            (image_bar[tile.rows, None], tile.rows, 1, image_above),
            (text_bar[tile.columns], tile.columns, 0, text_above),
        ):
            # As floats: a sum of booleans is copied to integers first, ten times the work. A tile's are exact.
            above = above.resize_(tile.scores.shape)
            torch.ge(tile.scores, bar, out=above)
            above[tile.row, tile.column] = 0
            count[place] += above.sum(dim=dim).long()
    return 1 + image_above[picture.unique()].cpu(), 1 + text_above[caption.unique()].cpu()


@dataclass(frozen=True, eq=False)
class _Tile:
    """Scores of some pictures (rows) and texts (columns); the positives among them as pair, row and column of it."""

    rows: slice
    columns: slice
    scores: Tensor
    pair: Tensor
    row: Tensor
    column: Tensor


def _tiles(image: Tensor, text: Tensor, picture: Tensor, caption: Tensor, *, all_of_them: bool) -> Iterator[_Tile]:
    """The N × M scores tile by tile, or those tiles alone that hold a positive. The next tile overwrites the last."""
    side = max(1, math.isqrt(_CELLS))
    held = _unit(image[:0]).new_empty(min(side, len(image)) * min(side, len(text)))
    for top in range(0, len(image), side):
        rows = slice(top, min(top + side, len(image)))
        unit_rows = _unit(image[rows])
        first, last = torch.searchsorted(picture, picture.new_tensor([rows.start, rows.stop])).tolist()
        for left in range(0, len(text), side):
            columns = slice(left, min(left + side, len(text)))
            texts = caption[first:last]
            pair = first + ((texts >= columns.start) & (texts < columns.stop)).nonzero().squeeze(1)
            if not all_of_them and not len(pair):
                continue
            shape = (rows.stop - top, columns.stop - left)
            scores = torch.mm(unit_rows, _unit(text[columns]).T, out=held[: math.prod(shape)].view(shape))
            yield _Tile(rows, columns, scores, pair, picture[pair] - top, caption[pair] - left)


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
    asking, of = picture.unique(return_inverse=True)
    share = float(hits.double().mean())
    found = bootstrap_interval(group_values(hits, of, len(asking)))
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
        bad_rows = [(~torch.isfinite(rows)).any(dim=1) for rows in features.split(_CHECKED)]
        broken = sum(int(bad.sum()) for bad in bad_rows)
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
    # As single numbers: `unique` over rows compares them one by one.
    pairs = (positives[:, 0] * len(text) + positives[:, 1]).unique()
    return torch.stack([pairs // len(text), pairs % len(text)], dim=1)
