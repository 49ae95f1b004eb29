"""Encoders that read sentences, for measures that need nothing else: any dual encoder, or a text model alone (BGE)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.files import digest, digest_tensors
from gen2real.models.dual_encoder import DualEncoder, is_hub_name, load_dual_encoder, model_inside
from gen2real.models.hub_loading import explained, whole_model, without_progress_bars

Pooling = Literal["first", "mean"]


class TextEncoder(nn.Module):
    """A text model of transformers with one vector a sentence.

    Attributes:
        pooling: "first", the hidden state of the first token (BGE's [CLS]); "mean", that of all its tokens.
        context_length: tokens that a text may have, the special ones included.
        embedding_dim: D. name: where it came from, for people.
    """

    def __init__(self, model: Any, tokenizer: Any, pooling: Pooling, name: str) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "right"
        self.pooling, self.name = pooling, name
        self.embedding_dim = int(model.config.hidden_size)
        self.context_length = _context_length(model, tokenizer)

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 256) -> Float[Tensor, "n dim"]:
        """Embeddings of texts in order, not normalised, on the model's device; a text is cut at the model's length.

        Raises: ModelError for a bare string, which would be read letter by letter.
        """
        if isinstance(texts, str):
            raise ModelError(f"encode_text takes a list of strings; got the string {texts!r}. Write [{texts!r}].")
        device = next(self.model.parameters()).device
        # Texts of like length share a batch: sentences differ much, and the padding of a long one is work for nothing.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        features = torch.empty(len(texts), self.embedding_dim, device=device)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            features[places] = self._encoded([texts[place] for place in places], device).float()
        return features

    def fingerprint(self) -> str:
        """A hash of weights, architecture and pooling: equal content, equal string, wherever it lies."""
        return digest(digest_tensors(self.state_dict()), repr(self.model), self.pooling, self.context_length)

    def _encoded(self, texts: list[str], device: torch.device) -> Tensor:
        tokens = self.tokenizer(
            texts, padding="longest", truncation=True, max_length=self.context_length, return_tensors="pt"
        )
        inputs = {name: tokens[name].to(device) for name in self.tokenizer.model_input_names if name in tokens}
        states: Tensor = self.model(**inputs).last_hidden_state
        if self.pooling == "first":
            return states[:, 0]
        read = inputs["attention_mask"].unsqueeze(2).to(states.dtype)
        # An empty text of a tokenizer without special tokens has none to take the mean of.
        return (states * read).sum(dim=1) / read.sum(dim=1).clamp(min=1)


def load_text_encoder(name_or_folder: str | Path, pooling: Pooling = "first") -> TextEncoder | DualEncoder:
    """The encoder in a folder or under a hub name: a text model of transformers (BGE, E5, …), or a dual encoder.

    Of a dual encoder, whose own pooling stays, only `encode_text` is meant. Weights are float32, and the encoder is in
    evaluation mode.

    Raises: ModelError for a folder that is not there or not a model, a model that reads no texts or needs a decoder
        for it, a checkpoint that is a pickle, and weights that lack tensors of the model.
    """
    import transformers

    folder = model_inside(Path(name_or_folder).expanduser())
    if not (folder / "config.json").is_file() and not is_hub_name(name_or_folder):
        # Somebody's own towers; or nothing at all, which is told there.
        return load_dual_encoder(name_or_folder)
    name = str(folder) if folder.exists() else str(name_or_folder)
    with without_progress_bars():
        config = explained(name, transformers.AutoConfig.from_pretrained)
        if hasattr(config, "text_config") and hasattr(config, "vision_config"):
            return load_dual_encoder(name_or_folder)
        # No pooling here goes through BERT's own pooler, which many checkpoints therefore leave out.
        model = whole_model(name, transformers.AutoModel, revision=None, may_lack="pooler.")
        reads = getattr(model, "main_input_name", "input_ids")
        if reads != "input_ids" or getattr(config, "is_encoder_decoder", False):
            why = "needs a decoder's input too" if reads == "input_ids" else f"takes {reads}"
            raise ModelError(
                f"{name} is a {type(model).__name__}, which gives no embedding of a sentence: it {why}. Give a text "
                'encoder such as "BAAI/bge-base-en-v1.5", or a dual encoder.'
            )
        tokenizer = explained(name, transformers.AutoTokenizer.from_pretrained)
    if getattr(model, "pooler", None) is not None:
        # Random numbers where the checkpoint has none, which would change the fingerprint at every load.
        model.pooler = None
    return TextEncoder(model, tokenizer, pooling, name).eval()


def _context_length(model: Any, tokenizer: Any) -> int:
    """The tokenizer's own limit, and what the model has positions for."""
    positions = int(getattr(model.config, "max_position_embeddings", 0) or tokenizer.model_max_length)
    # RoBERTa counts positions from behind the padding's, so so many of them are never a token's.
    embeddings: Any = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(embeddings, "padding_idx", None)
    if padding is not None:
        positions -= int(padding) + 1
    return min(positions, int(tokenizer.model_max_length))
