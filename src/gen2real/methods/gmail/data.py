"""The pictures of an alignment: those that go through f_g, their real partners, their texts, and held-out pairs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gen2real.errors import ImageSetError
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ImageSet, held_out_rows
from gen2real.imagesets.pairs import Pairs, pair_up
from gen2real.imagesets.sampling import EpochSampler
from gen2real.imagesets.transforms import Augmentation, Preprocess
from gen2real.methods.batches import SourceBatches
from gen2real.methods.gmail.settings import AlignmentDataSettings, GMAILConfig
from gen2real.methods.leaks import refuse_leak, shared_pictures
from gen2real.methods.origins import origin_checked

Rows = npt.NDArray[np.int64]
NOBODY = -1


@dataclass(frozen=True)
class Source:
    """Pictures that go through f_g. partners: [n] rows of the real pictures, or `NOBODY`. texts: for each picture the
    numbers of its texts; empty where the loss reads none."""

    pictures: Pictures
    partners: Rows
    texts: list[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass
class Texts:
    """Every text once. first_sentences: of each text, the number of its first sentence's text."""

    listed: list[str] = field(default_factory=list)
    _places: dict[str, int] = field(default_factory=dict)

    def number(self, text: str) -> int:
        """The number of a text, which is listed at its first use."""
        if text not in self._places:
            self._places[text] = len(self.listed)
            self.listed.append(text)
        return self._places[text]

    def first_sentences(self) -> list[str]:
        """Each text's first sentence."""
        return [first_sentence(text) for text in self.listed]


@dataclass(frozen=True)
class HeldOut:
    """Pairs to look at: generated pictures, real ones, and each generated one's real row; `partners` is None without
    pairs. No real picture of them, nor a generated one of these, is trained on."""

    generated: Pictures
    real: Pictures
    partners: Rows | None


class AlignmentData:
    """What a run learns from, and what it is looked at with.

    Attributes:
        sources: what goes through f_g. real: the pictures that are aligned to, in evaluation geometry, or None.
        pool: rows of `real` to draw from where nothing is paired. texts: what the sources' text numbers mean.
        held_out: None where there are no real pictures or nothing is held out.
        transductive: the real pictures are (some of) the unlabelled ones that are measured on.
        unmatched: generated pictures without a real partner, which are left out.

    Raises: ImageSetError and UnreadablePictures for sets that do not fit.
    """

    def __init__(self, config: GMAILConfig, preprocess: Preprocess) -> None:
        self.settings, self.preprocess = config.data, preprocess
        self._config, self.texts, self.unmatched = config, Texts(), 0
        generated = [self._readable(ImageSet.read(path).kept(), "generated") for path in self.settings.generated]
        real = None if self.settings.real is None else self._readable(ImageSet.read(self.settings.real).kept(), "real")
        self.pool = np.empty(0, np.int64)
        self.real: Pictures | None = None
        self.held_out: HeldOut | None = None
        self.sources = self._without_real(generated) if real is None else self._with_real(generated, real)
        self.transductive = self._leak()

    @property
    def paired(self) -> bool:
        """Whether held-out pictures have partners."""
        return self.held_out is not None and self.held_out.partners is not None

    def sampler(self, batch_size: int, seed: int) -> EpochSampler:
        """Every picture of every source once an epoch, less a last batch with too few others to be told from."""
        sizes = [len(source) for source in self.sources]
        return EpochSampler(sizes, None, batch_size, seed, drop_last=sum(sizes) > batch_size)

    def _readable(self, one: ImageSet, origin: Literal["generated", "real"]) -> ImageSet:
        return self._pictures(origin_checked(one, origin), None).image_set

    def _pictures(self, one: ImageSet, augmentation: Augmentation | None) -> Pictures:
        return Pictures(
            one,
            self.preprocess,
            augmentation=augmentation,
            cache=self.settings.cache,
            on_unreadable=self.settings.on_unreadable,
        )

    @property
    def _augmentation(self) -> Augmentation:
        return Augmentation(**self.settings.augmentation.model_dump())

    def _without_real(self, generated: Sequence[ImageSet]) -> list[Source]:
        rows = [(place, row) for place, one in enumerate(generated) for row in range(len(one))]
        chosen = set(self._chosen(rows))
        sources = []
        for place, one in enumerate(generated):
            own = [row for row in range(len(one)) if (place, row) in chosen]
            part = one.select(own)
            if own:
                texts = self._texts_of(part, [()] * len(own))
                sources.append(Source(self._pictures(part, self._augmentation), np.full(len(own), NOBODY), texts))
        return sources

    def _with_real(self, generated: Sequence[ImageSet], whole: ImageSet) -> list[Source]:
        pairs = [self._pairs(one, whole) for one in generated]
        # f_r sees a real picture once, and those that nobody is aligned to not at all.
        used = np.arange(len(whole))
        if generated and all(one is not None for one in pairs) and self._config.aligns != "distributions":
            used = np.unique(np.concatenate([one.real for one in pairs if one is not None]))
        place_of = np.full(len(whole), NOBODY)
        place_of[used] = np.arange(len(used))
        real = whole.select(used)
        self.real = self._pictures(real, None)
        self.unmatched = sum(len(one.unmatched) for one in pairs if one is not None)
        # By partner: a real picture must not be trained on through another generated one.
        out = held_out_rows(real.ids, np.zeros(len(real), np.int64), self.settings.holdout)
        rows: list[tuple[int, int]] = []
        held: list[tuple[int, int]] = []
        partner: dict[tuple[int, int], int] = {}
        for place, (one, own) in enumerate(zip(generated, pairs, strict=True)):
            if own is None:
                away = held_out_rows(one.ids, np.zeros(len(one), np.int64), self.settings.holdout)
                partner |= {(place, row): NOBODY for row in range(len(one))}
            else:
                partner |= {
                    (place, row): int(place_of[other])
                    for row, other in zip(own.generated.tolist(), own.real.tolist(), strict=True)
                }
                away = np.zeros(len(one), bool)
                away[own.generated] = out[place_of[own.real]]
            known = [row for row in range(len(one)) if (place, row) in partner]
            rows += [(place, row) for row in known if not away[row]]
            held += [(place, row) for row in known if away[row]]
        chosen = self._chosen(rows)
        unpaired = any(one is None for one in pairs)
        self.pool = np.arange(len(real)) if unpaired else np.flatnonzero(~out)
        self.held_out = self._held_out(generated, held, partner, real, unpaired=unpaired)
        sources = [] if self.settings.train_on == "real" else self._generated_sources(generated, chosen, partner, real)
        if self.settings.train_on != "generated":
            partners = np.unique([partner[one] for one in chosen]) if generated else np.flatnonzero(~out)
            if not generated and self.settings.pictures is not None:
                order = np.random.default_rng([self._config.seed, 1]).permutation(partners)
                partners = np.sort(order[: self.settings.pictures])
            own_set = real.select(partners)
            texts = self._texts_of(own_set, [()] * len(own_set))
            sources.append(Source(self._pictures(own_set, self._augmentation), partners.astype(np.int64), texts))
        return sources

    def _pairs(self, one: ImageSet, real: ImageSet) -> Pairs | None:
        if self._config.aligns == "distributions":
            # Pairs are looked at where there are some, and nothing needs them.
            with suppress(ImageSetError):
                return pair_up(one, real)
            return None
        return pair_up(one, real)

    def _generated_sources(
        self,
        generated: Sequence[ImageSet],
        chosen: Sequence[tuple[int, int]],
        partner: dict[tuple[int, int], int],
        real: ImageSet,
    ) -> list[Source]:
        sources = []
        captions = real.captions
        for place, one in enumerate(generated):
            own = sorted(row for where, row in chosen if where == place)
            if not own:
                continue
            partners = np.array([partner[place, row] for row in own], dtype=np.int64)
            part = one.select(own)
            theirs = [() if row == NOBODY else tuple(captions[row]) for row in partners.tolist()]
            sources.append(Source(self._pictures(part, self._augmentation), partners, self._texts_of(part, theirs)))
        return sources

    def _chosen(self, rows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """At most `pictures` of the rows; for one seed, fewer are always among more."""
        if not rows:
            return []
        order = np.random.default_rng([self._config.seed, 1]).permutation(len(rows))[: self.settings.pictures]
        return [rows[place] for place in sorted(order.tolist())]

    def _held_out(
        self,
        generated: Sequence[ImageSet],
        held: Sequence[tuple[int, int]],
        partner: dict[tuple[int, int], int],
        real: ImageSet,
        *,
        unpaired: bool,
    ) -> HeldOut | None:
        if not held:
            return None
        sets = [one.select([row for where, row in held if where == place]) for place, one in enumerate(generated)]
        joined = _joined([one for one in sets if len(one)])
        if unpaired:
            return HeldOut(self._pictures(joined, None), self._pictures(real, None), None)
        partners = np.array([partner[one] for one in held], dtype=np.int64)
        used, place = np.unique(partners, return_inverse=True)
        return HeldOut(
            self._pictures(joined, None), self._pictures(real.select(used), None), place.reshape(-1).astype(np.int64)
        )

    def _texts_of(self, own: ImageSet, theirs: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        if not self._config.reads_texts:
            return [()] * len(own)
        found = []
        for mine, partners in zip(own.captions, theirs, strict=True):
            usable = [[text for text in side if text.strip()] for side in (mine, partners)]
            if self.settings.captions == "longest":
                texts = [max((text for side in usable for text in side), key=len, default="")]
            else:
                texts = usable[0] or usable[1]
            found.append(tuple(self.texts.number(text) for text in texts if text))
        if lacking := sum(not texts for texts in found):
            raise ImageSetError(
                f"{lacking} of the {len(own)} pictures in {own.manifest} have no caption, nor has their partner, and "
                f"loss: {self._config.loss} reads them. Import captions (gen2real import coco, or import table "
                "--caption-column NAME), or set loss=align."
            )
        return found

    def _leak(self) -> bool:
        if self.settings.evaluation is None:
            return False
        trained = [source.pictures.image_set for source in self.sources]
        if self.real is not None and self._config.aligns == "distributions":
            # Unlabelled pictures of the test set may be aligned to, and the result then says that it is transductive.
            tested = ImageSet.read(self.settings.evaluation)
            refuse_leak(self.settings.evaluation, trained)
            return bool(shared_pictures(tested, self.real.image_set))
        refuse_leak(self.settings.evaluation, trained if self.real is None else [*trained, self.real.image_set])
        return False


def first_sentence(text: str) -> str:
    """Up to the first full stop, exclamation or question mark that white space follows; else all of it."""
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0]


def _joined(sets: Sequence[ImageSet]) -> ImageSet:
    """Rows of several sets as one, in memory, with absolute paths; an id may then occur twice."""
    if len(sets) == 1:
        return sets[0]
    import pyarrow as pa

    tables = [
        pa.table({"path": pa.array([str(path) for path in one.paths]), **{name: one.table[name] for name in _KEPT}})
        for one in sets
    ]
    return ImageSet(sets[0].root, sets[0].manifest, pa.concat_tables(tables), ())


_KEPT = ("id", "origin", "label", "captions", "pair_id", "sha256", "kept")


@dataclass(frozen=True)
class AlignmentBatch:
    """One process's part: pixels [n 3 S S] as bytes (one picture all the same where the process has no row), the
    partners' rows [n] and the texts' numbers [n]. rows: of all processes."""

    pixels: Tensor
    partners: Tensor
    texts: Tensor
    rows: int


class AlignmentBatches(SourceBatches[AlignmentBatch]):
    """Pictures for f_g by update number; their partners' pictures are not decoded, as f_r has seen them before."""

    def __init__(self, data: AlignmentData, sampler: EpochSampler, config: GMAILConfig) -> None:
        training = config.training
        super().__init__(
            [source.pictures for source in data.sources],
            sampler,
            seed=config.seed,
            parts=training.accumulation,
            workers=training.loader_workers,
        )
        self._sources = data.sources
        self._pool = torch.from_numpy(data.pool) if config.aligns == "distributions" else None

    def _batch(
        self, pixels: Tensor, own: Sequence[tuple[int, int]], generators: Sequence[torch.Generator], rows: int
    ) -> AlignmentBatch:
        partners, texts = [], []
        for (source, index), generator in zip(own, generators, strict=True):
            known = self._sources[source]
            choice = known.texts[index]
            texts.append(choice[_draw(len(choice), generator)] if choice else NOBODY)
            partner = int(known.partners[index])
            if self._pool is not None:
                partner = int(self._pool[_draw(len(self._pool), generator)])
            partners.append(partner)
        return AlignmentBatch(
            pixels, torch.tensor(partners, dtype=torch.long), torch.tensor(texts, dtype=torch.long), rows
        )


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def evaluated(settings: AlignmentDataSettings, preprocess: Preprocess) -> Pictures | None:
    """The pictures to measure on; opened when training has ended."""
    if settings.evaluation is None:
        return None
    whole = ImageSet.read(settings.evaluation).kept()
    return Pictures(whole, preprocess, cache=settings.cache, on_unreadable=settings.on_unreadable)
