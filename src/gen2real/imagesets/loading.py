"""Pictures in memory or decoded anew, and batches made ahead of time in threads."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from gen2real.errors import ImageSetError, Offender, UnreadablePictures
from gen2real.imagesets.decoding import (
    MAX_PIXELS,
    Colour,
    Policy,
    Unreadable,
    check_pictures,
    check_policy,
    decode,
    report_offenders,
)
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.transforms import Augmentation, Preprocess

T = TypeVar("T")
Cache = Literal["auto", "memory", "none"]
GIB = 1024**3


class Pictures:
    """The pictures of an image set as an encoder wants them: exact for evaluation, randomly cropped for training.

    image_set: `.image_set` is the same again, less the unreadable pictures if they are skipped; indices refer to it.
    cache: "memory" keeps what was decoded once, "none" nothing, "auto" keeps it where the estimate of all of it stays
        below memory_limit_bytes. Training and evaluation are estimated and kept apart; the limit is for both together.
    background: RGB beneath transparency; the preprocessing's own if not given.
    on_unreadable: "error" lists missing and empty files at once here, and others when they are met; "skip" decodes
        every picture here, leaves the bad ones out and warns with their number.

    Any number of threads may ask at once. Raises: ImageSetError for settings, UnreadablePictures.
    """

    def __init__(
        self,
        image_set: ImageSet,
        preprocess: Preprocess,
        *,
        augmentation: Augmentation | None = None,
        cache: Cache = "auto",
        memory_limit_bytes: int = 2 * GIB,
        background: Colour | None = None,
        on_unreadable: Policy = "error",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if cache not in ("auto", "memory", "none"):
            raise ImageSetError(f'cache must be "auto", "memory" or "none"; got {cache!r}.')
        check_policy(on_unreadable)
        self.image_set = _readable(image_set, on_unreadable, max_pixels)
        self.preprocess = preprocess
        self.augmentation = augmentation
        self.background = preprocess.background if background is None else background
        self.max_pixels = max_pixels
        self._limit = {"auto": float(memory_limit_bytes), "memory": math.inf, "none": 0.0}[cache]
        self._lock = threading.Lock()
        self._bytes_kept = 0
        self._keeps: dict[str, bool] = {}
        self._squares: dict[int, Tensor] = {}
        self._canvases: dict[int, Tensor] = {}
        least_share = augmentation.crop_scale[0] if augmentation else 1.0
        self._shortest = math.ceil(preprocess.size / math.sqrt(least_share))

    def __len__(self) -> int:
        return len(self.image_set)

    def evaluation(self, indices: Sequence[int]) -> UInt8[Tensor, "n 3 s s"]:
        """Uint8 [n 3 S S]: each picture through `Preprocess.geometry`, as decoded in full.

        Raises: UnreadablePictures listing every picture among `indices` that does not decode.
        """
        squares = self._gather(indices, self._squares, self._square, "evaluation")
        return torch.stack(squares) if squares else self._nothing()

    def training(self, indices: Sequence[int], generator: torch.Generator) -> UInt8[Tensor, "n 3 s s"]:
        """Uint8 [n 3 S S]: each picture augmented; the same generator state gives the same batch.

        Without an augmentation this is `evaluation`. Raises: UnreadablePictures.
        """
        if self.augmentation is None:
            return self.evaluation(indices)
        canvases = self._gather(indices, self._canvases, self._canvas, "training")
        return self.augmentation.apply(canvases, self.preprocess.size, generator)

    def _gather(
        self, indices: Sequence[int], kept: dict[int, Tensor], make: Callable[[int], Tensor], purpose: str
    ) -> list[Tensor]:
        found: list[Tensor] = []
        offenders: list[Offender] = []
        for index in map(int, indices):
            picture = kept.get(index)
            if picture is None:
                try:
                    picture = make(index)
                except Unreadable as fault:
                    offenders.append(Offender(self._path(index), str(fault)))
                    continue
                self._keep(index, picture, kept, purpose)
            found.append(picture)
        if offenders:
            raise UnreadablePictures(offenders)
        return found

    def _square(self, index: int) -> Tensor:
        picture = decode(self._path(index), background=self.background, max_pixels=self.max_pixels)
        return self.preprocess.geometry(picture)

    def _canvas(self, index: int) -> Tensor:
        # A scaled JPEG loses nothing that the canvas would keep, but only where the canvas keeps the aspect.
        enough = self._shortest if self.preprocess.fit == "crop" else None
        picture = decode(
            self._path(index), background=self.background, max_pixels=self.max_pixels, shortest_side=enough
        )
        return self.preprocess.canvas(picture, self._shortest)

    def _keep(self, index: int, picture: Tensor, kept: dict[int, Tensor], purpose: str) -> None:
        if not self._limit or not self._fits(purpose):
            return
        with self._lock:
            # The estimate is from a sample; the limit itself holds whatever the rest is like.
            if index not in kept and self._bytes_kept + picture.nbytes <= self._limit:
                kept[index] = picture
                self._bytes_kept += picture.nbytes

    def _fits(self, purpose: str) -> bool:
        """Whether all pictures for one purpose fit in what the other leaves; decided once."""
        if math.isinf(self._limit):
            return True
        with self._lock:
            if purpose not in self._keeps:
                one = 3 * self.preprocess.size**2 if purpose == "evaluation" else self._mean_canvas_bytes()
                self._keeps[purpose] = self._bytes_kept + one * len(self) <= self._limit
            return self._keeps[purpose]

    def _mean_canvas_bytes(self) -> float:
        from PIL import Image

        sample = np.unique(np.linspace(0, len(self) - 1, num=min(len(self), 64)).astype(int))
        sizes = []
        for index in sample:
            try:
                with Image.open(self._path(int(index))) as picture:
                    width, height = self.preprocess.canvas_size(picture.size, self._shortest)
                    sizes.append(3 * width * height)
            except Exception:
                # What cannot be opened is named when it is asked for; the estimate does without.
                continue
        return float(np.mean(sizes)) if sizes else 3.0 * self._shortest**2

    def _path(self, index: int) -> Path:
        return self.image_set.paths[index]

    def _nothing(self) -> Tensor:
        return torch.empty((0, 3, self.preprocess.size, self.preprocess.size), dtype=torch.uint8)


def prefetch(make_batch: Callable[[int], T], steps: range, *, depth: int = 2, workers: int = 2) -> Iterator[T]:
    """make_batch(step) for each step in order, made up to `depth` ahead (at least `workers`) in threads.

    What make_batch raises is raised here, at its step. Closing the iterator, or leaving it by an exception, waits for
    the batches being made and ends the threads. In them torch runs on one core; the caller's number stays.

    Raises: ImageSetError unless depth and workers are at least 1.
    """
    if depth < 1 or workers < 1:
        raise ImageSetError(f"depth and workers must be at least 1; got depth={depth}, workers={workers}.")
    return _prefetched(make_batch, steps, max(depth, workers), workers)


def _prefetched(make_batch: Callable[[int], T], steps: range, depth: int, workers: int) -> Iterator[T]:
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(
        workers, thread_name_prefix="gen2real-batches", initializer=torch.set_num_threads, initargs=(1,)
    )
    waiting: deque[Future[T]] = deque()
    try:
        for step in steps:
            waiting.append(pool.submit(make_batch, step))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # The number that a worker sets for itself also becomes the default of threads yet to come.
        torch.set_num_threads(cores)


def _readable(image_set: ImageSet, policy: Policy, max_pixels: int) -> ImageSet:
    if policy == "skip":
        readable = check_pictures(image_set.paths, "skip", max_pixels=max_pixels).readable
        return image_set if len(readable) == len(image_set) else image_set.select(readable)
    offenders = []
    for path in image_set.paths:
        try:
            if path.stat().st_size == 0:
                offenders.append(Offender(path, "the file is empty (0 bytes)"))
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            offenders.append(Offender(path, "the file does not exist" if missing else str(error.strerror)))
    report_offenders(offenders, len(image_set), policy)
    return image_set
