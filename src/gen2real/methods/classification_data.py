"""The pictures of a classification run: generated sets to learn from, held-out ones, and a sealed real set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gen2real.config import nearest
from gen2real.errors import ImageSetError
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ClassName, ImageSet, held_out_rows
from gen2real.imagesets.sampling import EpochSampler
from gen2real.imagesets.seeds import row_generator
from gen2real.imagesets.slugs import unique_slugs
from gen2real.imagesets.transforms import Augmentation, Preprocess
from gen2real.methods.batches import SourceBatches
from gen2real.methods.leaks import refuse_leak
from gen2real.methods.origins import origin_checked
from gen2real.methods.settings import DataSettings
from gen2real.models.aligned import shifted_tower
from gen2real.prompts import read_class_names
from gen2real.training.distributed import share

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures and their classes as indices into the run's class list.

    `shift` is ΔW of the image tower for generated pictures (GMAIL), empty for real ones and where there is one tower.
    """

    pictures: Pictures
    labels: Labels
    shift: Mapping[str, Tensor] = field(default_factory=dict)

    def tower(self, vision: nn.Module) -> nn.Module:
        """The image tower that these pictures go through: `vision` with weights W, or W + ΔW."""
        return shifted_tower(vision, self.shift)

    @property
    def image_set(self) -> ImageSet:
        """The rows behind the pictures, less those that were skipped as unreadable."""
        return self.pictures.image_set


class SealedSet:
    """Real pictures whose labels stay unread until `open`; before that, only the class names are looked at.

    Raises: ImageSetError where the set has a class that the run does not know.
    """

    def __init__(self, path: Path, classes: Sequence[ClassName]) -> None:
        self.path = path
        self._classes = classes
        class_indices(ImageSet.read(path), classes)

    def open(self, preprocess: Preprocess, data: DataSettings) -> LabelledPictures:
        """The set, for measuring after training has ended."""
        whole = ImageSet.read(self.path).kept()
        pictures = Pictures(whole, preprocess, cache=data.cache, on_unreadable=data.on_unreadable)
        return LabelledPictures(pictures, set_labels(pictures.image_set, self._classes))


class ClassificationData:
    """What a run learns from. Nothing here reads the evaluation set beyond its class names.

    Args:
        shift: ΔW of the image tower that generated pictures go through, training and held-out ones (GMAIL); empty
            where there is one tower for all.
        seed: of the run; it chooses the few-shot pictures. Which pictures are held out does not depend on it, so that
            several seeds are measured on the same ones.

    Raises: ImageSetError and UnreadablePictures for sets that do not fit; RecipeError for settings that do not.
    """

    def __init__(
        self, settings: DataSettings, preprocess: Preprocess, *, seed: int, shift: Mapping[str, Tensor] | None = None
    ) -> None:
        self.settings, self.preprocess, self.shift = settings, preprocess, shift or {}
        sets = [ImageSet.read(source.path).kept() for source in settings.generated]
        self.classes = _class_list(settings.class_names, sets[0])
        labels = [set_labels(one, self.classes) for one in sets]
        generated = [origin_checked(one, "generated") for one in sets]
        held_out: list[LabelledPictures] = []
        if settings.held_out is not None:
            apart = origin_checked(ImageSet.read(settings.held_out).kept(), "generated")
            held_out = [self._pictures(apart, None, self.shift)]
        elif settings.holdout > 0:
            ids = [f"{place}/{row}" for place, one in enumerate(sets) for row in one.ids]
            out = held_out_rows(ids, np.concatenate(labels), settings.holdout, seed=0)
            parts = np.split(out, np.cumsum([len(one) for one in sets])[:-1])
            held_out = [
                self._pictures(one.select(np.flatnonzero(part)), None, self.shift)
                for one, part in zip(sets, parts, strict=True)
                if part.any()
            ]
            generated = [one.select(np.flatnonzero(~part)) for one, part in zip(sets, parts, strict=True)]
        self.held_out = held_out
        augmentation = Augmentation(**settings.augmentation.model_dump())
        self.sources = [self._pictures(one, augmentation, self.shift) for one in generated]
        self.weights = [source.weight for source in settings.generated]
        if settings.real is not None:
            shots = _shots(ImageSet.read(settings.real.path).kept(), settings.real.shots, seed)
            self.sources.append(self._pictures(shots, augmentation, {}))
            self.weights.append(settings.real.weight)
        self.evaluation = None if settings.evaluation is None else SealedSet(settings.evaluation, self.classes)
        if self.evaluation is not None:
            refuse_leak(self.evaluation.path, [one.image_set for one in [*self.sources, *self.held_out]])

    @property
    def class_names(self) -> list[str]:
        """Names in class order."""
        return [one.name for one in self.classes]

    @property
    def measured_on(self) -> tuple[list[LabelledPictures], str]:
        """Generated pictures to measure on, and what they are: held out, or those of training where none are."""
        return (self.held_out, "held out") if self.held_out else (self.sources, "training")

    def sampler(self, batch_size: int, seed: int) -> EpochSampler:
        """Draws over all sources by weight; equal weights make every epoch one pass over all pictures."""
        weights = None if len(set(self.weights)) == 1 else self.weights
        labels = [source.labels for source in self.sources] if self.settings.class_unique else None
        sizes = [len(source.pictures) for source in self.sources]
        return EpochSampler(sizes, weights, batch_size, seed, labels=labels)

    def _pictures(
        self, one: ImageSet, augmentation: Augmentation | None, shift: Mapping[str, Tensor]
    ) -> LabelledPictures:
        pictures = Pictures(
            one,
            self.preprocess,
            augmentation=augmentation,
            cache=self.settings.cache,
            on_unreadable=self.settings.on_unreadable,
        )
        return LabelledPictures(pictures, set_labels(pictures.image_set, self.classes), shift)


@dataclass(frozen=True)
class Batch:
    """One process's part: pixels [n 3 S S] as bytes or features [n D], labels [n], a random number a row [n].

    `rows` counts the rows of the part on all processes. A process that has none of a batch's last few holds one input
    all the same, and no label: models run on it, since all must, and `outputs[: len(labels)]` drops what they say.
    `generated` [n] tells inputs that are generated pictures from real ones, where each have an image tower of theirs.
    """

    inputs: Tensor
    labels: Tensor
    draws: Tensor
    rows: int
    generated: Tensor | None = None

    def on(self, device: torch.device, preprocess: Preprocess) -> tuple[Tensor, Tensor, Tensor | None]:
        """Model inputs (pixels normalised there, so that bytes travel), labels and `generated` on a device."""
        generated = None if self.generated is None else self.generated.to(device, non_blocking=True)
        inputs = self.inputs.to(device, non_blocking=True)
        if inputs.dtype == torch.uint8:
            inputs = preprocess.normalize(inputs)
        return inputs, self.labels.to(device, non_blocking=True), generated


class PictureBatches(SourceBatches[Batch]):
    """Augmented pictures with their classes, by update number."""

    def __init__(self, data: ClassificationData, sampler: EpochSampler, *, seed: int, parts: int, workers: int) -> None:
        super().__init__([one.pictures for one in data.sources], sampler, seed=seed, parts=parts, workers=workers)
        self._labels = [one.labels for one in data.sources]
        self._shifted = [bool(one.shift) for one in data.sources] if data.shift else None

    def _batch(
        self, pixels: Tensor, own: Sequence[tuple[int, int]], generators: Sequence[torch.Generator], rows: int
    ) -> Batch:
        labels = [int(self._labels[source][index]) for source, index in own]
        draws = [int(torch.randint(2**31, (), generator=generator)) for generator in generators]
        generated = None
        if self._shifted is not None:
            # The one input of a process without rows may go through either tower.
            generated = torch.tensor([self._shifted[source] for source, _ in own] or [False])
        return Batch(
            pixels,
            torch.tensor(labels, dtype=torch.long),
            torch.tensor(draws, dtype=torch.long),
            rows=rows,
            generated=generated,
        )


class FeatureBatches:
    """Cached features by update number; one of a picture's views is drawn for each place in the batch."""

    def __init__(
        self, features: Sequence[Tensor], labels: Sequence[Labels], sampler: EpochSampler, *, seed: int, parts: int
    ) -> None:
        self._features = torch.cat(list(features), dim=1)
        self._labels = torch.from_numpy(np.concatenate(labels))
        self._starts = np.cumsum([0, *(one.shape[1] for one in features)])
        self._sampler, self._seed, self._parts = sampler, seed, parts

    def __call__(self, numbers: range) -> Iterator[tuple[Batch, ...]]:
        return (self._make(number) for number in numbers)

    def _make(self, number: int) -> tuple[Batch, ...]:
        drawn = np.array(self._sampler.batch(number), dtype=np.int64)
        rows = torch.from_numpy(self._starts[drawn[:, 0]] + drawn[:, 1])
        views = torch.randint(len(self._features), (len(rows),), generator=row_generator(self._seed, number))
        size = -(-len(rows) // self._parts)
        return tuple(self._part(rows[i : i + size], views[i : i + size]) for i in range(0, len(rows), size))

    def _part(self, rows: Tensor, views: Tensor) -> Batch:
        own = torch.tensor(share(list(range(len(rows)))), dtype=torch.long)
        held = own if len(own) else torch.tensor([0])
        return Batch(self._features[views[held], rows[held]], self._labels[rows[own]], views[own], rows=len(rows))


def class_indices(one: ImageSet, classes: Sequence[ClassName]) -> Labels:
    """For each class of an image set, then once more for "no class": its index in the run's class list, or -1.

    `class_indices(s, c)[s.labels]` are the set's labels in the run's numbering.

    Raises: ImageSetError for classes the run does not know, with the nearest it knows.
    """
    place = matching_classes(one.classes, classes)
    unknown = [known for known in one.classes if known.label not in place]
    if unknown:
        names = [known.name for known in classes]
        listed = "\n".join(
            f"  {known.name!r}" + (f" (nearest: {near!r})" if (near := nearest(known.name, names)) else "")
            for known in unknown[:10]
        )
        raise ImageSetError(
            f"{one.manifest} has {len(unknown)} class(es) that the run does not train on:\n{listed}\n"
            "Name them in data.class_names and generate pictures of them, or leave them out of that set."
        )
    return np.array([*(place.get(known.label, -1) for known in one.classes), -1], dtype=np.int64)


def matching_classes(own: Sequence[ClassName], classes: Sequence[ClassName]) -> dict[str, int]:
    """A set's labels → indices in the run's class list: by name where it is clear, else by name and label.

    Labels alone do not do: "C" and "C++" are c and c-2, or c-2 and c, after the order in which they were listed.
    """
    count = Counter(known.name for known in classes) | Counter(known.name for known in own)
    by_name = {known.name: index for index, known in enumerate(classes) if count[known.name] == 1}
    found = {known.label: by_name[known.name] for known in own if known.name in by_name}
    taken = set(found.values())
    by_both = {known: index for index, known in enumerate(classes) if index not in taken}
    return found | {known.label: by_both[known] for known in own if known in by_both}


def set_labels(one: ImageSet, classes: Sequence[ClassName]) -> Labels:
    """Int64 [N]: each picture's class as an index into `classes`.

    Raises: ImageSetError for classes that are not there and for pictures without one.
    """
    labels = class_indices(one, classes)[one.labels]
    if (labels < 0).any():
        raise ImageSetError(
            f"{int((labels < 0).sum())} of the {len(one)} pictures in {one.manifest} have no label; learning and "
            "measuring need one for each. Import them from a folder per class, or from a table with a label column."
        )
    return labels


def _class_list(names: Path | None, first: ImageSet) -> tuple[ClassName, ...]:
    if names is None:
        if not first.classes:
            raise ImageSetError(f"{first.manifest} has no classes; list them in a file and set data.class_names.")
        return tuple(first.classes)
    read = read_class_names(names)
    return tuple(ClassName(label, name) for label, name in zip(unique_slugs(read), read, strict=True))


def _shots(one: ImageSet, shots: int | None, seed: int) -> ImageSet:
    if shots is None:
        return one
    order = np.random.default_rng(seed).permutation(len(one))
    labels = one.labels
    chosen: list[int] = []
    for label in np.unique(labels[labels >= 0]):
        chosen += order[labels[order] == label][:shots].tolist()
    return one.select(sorted(chosen))
