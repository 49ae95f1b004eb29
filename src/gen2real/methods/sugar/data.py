"""What Sugar learns from: interleaved samples, checked as a whole before the first update, and their batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path

import torch

from gen2real.errors import ImageSetError, UnreadablePictures
from gen2real.imagesets.decoding import Policy, check_pictures
from gen2real.imagesets.interleaved import Interleaved, Slice, Turn, read_interleaved, slices
from gen2real.imagesets.sampling import EpochSampler, nested_rows
from gen2real.imagesets.seeds import row_generator
from gen2real.methods.batches import RowBatches, TextShare
from gen2real.methods.sugar.labels import SliceFeatures
from gen2real.methods.sugar.settings import SequenceData, SugarConfig
from gen2real.models.multimodal import MultimodalModel
from gen2real.models.sequences import Sequences, check_sequences, encode_sequences, pack
from gen2real.training.distributed import share


@dataclass(frozen=True)
class Source:
    """The samples of one file that are learnt from, and each one's slices."""

    path: Path
    samples: list[Interleaved]
    slices: list[list[Slice]]
    weight: float


class SugarData:
    """The sources of a run.

    Raises: ImageSetError listing what cannot be learnt from in every file: lines, pictures and samples;
        UnreadablePictures where nothing else is wrong.
    """

    def __init__(self, settings: SequenceData, model: MultimodalModel, *, seed: int) -> None:
        faults: list[ImageSetError] = []
        found = []
        for source in settings.train:
            with _collected(faults):
                found.append((source, read_interleaved(source.path)))
        if settings.samples is not None:
            most = settings.samples
            found = [(source, [own[row] for row in nested_rows(len(own), most, seed)]) for source, own in found]
        pictures = list(dict.fromkeys(path for _, own in found for sample in own for path in sample.pictures))
        sizes = _sizes(pictures, settings.on_unreadable, faults)
        self.sources = []
        for source, samples in found:
            readable = [sample for sample in samples if all(path in sizes for path in sample.pictures)]
            with _collected(faults, source.path):
                if not readable and settings.on_unreadable == "skip":
                    raise ImageSetError("it has no sample whose pictures can all be read.")
                check_sequences(model, readable, sizes, max_length=settings.max_length)
            self.sources.append(Source(source.path, readable, [slices(one) for one in readable], source.weight))
        if faults:
            raise faults[0] if len(faults) == 1 else ImageSetError("\n".join(map(str, faults)))

    @property
    def samples(self) -> int:
        """How many are learnt from."""
        return sum(len(source.samples) for source in self.sources)

    @property
    def pictures(self) -> list[Path]:
        """The different pictures that they hold."""
        every = (path for source in self.sources for sample in source.samples for path in sample.pictures)
        return list(dict.fromkeys(every))

    @property
    def slices(self) -> list[Slice]:
        """Every slice of every sample."""
        return [one for source in self.sources for own in source.slices for one in own]

    def row(self, number: int, source: int, index: int) -> Drawn:
        """A sample in the update `number`, nothing of it drawn yet."""
        one = self.sources[source]
        before = sum(len(other.samples) for other in self.sources[:source])
        return Drawn(number, before + index, one.samples[index], one.slices[index])

    def sampler(self, batch_size: int, seed: int) -> EpochSampler:
        """Draws over all sources by weight; equal weights make every epoch one pass over all samples."""
        weights = [source.weight for source in self.sources]
        sizes = [len(source.samples) for source in self.sources]
        return EpochSampler(sizes, None if len(set(weights)) == 1 else weights, batch_size, seed)


@dataclass(frozen=True, eq=False)
class Drawn:
    """A row of an update: a sample, and what is drawn of it.

    number: the update's, from 0. owner: the sample's, the same wherever it comes again. readouts: numbers of slices,
    ascending: prefixes end with them. halves: the sample cut in two for InfoNCE; None where that is not asked for, or
    where no picture stands beside a text.
    """

    number: int
    owner: int
    sample: Interleaved
    slices: list[Slice]
    readouts: tuple[int, ...] = ()
    halves: tuple[Interleaved, Interleaved] | None = None


@dataclass(frozen=True, eq=False)
class Prefixes:
    """What labels are made of: the read-outs of a part on all processes, in its order.

    features: of the part's own slices. rows: of each prefix, its slices in `features`. owners: of each, its sample.
    """

    features: SliceFeatures
    rows: list[list[int]]
    owners: list[int]


@dataclass(frozen=True, eq=False)
class Halves:
    """Samples cut in two, each one's second half behind its first.

    chunks: of `size` halves, as go through the model at once. own: how many samples count here: a process without any
    has one that stands in. owners: of the cut samples of all processes.
    """

    chunks: list[Sequences]
    size: int
    own: int
    owners: list[int]


@dataclass(frozen=True, eq=False)
class Batch(TextShare):
    """One process's part of an update.

    number: the update's, from 0. tokens: learnt ones of this process's rows in all parts of the update. readouts: how
    many of the sequences' count.
    """

    number: int
    tokens: int
    sequences: Sequences
    readouts: int
    prefixes: Prefixes | None
    halves: Halves | None

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        halves, prefixes = self.halves, self.prefixes
        if halves is not None:
            halves = replace(halves, chunks=[chunk.to(device) for chunk in halves.chunks])
        if prefixes is not None:
            prefixes = replace(prefixes, features=prefixes.features.to(device))
        return replace(self, sequences=self.sequences.to(device), halves=halves, prefixes=prefixes)


class SugarBatches(RowBatches[Drawn, Batch]):
    """Samples by update number; what is read of one is drawn by the run's seed, the update and its place in it.

    Args:
        features: of every slice; None where no labels are made.
    """

    def __init__(
        self,
        data: SugarData,
        model: MultimodalModel,
        sampler: EpochSampler,
        config: SugarConfig,
        features: SliceFeatures | None = None,
    ) -> None:
        training = config.training
        super().__init__(sampler, seed=config.seed, parts=training.accumulation, workers=training.loader_workers)
        self._data, self._model, self._features = data, model, features
        self._settings, self._packed = config.discriminative, config.data.packed

    def _make(self, number: int) -> tuple[Batch, ...]:
        parts = super()._make(number)
        tokens = sum(part.tokens for part in parts)
        return tuple(replace(part, tokens=tokens) for part in parts)

    def _row(self, number: int, place: int, source: int, index: int) -> Drawn:
        row = self._data.row(number, source, index)
        if self._settings.weight == 0:
            return row
        generator = row_generator(self._seed, number, place)
        if self._settings.form == "infonce":
            return replace(row, halves=drawn_halves(row.sample, row.slices, generator))
        return replace(row, readouts=drawn_readouts(len(row.slices), self._settings.readouts, generator))

    def _part(self, rows: list[Drawn], whole: list[Drawn]) -> Batch:
        own = share(rows)
        seen = own or rows[:1]
        sequences = encode_sequences(self._model, [row.sample for row in seen], [row.readouts for row in seen])
        tokens = int(sequences.tokens[: len(own)].sum())
        sequences = self._in_rows(sequences)
        return Batch(
            own=len(own),
            rows=len(rows),
            all_rows=len(whole),
            number=rows[0].number,
            tokens=tokens,
            sequences=sequences,
            readouts=sum(len(row.readouts) for row in own),
            prefixes=None if self._features is None else prefixes_of(rows, self._features),
            halves=self._halves(rows, own),
        )

    def _in_rows(self, sequences: Sequences) -> Sequences:
        return pack(sequences, sequences.labels.shape[1]) if self._packed else sequences

    def _halves(self, rows: list[Drawn], own: list[Drawn]) -> Halves | None:
        if self._settings.weight == 0 or self._settings.form != "infonce":
            return None
        cut = [row for row in rows if row.halves is not None]
        mine = [row for row in own if row.halves is not None]
        # Whoever has none runs the model all the same, as the others wait for its gradients.
        standing_in = [half for row in cut[:1] for half in row.halves or ()] or [Interleaved("", (Turn(("-",)),))] * 2
        halves = [half for row in mine for half in row.halves or ()] or standing_in
        size = 2 * (self._settings.chunk or len(halves))
        chunks = [
            self._in_rows(encode_sequences(self._model, some, [[-1] for _ in some]))
            for some in (halves[start : start + size] for start in range(0, len(halves), size))
        ]
        return Halves(chunks, size, len(mine), [row.owner for row in cut])


@contextmanager
def _collected(faults: list[ImageSetError], path: Path | None = None) -> Iterator[None]:
    """What is found faulty within is kept, so that the rest is looked at too. path: put before what is said."""
    try:
        yield
    except ImageSetError as fault:
        faults.append(fault if path is None else ImageSetError(f"{path}: {fault}"))


def _sizes(pictures: Sequence[Path], policy: Policy, faults: list[ImageSetError]) -> dict[Path, tuple[int, int]]:
    """(width, height) of each picture that can be read; the others are a fault, or left out if the policy says so."""
    try:
        found = check_pictures(pictures, policy).results
    except UnreadablePictures as fault:
        faults.append(fault)
        lost = {one.path for one in fault.offenders}
        return _sizes([path for path in pictures if path not in lost], policy, faults)
    return {path: size for path, size in zip(pictures, found, strict=True) if size is not None}


def drawn_readouts(count: int, most: int, generator: torch.Generator) -> tuple[int, ...]:
    """At most `most` of `count` slices, without repetition, in order."""
    return tuple(sorted(torch.randperm(count, generator=generator)[:most].tolist()))


def drawn_halves(
    sample: Interleaved, own: list[Slice], generator: torch.Generator
) -> tuple[Interleaved, Interleaved] | None:
    """What users say in a sample, cut where a picture stands beside a text; which such place is drawn. Each half is a
    document, as contents are embedded. None where there is no such place."""
    borders = [after for before, after in pairwise(own) if before.kind != after.kind]
    if not borders:
        return None
    border = borders[int(torch.randint(len(borders), (), generator=generator))]
    # Slices of two kinds lie in two parts.
    place = sum(len(turn.parts) for turn in sample.turns[: border.turn]) + border.part
    first, second = (Interleaved(sample.id, (Turn(parts),)) for parts in (sample.parts[:place], sample.parts[place:]))
    return first, second


def prefixes_of(rows: list[Drawn], features: SliceFeatures) -> Prefixes:
    """The prefixes of all read-outs, with the features of these rows' slices alone: what goes to the device."""
    known = [features.prefix(row.slices[: max(row.readouts, default=-1) + 1]) for row in rows]
    distinct = {place: number for number, place in enumerate(dict.fromkeys(chain.from_iterable(known)))}
    chosen = torch.tensor(list(distinct), dtype=torch.long)
    return Prefixes(
        SliceFeatures({}, features.pictures[chosen], features.own[chosen], features.joint[chosen]),
        [
            [distinct[place] for place in own[: readout + 1]]
            for row, own in zip(rows, known, strict=True)
            for readout in row.readouts
        ],
        [row.owner for row in rows for _ in row.readouts],
    )
