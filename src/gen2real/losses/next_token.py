"""How well a language model foretells each next token."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gen2real.losses._precision import outside_autocast, widen

IGNORED = -100
"""A place of `tokens` that has no loss: what fills a row up to the longest one's length."""


@outside_autocast
def next_token(
    logits: Float[Tensor, "n l vocabulary"], tokens: Int[Tensor, "n l"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    r"""The cross-entropy of each row, as a sum and a count, so that any set of rows can be averaged by tokens.

    With c the tokens of a row, padding left out::

        s = −Σ_i log softmax(x_i)_{c_i},   the batch's loss is Σ_rows s / Σ_rows count

    Args:
        logits: [N L V]; those at place i foretell `tokens` at place i.
        tokens: [N L] ids; `IGNORED` where there is none.

    Returns: sums [N] and counts [N], float32 (float64 for float64 logits).
    """
    wide = widen(logits)
    losses = F.cross_entropy(wide.transpose(1, 2), tokens, ignore_index=IGNORED, reduction="none")
    return losses.sum(dim=1), (tokens != IGNORED).sum(dim=1).to(wide.dtype)
