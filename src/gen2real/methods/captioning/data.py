"""Pictures with their captions: embedded once, then drawn caption by caption."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gen2real.errors import ImageSetError
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.sampling import EpochSampler
from gen2real.imagesets.transforms import Preprocess
from gen2real.methods.captioning.settings import CaptioningData
from gen2real.methods.leaks import refuse_leak
from gen2real.methods.origins import at_most, origin_checked
from gen2real.methods.settings import SourceSettings
from gen2real.models.captioner import IGNORED, Origin
from gen2real.training.distributed import share


@dataclass(frozen=True)
class CaptionedPictures:
    """Pictures of one origin. A row is one caption: `rows` [R] are the pictures that `captions` [R] belong to."""

    pictures: Pictures
    origin: Origin
    weight: float
    rows: Tensor
    captions: list[str]


class CaptioningSets:
    """What a run learns from, and the real pictures that it is measured on.

    Raises: ImageSetError for pictures without captions, of the wrong origin, or that are both trained and measured on;
        UnreadablePictures.
    """

    def __init__(self, settings: CaptioningData, preprocess: Preprocess, *, seed: int) -> None:
        self._settings, self._preprocess = settings, preprocess
        wanted: list[tuple[Origin, SourceSettings]] = []
        if settings.train_on != "real":
            wanted += [("generated", one) for one in settings.generated]
        if settings.train_on != "generated" and settings.real is not None:
            wanted.append(("real", settings.real))
        sets = [origin_checked(ImageSet.read(one.path).kept(), origin) for origin, one in wanted]
        if settings.pictures is not None:
            sets = at_most([origin for origin, _ in wanted], sets, settings.pictures, seed)
        self.sources = [
            self._captioned(image_set, origin, one.weight)
            for image_set, (origin, one) in zip(sets, wanted, strict=True)
            if len(image_set)
        ]
        self.evaluation = self._pictures(_with_captions(ImageSet.read(settings.evaluation).kept()))
        refuse_leak(settings.evaluation, [one.pictures.image_set for one in self.sources])

    def sampler(self, batch_size: int, seed: int) -> EpochSampler:
        """Draws captions over all sources by weight; with equal weights an epoch is every caption once."""
        weights = [one.weight for one in self.sources]
        sizes = [len(one.captions) for one in self.sources]
        return EpochSampler(sizes, None if len(set(weights)) == 1 else weights, batch_size, seed)

    def count(self, origin: Origin) -> int:
        """Pictures of one origin that are trained on."""
        return sum(len(one.pictures) for one in self.sources if one.origin == origin)

    def _captioned(self, image_set: ImageSet, origin: Origin, weight: float) -> CaptionedPictures:
        pictures = self._pictures(_with_captions(image_set))
        told = [[text for text in own if text.strip()] for own in pictures.image_set.captions]
        rows = np.repeat(np.arange(len(told)), [len(own) for own in told])
        return CaptionedPictures(
            pictures, origin, weight, torch.from_numpy(rows), [text for own in told for text in own]
        )

    def _pictures(self, image_set: ImageSet) -> Pictures:
        settings = self._settings
        return Pictures(image_set, self._preprocess, cache=settings.cache, on_unreadable=settings.on_unreadable)


@dataclass(frozen=True)
class CaptionBatch:
    """One process's part: embeddings [n D], which of the pictures are generated [n], caption ids [n L].

    `rows` counts the rows of the part on all processes. A process that has none of a batch's last few holds one all the
    same, whose ids are all `IGNORED`: models run on it, since all must, and it has no loss.
    """

    features: Tensor
    generated: Tensor
    ids: Tensor
    rows: int


class CaptionBatches:
    """Captions with their pictures' embeddings, by update number."""

    def __init__(
        self,
        sources: Sequence[CaptionedPictures],
        features: Sequence[Tensor],
        ids: Sequence[Tensor],
        sampler: EpochSampler,
        *,
        parts: int,
    ) -> None:
        """features: [N D] of each source's pictures. ids: [R L] of its captions. parts: accumulation steps."""
        self._sources, self._features, self._ids = sources, features, ids
        self._sampler, self._parts = sampler, parts

    def __call__(self, numbers: range) -> Iterator[tuple[CaptionBatch, ...]]:
        return (self._make(number) for number in numbers)

    def _make(self, number: int) -> tuple[CaptionBatch, ...]:
        drawn = self._sampler.batch(number)
        size = -(-len(drawn) // self._parts)
        return tuple(self._part(drawn[i : i + size]) for i in range(0, len(drawn), size))

    def _part(self, drawn: list[tuple[int, int]]) -> CaptionBatch:
        own = share(drawn)
        held = own or drawn[:1]
        features = [self._features[source][self._sources[source].rows[row]] for source, row in held]
        ids = torch.nn.utils.rnn.pad_sequence(
            [self._ids[source][row] for source, row in held], batch_first=True, padding_value=IGNORED
        )
        ids = ids[:, : int((ids != IGNORED).sum(dim=1).max())]
        if not own:
            ids = torch.full_like(ids, IGNORED)
        generated = torch.tensor([self._sources[source].origin == "generated" for source, _ in held])
        return CaptionBatch(torch.stack(features), generated, ids, len(drawn))


def _with_captions(one: ImageSet) -> ImageSet:
    without = [name for name, own in zip(one.ids, one.captions, strict=True) if not any(text.strip() for text in own)]
    if without:
        raise ImageSetError(
            f"{len(without)} of the {len(one)} pictures in {one.manifest} have no caption (first: {without[0]!r}). "
            "Import them from a table with a column of captions, or draw them from captions: gen2real generate."
        )
    return one
