"""Random changes of whole batches; x is float32 [N 3 H W] in 0…1 before and after, each picture drawn on its own."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

# Rec. 601 weights of red, green and blue in brightness, as Pillow's "L".
_LUMA = (0.299, 0.587, 0.114)


def mirrored(batch: Tensor, probability: float, generator: Generator) -> Tensor:
    """Left and right exchanged, with `probability`; any dtype."""
    return torch.where(_chosen(len(batch), probability, generator), batch.flip(-1), batch)


def brightened(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """Times a factor from [max(0, 1 − strength), 1 + strength]."""
    return (x * _factors(len(x), strength, generator)).clamp_(0, 1)


def contrasted(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """The distance to the picture's mean brightness times such a factor."""
    mean = luma(x).mean(dim=(2, 3), keepdim=True)
    return torch.lerp(mean, x, _factors(len(x), strength, generator)).clamp_(0, 1)


def saturated(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """The distance to each pixel's own grey times such a factor."""
    return torch.lerp(luma(x), x, _factors(len(x), strength, generator)).clamp_(0, 1)


def greyed(x: Tensor, probability: float, generator: Generator) -> Tensor:
    """Grey, with `probability`."""
    return torch.where(_chosen(len(x), probability, generator), luma(x), x)


def hue_turned(x: Tensor, strength: float, generator: Generator) -> Tensor:
    """The colour plane (I and Q of YIQ) turned by an angle from ±strength full turns; the brightness Y stays."""
    turn = (torch.rand(len(x), generator=generator) * 2 - 1) * strength * 2 * math.pi
    to_yiq = torch.tensor([_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    rotation = torch.zeros(len(x), 3, 3)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = turn.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -turn.sin(), turn.sin()
    matrix = torch.linalg.inv(to_yiq) @ rotation @ to_yiq
    return torch.bmm(matrix, x.flatten(2)).view_as(x).clamp_(0, 1)


def blurred(x: Tensor, probability: float, scale: float, generator: Generator) -> Tensor:
    """A Gaussian blur with `probability`, sigma drawn evenly from 0.1 to 2 pixels, times `scale`."""
    chosen = _chosen(len(x), probability, generator)
    sigma = (0.1 + 1.9 * torch.rand((len(x), 1), generator=generator)) * scale
    radius = max(1, min(math.ceil(3 * 2 * scale), min(x.shape[2:]) - 1))
    distance = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (distance / sigma) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, dim=0)
    channels = 3 * len(x)
    planes = F.pad(x.reshape(1, channels, *x.shape[2:]), (radius,) * 4, mode="reflect")
    planes = F.conv2d(planes, kernel.view(channels, 1, 1, -1), groups=channels)
    planes = F.conv2d(planes, kernel.view(channels, 1, -1, 1), groups=channels)
    return torch.where(chosen, planes.view_as(x), x)


def rotated(x: Tensor, degrees: float, generator: Generator) -> Tensor:
    """Turned about the middle by an angle from ±degrees; beyond the edges the picture is mirrored."""
    turn = (torch.rand(len(x), generator=generator) * 2 - 1) * math.radians(degrees)
    matrix = torch.zeros(len(x), 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = turn.cos()
    matrix[:, 0, 1], matrix[:, 1, 0] = -turn.sin(), turn.sin()
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def luma(x: Tensor) -> Tensor:
    """Brightness [N 1 H W]."""
    return (x * torch.tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def _factors(count: int, strength: float, generator: Generator) -> Tensor:
    low, high = max(0.0, 1 - strength), 1 + strength
    return (low + (high - low) * torch.rand(count, generator=generator)).view(-1, 1, 1, 1)


def _chosen(count: int, probability: float, generator: Generator) -> Tensor:
    return (torch.rand(count, generator=generator) < probability).view(-1, 1, 1, 1)
