"""What a user would write: a small convolutional image tower, a bag of letters for text, and their makers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gen2real.imagesets.transforms import Preprocess
from gen2real.models import DualEncoder, TwoTowers


class Letters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(128, 6)

    def forward(self, texts: list[str]) -> Tensor:
        return torch.stack([self.embedding(torch.tensor([[ord(c) % 128 for c in t or " "]]))[0] for t in texts])


def vision() -> nn.Module:
    """As in EfficientNet: an ordinary convolution, one by groups, one by one, batch norms, a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.Conv2d(8, 10, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 6),
    )


def build() -> TwoTowers:
    torch.manual_seed(5)
    preprocess = Preprocess(size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), fit="pad", margin=0.1)
    return TwoTowers(vision(), Letters(), preprocess, math.log(20))


def build_with_a_function() -> DualEncoder:
    preprocess = Preprocess(size=16)
    return TwoTowers(vision(), lambda texts: torch.ones(len(texts), 6), preprocess, logit_scale=1, embedding_dim=6)


def build_something_else() -> DualEncoder:
    return nn.Linear(1, 1)  # type: ignore[return-value]


def not_a_factory():  # type: ignore[no-untyped-def]
    raise AssertionError("this must never be called")
