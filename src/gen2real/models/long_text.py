"""Texts longer than an encoder was trained for: its position embeddings, stretched.

Zhang et al., "Long-CLIP: Unlocking the long-text capability of CLIP", arXiv 2403.15378, section 3.2: the first 20
positions of CLIP's 77 are well trained and stay, the others are interpolated four times as densely, 248 in all.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.models.dual_encoder import DualEncoder

E = TypeVar("E", bound=DualEncoder)


def stretched_positions(
    positions: Float[Tensor, "length dim"], *, keep: int = 20, factor: int = 4
) -> Float[Tensor, "longer dim"]:
    """Position embeddings [L D] → [keep + factor·(L − keep), D]; the first `keep` are the old ones bit for bit.

    The last factor − 1 positions lie beyond the old ones and go on in a straight line, as in the authors' code.

    Raises: ModelError unless 0 ≤ keep ≤ L − 2 and factor ≥ 1.
    """
    length = len(positions)
    if not 0 <= keep <= length - 2:
        raise ModelError(f"keep is {keep}; of {length} positions, 0 to {length - 2} can be kept as they are.")
    if factor < 1:
        raise ModelError(f"factor is {factor}; it must be at least 1.")
    wide = positions.detach().double()
    # PE'(p) = (1 − a)·PE(q) + a·PE(q + 1), where q + a = keep + (p − keep) / factor; a > 1 beyond the last q + 1
    steps = torch.arange(factor * (length - keep), device=positions.device)
    below = (keep + steps // factor).clamp(max=length - 2)
    share = ((keep + steps / factor) - below).double()[:, None]
    stretched = (1 - share) * wide[below] + share * wide[below + 1]
    return torch.cat([positions.detach()[:keep], stretched.to(positions.dtype)])


def stretch_positions(encoder: E, *, keep: int = 20, factor: int = 4) -> E:
    """Lets a CLIP, SigLIP or SigLIP 2 of transformers read longer texts, in place; returns the same encoder.

    With the defaults CLIP's 77 tokens become 248. Config and tokenizer follow, so that the saved folder loads in stock
    transformers. A CLIP reads texts of at most `keep` tokens as before, bit for bit. SigLIP pads each text to its full
    length and attends to the padding, so there every text is read anew, and needs training more.

    Raises: ModelError for towers of the user's own, and as `stretched_positions`.
    """
    from gen2real.models.transformers_encoders import TransformersEncoder

    if not isinstance(encoder, TransformersEncoder):
        raise ModelError(
            f"{encoder.name} is not a CLIP or SigLIP of transformers, so its text positions are not known. Make your "
            "own text tower read longer texts, or leave long texts out."
        )
    embeddings: Any = encoder.text.get_submodule("text_model.embeddings")
    old = embeddings.position_embedding
    weight = stretched_positions(old.weight, keep=keep, factor=factor)
    new = nn.Embedding.from_pretrained(weight)
    new.weight.requires_grad_(old.weight.requires_grad)
    embeddings.position_embedding = new
    embeddings.position_ids = torch.arange(len(weight), device=weight.device)[None]
    encoder.config.text_config.max_position_embeddings = len(weight)
    encoder.tokenizer.model_max_length = len(weight)
    return encoder
