"""From hidden states to embeddings: what is read where, and the head that makes an embedding of it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

ImageReadout = Literal["mean", "last"]


class RetrievalHead(nn.Module):
    """Two layers with a GELU between them, and unit length (Sugar's F_φ; the paper says MLP, its shape is ours).

    Args:
        width_in: of the hidden states. width: of the layer between. dim: of an embedding.
    """

    def __init__(self, width_in: int, width: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width_in, width), nn.GELU(), nn.Linear(width, dim))

    def forward(self, hidden: Float[Tensor, "n width_in"]) -> Float[Tensor, "n dim"]:
        """Embeddings [N dim] of unit length, float32 (float64 for a float64 head)."""
        made: Tensor = self.layers(hidden.to(next(self.parameters()).dtype))
        return F.normalize(made if made.dtype == torch.float64 else made.float(), dim=-1)

    @classmethod
    def of_tensors(cls, tensors: dict[str, Tensor]) -> RetrievalHead:
        """The head with a state dict's weights, whose shapes are its sizes. Raises: KeyError, RuntimeError."""
        (width, width_in), dim = tensors["layers.0.weight"].shape, len(tensors["layers.2.weight"])
        head = cls(width_in, width, dim)
        head.load_state_dict(tensors)
        return head


def read_out(
    hidden: Float[Tensor, "n l d"], spans: Int[Tensor, "r 3"], *, image: ImageReadout = "mean"
) -> Float[Tensor, "r d"]:
    """The hidden state at each read-out, before any head: d_i of Sugar, section 3.1.

    Args:
        hidden: [N L D], the last hidden states.
        spans: [R 3]: row, begin and end (not included) of a read-out's tokens: one token of a text, all of a picture.
        image: mean of a picture's tokens (the paper), or its last token alone (the control).

    Returns: [R D], float32 at least.
    """
    rows, begin, end = spans.unbind(dim=1)
    if image == "last":
        begin = end - 1
    # The mean as a product with a 0/1 matrix: no copies of a picture's hundreds of states, and none in its gradient.
    same = rows[:, None] == rows[None, :]
    place = torch.tril(same, diagonal=-1).sum(dim=1)
    most = int(place.max()) + 1 if len(place) else 0
    at = torch.arange(hidden.shape[1], device=hidden.device)
    chosen = hidden.new_zeros((hidden.shape[0], most, hidden.shape[1]))
    chosen[rows, place] = ((at >= begin[:, None]) & (at < end[:, None])).to(hidden.dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        summed = (chosen @ hidden)[rows, place]
    wide = summed if summed.dtype == torch.float64 else summed.float()
    return wide / (end - begin)[:, None]
