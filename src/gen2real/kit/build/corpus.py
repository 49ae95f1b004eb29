"""The pictures and texts that the checkpoints are trained on: rendered once, kept on disk, read by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gen2real.files import atomic_file, digest
from gen2real.imagesets.sampling import EpochSampler
from gen2real.imagesets.seeds import row_generator
from gen2real.kit.build.settings import BuildConfig, StageSettings
from gen2real.kit.world.language import long_caption, noisy_caption
from gen2real.kit.world.render import render, toy_masks
from gen2real.kit.world.scenes import Scene, sample_scene, stream
from gen2real.kit.world.vocabulary import DOMAINS
from gen2real.training.distributed import share

_AT_A_TIME = 500


@dataclass(frozen=True)
class CorpusBatch:
    """One process's share of a batch. rows: of all processes; places: [n] of each row in the whole batch."""

    indices: npt.NDArray[np.int64]
    generator: torch.Generator
    rows: int


class Batches:
    """Batches of scene numbers by update number, with random numbers that belong to the update."""

    def __init__(self, scenes: int, stage: StageSettings, *, seed: int) -> None:
        self._sampler = EpochSampler(
            [scenes], batch_size=stage.batch_size, seed=seed, drop_last=scenes > stage.batch_size
        )
        self._seed = seed

    def __call__(self, numbers: range) -> Iterator[tuple[CorpusBatch, ...]]:
        for number in numbers:
            rows = [index for _, index in self._sampler.batch(number)]
            own = np.array(share(rows), dtype=np.int64)
            first = int(share(list(range(len(rows))))[0])
            yield (CorpusBatch(own, row_generator(self._seed, number, first), len(rows)),)


def pictures(config: BuildConfig, *, jobs: int) -> npt.NDArray[np.uint8]:
    """uint8 [scenes 64 64 3], rendered where not yet on disk; read by memory map."""
    return _rendered(config, "pictures", render, jobs)


def masks(config: BuildConfig, *, jobs: int) -> npt.NDArray[np.uint8]:
    """uint8 [scenes 64 64]: where the toys are in `pictures`."""
    return _rendered(config, "masks", toy_masks, jobs)


def _rendered(
    config: BuildConfig, name: str, draw: Callable[[list[Scene]], npt.NDArray[np.uint8]], jobs: int
) -> npt.NDArray[np.uint8]:
    path = config.output / f"{name}-{config.seed}-{config.scenes}.npy"
    if not path.exists():
        starts = range(0, config.scenes, _AT_A_TIME)
        with ProcessPoolExecutor(jobs) as pool:
            parts = pool.map(_drawn, starts, [config] * len(starts), [draw] * len(starts))
            _keep(path, np.concatenate(list(parts)))
    return np.load(path, mmap_mode="r")


def _drawn(
    start: int, config: BuildConfig, draw: Callable[[list[Scene]], npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8]:
    numbers = range(start, min(start + _AT_A_TIME, config.scenes))
    return draw([sample_scene("web", "train", number, seed=config.seed) for number in numbers])


def texts(config: BuildConfig) -> list[list[str]]:
    """Each scene's captions: short ones with the domain's noise, then the long one."""
    noise = DOMAINS["web"].caption_noise
    told = []
    for index in range(config.scenes):
        scene = sample_scene("web", "train", index, seed=config.seed)
        random = stream(config.seed, "web", "train", index, purpose=2)
        told.append(
            [*(noisy_caption(scene, random, noise) for _ in range(config.captions_per_scene)), long_caption(scene)]
        )
    return told


def token_ids(config: BuildConfig, tokenizer: Any) -> Tensor:
    """int64 [scenes captions context]: every caption's ids, padded as the tokenizer pads."""
    path = config.output / f"tokens-{config.seed}-{config.scenes}-{digest(tokenizer.get_vocab())[:8]}.npy"
    if not path.exists():
        told = texts(config)
        flat = [text for of_scene in told for text in of_scene]
        ids = tokenizer(flat, padding="max_length", truncation=True, max_length=config.context)["input_ids"]
        _keep(path, np.array(ids, np.int16).reshape(len(told), len(told[0]), config.context))
    return torch.from_numpy(np.load(path).astype(np.int64))


def drawn_texts(ids: Tensor, batch: CorpusBatch) -> Tensor:
    """[n context]: for each scene of a batch one of its captions, by chance."""
    which = torch.randint(ids.shape[1], (len(batch.indices),), generator=batch.generator)
    return ids[torch.from_numpy(batch.indices), which]


def pixels(stored: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 [N S S 3] → float32 [N 3 S S] from −1 to 1, as autoencoder and CLIP of the kit expect them."""
    return scaled(torch.from_numpy(np.array(stored)).permute(0, 3, 1, 2))


def scaled(pictures: Tensor) -> Tensor:
    """Levels from 0 to 255 → −1 to 1."""
    return pictures.float() / 127.5 - 1


def _keep(path: Path, values: npt.NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.save(file, values)
