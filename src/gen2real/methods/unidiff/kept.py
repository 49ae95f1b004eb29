"""What does not change while a run trains is computed once and kept on disk: crops, their latents, texts as read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

import torch
from accelerate import PartialState
from torch import Tensor

from gen2real.evaluation.features import FeatureCache, cached_texts
from gen2real.files import digest, digest_tensors
from gen2real.imagesets.loading import prefetch
from gen2real.imagesets.seeds import row_generator

if TYPE_CHECKING:
    from gen2real.methods.unidiff.data import JointData

_AT_ONCE = 16


@dataclass(frozen=True)
class Kept:
    """Each view of every picture. pixels: for each view uint8 [N 3 S S] at CLIP's size; moments: for each view mean and
    standard deviation [2 N C h w] (float32) of the scaled latents, or None where no loss looks at the denoiser."""

    pixels: list[Tensor]
    moments: list[Tensor] | None


def kept_views(data: JointData, cache: FeatureCache | None = None) -> Kept | None:
    """The `views` of a run's pictures, from the cache where they were cut before; None where every crop is a new one.

    A crop is a function of (seed, picture's id, view), so a smaller `limit` and more views change no crop.
    """
    views = data.config.data.views
    if views is None:
        return None
    cache = cache or FeatureCache()
    # Decoded once for all views where they fit into memory, which is free again when this returns.
    pictures = data.training_pictures(data.train.image_set)
    numbers = [_number(name) for name in pictures.image_set.ids]
    crops = digest(
        pictures.image_set.fingerprint,
        numbers,
        pictures.preprocess.to_dict(),
        None if pictures.augmentation is None else asdict(pictures.augmentation),
        data.config.seed,
    )

    def cut(view: int, rows: range) -> Tensor:
        return torch.cat(
            [pictures.training([row], row_generator(data.config.seed, view, numbers[row])) for row in rows]
        )

    diffusion = data.joint.diffusion

    def encoded(pixels: Tensor) -> Tensor:
        device = next(diffusion.vae.parameters()).device
        return torch.stack(diffusion.moments(data.generator_view(pixels.to(device)))).float().cpu()

    def clip_pixels_of(view: int) -> Tensor:
        return _by_parts(len(numbers), partial(cut, view), data.clip_pixels, dim=0)

    def moments_of(view: int) -> Tensor:
        return _by_parts(len(numbers), partial(cut, view), encoded, dim=1)

    pixels, moments = [], []
    # One process computes what all of them read.
    with PartialState().main_process_first():
        for view in range(views):
            pixels.append(cache.get(digest(crops, "clip", data.clip_size, view), partial(clip_pixels_of, view)))
        if data.config.uses_denoiser:
            vae = digest(digest_tensors(diffusion.vae.state_dict()), str(diffusion.vae.config), data.generator_size)
            for view in range(views):
                moments.append(cache.get(digest(crops, "moments", vae, view), partial(moments_of, view)))
    return Kept(pixels, moments or None)


def kept_states(data: JointData, cache: FeatureCache | None = None) -> Tensor | None:
    """What the denoiser reads of each of `data.prompts`, the empty one last: float32 [M+1 L d] on the CPU; None where
    the text encoder is in training."""
    if not data.states_are_frozen or not data.config.uses_denoiser:
        return None
    diffusion, cache = data.joint.diffusion, cache or FeatureCache()
    ids = diffusion.ids(data.prompts)

    @torch.no_grad()
    def compute() -> Tensor:
        device = next(diffusion.text_encoder.parameters()).device
        return torch.cat([diffusion.states(part.to(device)).float().cpu() for part in ids.split(_AT_ONCE)])

    key = digest("states", digest_tensors({**diffusion.text_encoder.state_dict(), "ids": ids}))
    with PartialState().main_process_first():
        return cache.get(key, compute)


def kept_text_features(data: JointData, cache: FeatureCache | None = None) -> Tensor | None:
    """CLIP's embeddings of each of `data.texts`, not normalised: float32 [M D] on the CPU; None where its text tower is
    in training."""
    if data.config.text.mode != "frozen" or not data.config.uses_clip:
        return None
    with PartialState().main_process_first():
        return cached_texts(data.joint.encoder, data.texts, cache or FeatureCache())


@torch.no_grad()
def _by_parts(count: int, make: Callable[[range], Tensor], then: Callable[[Tensor], Tensor], *, dim: int) -> Tensor:
    """then(make(rows)) for all rows, joined along `dim`; what is made next is made meanwhile, in threads."""
    parts = [range(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE)]
    return torch.cat([then(part) for part in prefetch(lambda n: make(parts[n]), range(len(parts)))], dim=dim)


def _number(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big")
