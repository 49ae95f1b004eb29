"""The encoder that a run starts from, whichever way its recipe names it."""

from __future__ import annotations

from torch import Tensor

from gen2real.methods.settings import EncoderSettings
from gen2real.models.aligned import Aligned, load_aligned
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder


def open_encoder(settings: EncoderSettings) -> Aligned:
    """The dual encoder of `name` without a shift, or the aligned one of `init`; in evaluation mode.

    `.tower(settings.generated_branch)` is the image tower for generated pictures, `.tower("f_r")` that for real ones.

    Raises: ModelError, with what to type, for what cannot be loaded and for an `init` that is not an aligned model.
    """
    if settings.init is not None:
        return load_aligned(settings.init)
    return Aligned(load_dual_encoder(settings.source, revision=settings.revision))


def start_of(settings: EncoderSettings) -> tuple[DualEncoder, dict[str, Tensor]]:
    """The encoder with f_r and h, and ΔW of the tower that generated pictures go through; empty if that is f_r too."""
    aligned = open_encoder(settings)
    return aligned.encoder, aligned.shift if settings.generated_branch == "f_g" else {}
