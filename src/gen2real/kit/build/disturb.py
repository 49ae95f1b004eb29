"""Pictures made harder to see, for the second part of CLIP's training: other backgrounds, then blur, noise, bad light.

Backgrounds are textures from chance alone; none is a ground of the world. Cutting out and pasting on is copy-paste
augmentation (Ghiasi et al., arXiv 2012.07177).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gen2real.imagesets.transforms import Augmentation

_CAMERA = Augmentation(
    crop_scale=(0.6, 1.0),
    crop_ratio=(0.9, 1.1),
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.03,
    blur=0.5,
    noise=0.05,
    rotation=15.0,
)
_PASTED = 0.7


def disturbed(pictures: Tensor, masks: Tensor, generator: torch.Generator) -> Tensor:
    """uint8 [N 3 S S] and [N S S] → uint8 [N 3 S S]: most on another background, all seen by a worse camera."""
    count, _, side, _ = pictures.shape
    cover = (masks.float() / 255)[:, None]
    pasted = cover * pictures + (1 - cover) * textures(count, side, generator) * 255
    chosen = torch.rand(count, generator=generator) < _PASTED
    mixed = torch.where(chosen[:, None, None, None], pasted.round().to(torch.uint8), pictures)
    return _CAMERA.apply(list(mixed), side, generator)


def textures(count: int, side: int, generator: torch.Generator) -> Tensor:
    """float32 [N 3 S S] from 0 to 1: two textures a picture, one above the other, the border at any height."""
    upper, lower = _texture(count, side, generator), _texture(count, side, generator)
    border = torch.rand(count, 1, 1, 1, generator=generator) * 1.4 - 0.2
    height = torch.linspace(0, 1, side)[None, None, :, None]
    return torch.where(height < border, upper, lower)


def _texture(count: int, side: int, generator: torch.Generator) -> Tensor:
    """A colour, clouds of three sizes, and stripes or checks of any width and direction."""

    def drawn(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator)

    texture = drawn(3, 1, 1).expand(-1, -1, side, side).clone()
    for cells in (4, 8, 32):
        clouds = F.interpolate(drawn(3, cells, cells) - 0.5, size=(side, side), mode="bilinear", align_corners=False)
        # Half of them grey: most surfaces vary in light more than in hue.
        grey = clouds.mean(dim=1, keepdim=True).expand_as(clouds) * 1.7
        clouds = torch.where(drawn(1, 1, 1) < 0.5, grey, clouds)
        texture += clouds * drawn(1, 1, 1) * 0.8
    axis = torch.linspace(-1, 1, side)
    turn, period, phase = drawn(1, 1) * math.pi, 0.08 + 0.5 * drawn(1, 1), drawn(1, 1)
    # Lines come together towards the top in some pictures, as on a floor.
    lean = 1 + drawn(1, 1) * 0.8 * axis[None, :, None]
    along = (axis[None, None, :] * turn.cos() / lean + axis[None, :, None] * turn.sin()) / period + phase
    across = (axis[None, :, None] * turn.cos() - axis[None, None, :] * turn.sin() / lean) / period + phase
    stripes, checks = (along.frac() - 0.5).sign(), ((along.floor() + across.floor()) % 2) * 2 - 1
    marks = torch.where(drawn(1, 1) < 0.5, stripes, checks)[:, None]
    strength = (drawn(1, 1, 1) - 0.4).clamp(min=0) * drawn(3, 1, 1)
    return (texture + marks * strength).clamp(0, 1)
