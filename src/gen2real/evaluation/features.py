"""Image embeddings, encoded once: cached on disk under the content of weights, pictures and preprocessing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.files import digest, digest_tensors, read_tensors, write_tensors
from gen2real.imagesets.loading import Pictures, prefetch
from gen2real.imagesets.seeds import row_generator
from gen2real.imagesets.transforms import Preprocess
from gen2real.models.dual_encoder import DualEncoder
from gen2real.models.text_encoder import TextEncoder


def cache_folder() -> Path:
    """`$GEN2REAL_CACHE`, or `gen2real` in the user's cache folder. Everything in it can be removed at any time."""
    named = os.environ.get("GEN2REAL_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gen2real"


class FeatureCache:
    """Tensors on disk by the digest of what they were computed from."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder()) / "features"

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor stored under `key`, computed and stored at its first use. A torn file is computed again."""
        path = self.folder / f"{key}.safetensors"
        if path.exists():
            try:
                return read_tensors(path)["features"]
            except ModelError:
                path.unlink()
        value = compute()
        write_tensors(path, {"features": value})
        return value


def encode_pictures(
    vision: nn.Module, pictures: Pictures, *, batch_size: int = 64, workers: int = 2
) -> Float[Tensor, "n d"]:
    """Un-normalised embeddings [N D] (float32, CPU) of every picture in evaluation geometry, in order."""
    return _encode(
        vision, len(pictures), lambda rows: pictures.evaluation(rows), pictures, batch_size=batch_size, workers=workers
    )


def encode_views(
    vision: nn.Module, pictures: Pictures, *, views: int, seed: int, batch_size: int = 64, workers: int = 2
) -> Float[Tensor, "v n d"]:
    """Embeddings [V N D] of V views of every picture: the first in evaluation geometry, the others augmented."""

    def augmented(view: int) -> Tensor:
        def make(rows: list[int]) -> Tensor:
            return torch.cat([pictures.training([row], row_generator(seed, view, row)) for row in rows])

        return _encode(vision, len(pictures), make, pictures, batch_size=batch_size, workers=workers)

    plain = encode_pictures(vision, pictures, batch_size=batch_size, workers=workers)
    return torch.stack([plain, *(augmented(view) for view in range(1, views))])


def cached_views(
    vision: nn.Module, pictures: Pictures, *, views: int, seed: int, cache: FeatureCache, batch_size: int = 64
) -> Float[Tensor, "v n d"]:
    """`encode_views`, from the cache where the same weights have seen the same pictures in the same way before."""
    key = digest(
        digest_tensors(vision.state_dict()),
        repr(vision),
        pictures.image_set.fingerprint,
        pictures.preprocess.to_dict(),
        None if views == 1 or pictures.augmentation is None else asdict(pictures.augmentation),
        views,
        seed if views > 1 else None,
    )
    return cache.get(key, lambda: encode_views(vision, pictures, views=views, seed=seed, batch_size=batch_size))


@torch.no_grad()
def encode_drawn(
    vision: nn.Module,
    preprocess: Preprocess,
    pictures: Sequence[npt.NDArray[np.uint8]],
    *,
    batch_size: int = 64,
) -> Float[Tensor, "n d"]:
    """Un-normalised embeddings [N D] (float32, CPU) of pictures in memory, uint8 [H W 3], in evaluation geometry."""
    device = next(vision.parameters()).device
    parts = []
    for start in range(0, len(pictures), batch_size):
        squares = [preprocess.geometry(Image.fromarray(one)) for one in pictures[start : start + batch_size]]
        parts.append(vision(preprocess.normalize(torch.stack(squares).to(device))).float().cpu())
    return torch.cat(parts)


def cached_texts(encoder: DualEncoder | TextEncoder, texts: Sequence[str], cache: FeatureCache) -> Float[Tensor, "n d"]:
    """Un-normalised embeddings [N D] (float32, CPU) of texts, from the cache where the same encoder has read them."""

    def compute() -> Tensor:
        with torch.no_grad():
            return encoder.encode_text(texts).float().cpu()

    return cache.get(digest("texts", encoder.fingerprint(), list(texts)), compute)


@torch.no_grad()
def _encode(
    vision: nn.Module,
    count: int,
    make: Callable[[list[int]], Tensor],
    pictures: Pictures,
    *,
    batch_size: int,
    workers: int,
) -> Tensor:
    was_training = vision.training
    vision.eval()
    device = next(vision.parameters()).device
    parts = [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
    try:
        batches = prefetch(lambda number: make(parts[number]), range(len(parts)), workers=workers)
        return torch.cat([vision(pictures.preprocess.normalize(batch.to(device))).float().cpu() for batch in batches])
    finally:
        vision.train(was_training)
