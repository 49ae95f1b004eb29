"""The alignment of a GMAIL run, put into the image tower of a multimodal model.

LLaVA's tower is the CLIP that the alignment was made for, under other names and without its last projection. ΔW goes to
the parameters whose names end alike and whose shapes agree; W itself is compared, as ΔW means nothing elsewhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.models.aligned import Aligned
from gen2real.models.multimodal import MultimodalModel

_BEYOND_PATCHES = ("visual_projection", "head")
"""Parts of a dual encoder's tower that come after the patches that a language model is shown."""

# Checkpoints are kept in half precision: bfloat16 holds 8 bits, so equal weights differ by at most this much.
_ROUNDING = 2.0**-8


def with_shift(
    model: MultimodalModel, aligned: Aligned, *, other_base: Literal["error", "warn"] = "error"
) -> MultimodalModel:
    """Gives `model` the tower for generated pictures, f_g = W + ΔW (`model.through("f_g")`); returns the same model.

    Args:
        aligned: of `models.aligned.load_aligned`, with a shift.
        other_base: what to do where the model's tower holds other weights than those that ΔW was made for. Models that
            tuned their tower (LLaVA-NeXT, OneVision) do; "warn" then adds ΔW all the same.

    Raises: ModelError where there is no shift, the towers' names or shapes do not agree, or their weights differ.
    """
    if not aligned.shift:
        raise ModelError(f"{aligned.encoder.name} has no tower of its own for generated pictures; give a GMAIL run.")
    own = dict(model.vision.named_parameters())
    source = dict(aligned.encoder.vision.named_parameters())
    places = _places(source, own)
    lost = [name for name in aligned.shift if name not in places and not _is_beyond_patches(name)]
    shapes = [n for n, p in places.items() if own[p].shape != source[n].shape]
    if lost or shapes or not any(name in places for name in aligned.shift):
        listed = ", ".join([*lost, *shapes][:5]) or "none of its parameters is there"
        raise ModelError(
            f"the image tower of {model.name} ({type(model.vision).__name__}) is not that of {aligned.encoder.name}, "
            f"which the alignment was made for ({listed}). Align the encoder that this model was built on."
        )
    differing = [name for name, place in places.items() if not _same(source[name], own[place])]
    if differing:
        words = (
            f"the image tower of {model.name} has other weights than {aligned.encoder.name}, which the alignment was "
            f"made for: {len(differing)} of {len(places)} tensors differ ({', '.join(differing[:3])} …)"
        )
        if other_base == "error":
            raise ModelError(
                f"{words}. Align that tower itself, or add the shift all the same: aligned.other_base: warn."
            )
        warnings.warn(f"{words}; the shift is added all the same.", stacklevel=2)
    model.shift = {places[name]: value.detach().clone() for name, value in aligned.shift.items() if name in places}
    return model


def _places(source: Mapping[str, nn.Parameter], own: Mapping[str, nn.Parameter]) -> dict[str, str]:
    """Names of a dual encoder's tower → names of the multimodal model's: one ends in the other, at a dot."""
    by_ending: dict[str, list[str]] = {}
    for name in own:
        for ending in _endings(name):
            by_ending.setdefault(ending, []).append(name)
    found = {}
    for name in source:
        # The longest ending that is a whole name on one side, and means one parameter.
        for ending in _endings(name):
            matched = by_ending.get(ending, [])
            if len(matched) == 1 and (ending == name or ending == matched[0]):
                found[name] = matched[0]
                break
    return found


def _endings(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[place:]) for place in range(len(parts)))


def _is_beyond_patches(name: str) -> bool:
    return any(part in _BEYOND_PATCHES for part in name.split("."))


def _same(expected: Tensor, found: Tensor) -> bool:
    a, b = expected.detach().float().cpu(), found.detach().float().cpu()
    return bool(torch.allclose(a, b, rtol=_ROUNDING, atol=1e-6))
