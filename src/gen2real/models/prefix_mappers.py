"""Mapping networks of ClipCap: one image embedding → the k embeddings that a language model reads first.

Mokady et al., "ClipCap: CLIP prefix for image captioning", arXiv 2111.09734: p_1 … p_k = F(CLIP(x)).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gen2real.errors import ModelError

MapperKind = Literal["mlp", "transformer"]


class MLPMapper(nn.Module):
    """D → (k·E)/2 → k·E with one tanh: [N D] → [N k E]."""

    def __init__(self, features: int, width: int, prefix_length: int = 10) -> None:
        super().__init__()
        self.prefix_length, self.width = prefix_length, width
        out = prefix_length * width
        self.layers = nn.Sequential(nn.Linear(features, out // 2), nn.Tanh(), nn.Linear(out // 2, out))

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k e"]:
        """The prefix of each row."""
        return self.layers(features).unflatten(1, (self.prefix_length, self.width))


class TransformerMapper(nn.Module):
    """[N D] → [N k E] by attention among c tokens made from the embedding and k learnt constants, whose outputs it is.

    Made for a frozen language model. Layers normalise first, without bias in queries, keys and values, and have a
    feed-forward part of twice the width with ReLU.

    Raises: ModelError where `heads` does not divide the width.
    """

    def __init__(
        self,
        features: int,
        width: int,
        prefix_length: int = 40,
        clip_length: int = 40,
        layers: int = 8,
        heads: int = 8,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ModelError(
                f"the transformer mapper's {heads} heads do not divide the language model's width {width}; "
                f"set mapper.heads to a divisor of it, such as {max(n for n in range(1, heads) if width % n == 0)}."
            )
        self.clip_length, self.width = clip_length, width
        self.project = nn.Linear(features, clip_length * width)
        self.constants = nn.Parameter(torch.randn(prefix_length, width))
        self.blocks = nn.ModuleList([_Block(width, heads) for _ in range(layers)])

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n k e"]:
        """The prefix of each row."""
        seen = self.project(features).unflatten(1, (self.clip_length, self.width))
        tokens = torch.cat([seen, self.constants.expand(len(features), -1, -1)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, self.clip_length :]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm_before = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm_between = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.queries_keys_values(self.norm_before(tokens)).unflatten(-1, (3, self._heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        heard = nn.functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.out(heard.transpose(1, 2).flatten(-2))
        return tokens + self.feed_forward(self.norm_between(tokens))


def make_mapper(
    kind: MapperKind,
    features: int,
    width: int,
    prefix_length: int,
    *,
    clip_length: int = 40,
    layers: int = 8,
    heads: int = 8,
) -> nn.Module:
    """A mapper with random weights. clip_length, layers and heads are the transformer's."""
    if kind == "mlp":
        return MLPMapper(features, width, prefix_length)
    return TransformerMapper(features, width, prefix_length, clip_length, layers, heads)
