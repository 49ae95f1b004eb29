"""From hidden states to embeddings: what is read where, and the head that makes an embedding of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.files import read_tensors, write_tensors

HEAD_FILE = "head.safetensors"
ImageReadout = Literal["mean", "last"]


class Whitening(nn.Module):
    """Hidden states as they are seen without what all have in common, after Su et al. 2021, arXiv 2103.15316; by the
    symmetric root and with a ridge (both ours).

    The states of language models lie in a narrow cone, and those of pictures in another than those of texts: as they
    are, a head learns hardly anything else for a long time. Nothing in here is trained.

    Args:
        width: of the hidden states, and of what is made of them.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dim = width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))

    @classmethod
    def of(cls, states: Float[Tensor, "n width"], *, ridge: float = 1e-4) -> Whitening:
        """Measured on the states of samples.

        Args:
            ridge: added to the covariance, in shares of its mean variance: directions that hardly vary stay small.

        Raises: ModelError for fewer than two states, and for states that do not vary.
        """
        states = states.double()
        if len(states) < 2 or not float(states.var(dim=0).sum()) > 0:
            raise ModelError(f"{len(states)} hidden states that do not differ cannot be whitened; give more samples.")
        # W = (Σ + ε·tr(Σ)/d·I)^(−1/2),  z = W (h − μ)
        covariance = torch.cov(states.T)
        lift = ridge * covariance.diagonal().mean() * torch.eye(states.shape[1], dtype=torch.float64)
        values, vectors = torch.linalg.eigh(covariance + lift.to(states.device))
        found = cls(states.shape[1])
        found.mean.copy_(states.mean(dim=0))
        found.matrix.copy_(vectors @ (values.rsqrt()[:, None] * vectors.T))
        return found

    def forward(self, hidden: Float[Tensor, "n width"]) -> Float[Tensor, "n width"]:
        """[N width], float32 (float64 of float64 states in a float64 module)."""
        with torch.autocast(hidden.device.type, enabled=False):
            made: Tensor = (hidden.to(self.mean.dtype) - self.mean) @ self.matrix
        return made


class RetrievalHead(nn.Module):
    """Two layers with a GELU between them, and unit length (Sugar's F_φ; the paper says MLP, its shape is ours).

    Args:
        width_in: of the hidden states. width: of the layer between. dim: of an embedding.
        whitening: what the states go through first (ours); None: as they are.
    """

    def __init__(self, width_in: int, width: int, dim: int, whitening: Whitening | None = None) -> None:
        super().__init__()
        self.dim = dim
        self.whitening = whitening
        self.layers = nn.Sequential(nn.Linear(width_in, width), nn.GELU(), nn.Linear(width, dim))

    def forward(self, hidden: Float[Tensor, "n width_in"]) -> Float[Tensor, "n dim"]:
        """Embeddings [N dim] of unit length, float32 (float64 for a float64 head)."""
        if self.whitening is not None:
            hidden = self.whitening(hidden)
        made: Tensor = self.layers(hidden.to(next(self.parameters()).dtype))
        return F.normalize(made if made.dtype == torch.float64 else made.float(), dim=-1)


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


Head = RetrievalHead | Whitening
"""What makes embeddings of hidden states: a head that was trained, or whitening alone."""


def whitening_of(head: Head | None) -> Whitening | None:
    """What a head was given to begin with, where it was given any."""
    return head.whitening if isinstance(head, RetrievalHead) else head


def save_head(folder: Path, head: Head | None) -> None:
    """Writes a model's head into its folder, where it has one."""
    if head is not None:
        write_tensors(folder / HEAD_FILE, head.state_dict())


def load_head(folder: Path, width_in: int) -> Head | None:
    """The head that `save_head` wrote, frozen; None where there is none.

    Args:
        width_in: of the hidden states of the model that it is for.

    Raises: ModelError where it is none, or for hidden states of another width.
    """
    path = folder / HEAD_FILE
    if not path.is_file():
        return None
    tensors = read_tensors(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    first, last = shapes.get("layers.0.weight", (0, 0)), shapes.get("layers.2.weight", (0, 0))
    head: Head
    if "mean" in shapes:
        head = Whitening(width_in)
    else:
        head = RetrievalHead(width_in, first[0], last[0], Whitening(width_in) if "whitening.mean" in shapes else None)
    if shapes != {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}:
        raise ModelError(f"{path} is no retrieval head for hidden states of width {width_in}; it holds {shapes}.")
    head.load_state_dict(tensors)
    return head.eval().requires_grad_(False)
