"""Large contrastive batches in little memory: rows are encoded a few at a time, and once more for the gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_chunks(encode: Callable[..., Tensor], inputs: tuple[Tensor, ...], size: int | None) -> Tensor:
    """`encode(*inputs)`, `size` rows at a time: the same values and gradients, the activations of one chunk at a time.

    Only the rows' outputs are kept. A loss over all of them sees the whole batch, as many negatives as it has; its
    backward pass encodes each chunk again, with the random numbers (dropout) and the autocast of the first time. One
    forward pass more, so about a third more time.

    Args:
        encode: tensors [n …] → [n D], each row by itself: nothing in it looks from row to row, as batch norm does.
        inputs: tensors of the same number of rows, N.
        size: rows at a time. None, or N and above: all at once, and nothing is computed again.

    Returns: [N D], in order.

    Raises: ValueError for no inputs, for inputs of differing lengths, and for a size below 1.

    Source: GradCache (Gao et al., arXiv 2101.06983), here by activation checkpointing, so that the one backward pass
    of the trainer goes through it, also where other losses hang on the same outputs.
    """
    if len({len(rows) for rows in inputs}) != 1:
        raise ValueError(f"inputs have {[len(rows) for rows in inputs]} rows; expected one number for all of them")
    if size is None or len(inputs[0]) <= size:
        return encode(*inputs)
    if size < 1:
        raise ValueError(f"size is {size}; expected a number of rows, 1 or more, or None for all at once")
    chunks = zip(*(rows.split(size) for rows in inputs), strict=True)
    return torch.cat([_checkpointed(encode, chunk) for chunk in chunks])


def _checkpointed(encode: Callable[..., Tensor], chunk: tuple[Tensor, ...]) -> Tensor:
    found = checkpoint(encode, *chunk, use_reentrant=False, preserve_rng_state=True)
    assert isinstance(found, Tensor), f"encode gave a {type(found).__name__}; expected one tensor"
    return found
