"""Embeddings of texts and pictures in any order, by a multimodal model: one space for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from gen2real.errors import ModelError
from gen2real.imagesets.interleaved import Interleaved, Part, Turn
from gen2real.models.hidden_states import hidden_states
from gen2real.models.multimodal import MultimodalModel
from gen2real.models.retrieval_head import Head, ImageReadout, read_out
from gen2real.models.sequences import End, encode_at


@dataclass(frozen=True)
class Embedder:
    """What embeds.

    head: what was tuned for it (`MultimodalModel.head`); None: the hidden state itself is the embedding.
    image: what is read of contents that end with a picture, unless `embed` is told otherwise; see `read_out`.
    """

    model: MultimodalModel
    head: Head | None
    image: ImageReadout = "mean"

    def embed(
        self, parts: Sequence[Sequence[Part]], *, batch_size: int = 16, image: ImageReadout | None = None
    ) -> Tensor:
        """Embeddings float32 [N D] of unit length, on the CPU.

        Each is bare content where the user speaks, with no question and no answer, read at its end (ours; Sugar does
        not say how it embeds).

        Args:
            parts: of each, its texts and pictures (files) in order.
            image: in place of the embedder's own.

        Raises: ModelError for one without text and pictures; Unreadable for a picture that does not decode.
        """
        samples = [Interleaved(str(number), (Turn(tuple(own)),)) for number, own in enumerate(parts)]
        ends = [_end(sample) for sample in samples]
        found = []
        was_training = self.model.model.training
        self.model.model.eval()
        try:
            with torch.inference_mode():
                for start in range(0, len(samples), batch_size):
                    chosen = slice(start, start + batch_size)
                    found.append(self._embed(samples[chosen], ends[chosen], image or self.image))
        finally:
            self.model.model.train(was_training)
        return torch.cat(found) if found else torch.zeros(0, self.dim)

    @property
    def dim(self) -> int:
        """D, the width of an embedding."""
        return self.model.width if self.head is None else self.head.dim

    def _embed(self, samples: Sequence[Interleaved], ends: Sequence[End], image: ImageReadout) -> Tensor:
        batch = encode_at(self.model, samples, [[end] for end in ends]).to(self.model.device)
        with self.model.autocast():
            hidden = hidden_states(self.model, batch.inputs)
        states = read_out(hidden, batch.spans, image=image).float()
        made = states if self.head is None else self.head.to(states.device)(states)
        return F.normalize(made.float(), dim=-1).cpu()


def _end(sample: Interleaved) -> End:
    """Its last picture, or the end of its last text."""
    parts = sample.turns[0].parts
    for place in range(len(parts) - 1, -1, -1):
        part = parts[place]
        if isinstance(part, Path):
            return End(0, place, None)
        if part.strip():
            return End(0, place, len(part.rstrip()))
    raise ModelError(f"content {sample.id} to embed has neither text nor a picture.")
