"""A captioner: a mapper turns an image embedding into a prefix, and a language model goes on with the caption.

Mokady et al., "ClipCap: CLIP prefix for image captioning", arXiv 2111.09734:

    p_1 … p_k = F(f(x)),   L = −Σ_i log p(c_i | p_1 … p_k, c_1 … c_{i−1})

The sum runs over the caption's tokens and the end token alone. With GMAIL's two projections, generated pictures have
a mapper of their own ("Projection for Generated"), and both write to one language model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from gen2real.errors import ModelError
from gen2real.models.hub_loading import explained, whole_model, without_progress_bars
from gen2real.models.prefix_mappers import make_mapper

Origin = Literal["real", "generated"]

MAX_TOKENS = 67
IGNORED = -100
"""What fills the ids of captions beyond their end; such places have no loss (`losses.next_token` has the same)."""


class Captioner(nn.Module):
    """Mappers and a language model; what it reads are the embeddings of an encoder that is not part of it.

    Attributes:
        decoder: any causal language model of transformers that takes `inputs_embeds` (GPT-2 and its like).
        mappers: by origin of the picture; one mapper under both names where the projection is single.
        description: the mapper's settings, as `make_mapper` takes them.
        normalize: whether embeddings are scaled to length 1 before they are mapped. ClipCap's are not.
        ends_at_full_stop: whether a caption ends with its first "." too, as in ClipCap's code.

    Raises: ModelError where the language model has fewer positions than prefix and longest caption need, or where its
        tokenizer has no end token.
    """

    def __init__(
        self,
        decoder: Any,
        tokenizer: Any,
        mapper: nn.Module | Mapping[str, nn.Module],
        description: Mapping[str, Any],
        *,
        normalize: bool = False,
        ends_at_full_stop: bool = False,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        super().__init__()
        self.decoder: Any = decoder
        self.tokenizer = tokenizer
        self.is_dual = isinstance(mapper, Mapping)
        own: dict[str, nn.Module] = {**mapper} if isinstance(mapper, Mapping) else {"shared": mapper}
        self.mappers = nn.ModuleDict(own)
        self.description = dict(description)
        self.normalize, self.ends_at_full_stop, self.max_tokens = normalize, ends_at_full_stop, max_tokens
        self._check()

    @property
    def features(self) -> int:
        """D, the length of the embeddings that are mapped."""
        return int(self.description["features"])

    @property
    def device(self) -> torch.device:
        """Where the language model lies."""
        return next(self.decoder.parameters()).device

    def mapper(self, origin: Origin) -> nn.Module:
        """The mapper for pictures of this origin."""
        return self.mappers[origin if self.is_dual else "shared"]

    def prefix(self, features: Float[Tensor, "n d"], origin: Origin) -> Float[Tensor, "n k e"]:
        """What the language model reads before the caption."""
        return self.mapper(origin)(self._scaled(features))

    def token_ids(self, captions: Sequence[str]) -> Int[Tensor, "n l"]:
        """Ids of captions with the end token, filled up with `IGNORED`. A caption is cut at `max_tokens`."""
        if not len(captions):
            return torch.zeros(0, 1, dtype=torch.long)
        told = self.tokenizer(list(captions), add_special_tokens=False)["input_ids"]
        # What was cut has not ended there, so it gets no end token.
        rows = [torch.tensor([*ids, self.tokenizer.eos_token_id][: self.max_tokens]) for ids in told]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)

    def forward(
        self, features: Float[Tensor, "n d"], generated: Bool[Tensor, " n"], ids: Int[Tensor, "n l"]
    ) -> Float[Tensor, "n l vocabulary"]:
        """Logits at each place of the captions: x_i are for c_i, from prefix and c_1 … c_{i−1}.

        Args:
            features: embeddings of the pictures. generated: which of them are; real ones take the other mapper.
            ids: of `token_ids`.
        """
        features = self._scaled(features)
        if self.is_dual:
            # Both are asked for every row, so that under several processes every parameter is used in every update.
            own = {origin: mapper(features) for origin, mapper in self.mappers.items()}
            prefix = torch.where(generated[:, None, None], own["generated"], own["real"])
        else:
            prefix = self.mappers["shared"](features)
        words = self.decoder.get_input_embeddings()(ids.clamp(min=0))
        # Attention is causal, so the fill behind a caption changes nothing in it and needs no mask.
        length = ids.shape[1]
        inputs = torch.cat([prefix, words.to(prefix.dtype)], dim=1)
        logits: Tensor = self.decoder(inputs_embeds=inputs, use_cache=False, logits_to_keep=length + 1).logits
        # The logits at one place are for the token at the next; the first caption token follows the last of the prefix.
        return logits[:, -length - 1 : -1]

    @torch.no_grad()
    def captions(
        self,
        features: Float[Tensor, "n d"],
        *,
        origin: Origin = "real",
        beams: int = 5,
        batch_size: int = 64,
        max_tokens: int | None = None,
    ) -> list[str]:
        """A caption for each embedding [N D], by beam search (1: greedy) with a key–value cache, without sampling.

        Args:
            origin: whose mapper is used where there are two.
            max_tokens: None takes the captioner's own.
        """
        from transformers import GenerationConfig

        was_training = self.training
        self.eval()
        end = int(self.tokenizer.eos_token_id)
        settings = GenerationConfig(
            max_new_tokens=max_tokens or self.max_tokens,
            num_beams=beams,
            do_sample=False,
            use_cache=True,
            eos_token_id=[end, *self._full_stop()],
            pad_token_id=end,
        )
        texts: list[str] = []
        for rows in features.split(batch_size):
            prefix = self.prefix(rows.to(self.device), origin)
            # All beams of a picture begin with one prefix, so it is read once, but for its end, which `generate` needs.
            cache = None
            if prefix.shape[1] > 1:
                cache = self.decoder(inputs_embeds=prefix[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
                cache.batch_repeat_interleave(beams)
            mask = torch.ones(prefix.shape[:2], dtype=torch.long, device=prefix.device)
            ids = self.decoder.generate(
                inputs_embeds=prefix, attention_mask=mask, past_key_values=cache, generation_config=settings
            )
            texts += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        self.train(was_training)
        return [" ".join(text.split()) for text in texts]

    def train(self, mode: bool = True) -> Captioner:
        """As every module's; a frozen language model stays in evaluation mode, without dropout."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.decoder.parameters()):
            self.decoder.eval()
        return self

    def _scaled(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1) if self.normalize else features

    def _full_stop(self) -> list[int]:
        if not self.ends_at_full_stop:
            return []
        ids = self.tokenizer(".", add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise ModelError('this tokenizer has no token for "."; captions can end at the end token alone.')
        return list(ids)

    def _check(self) -> None:
        config: Any = self.decoder.config
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                f"the tokenizer of {config._name_or_path} has no end token; a caption needs one to stop at."
            )
        positions, needed = config.max_position_embeddings, self.description["prefix_length"] + self.max_tokens
        if positions < needed:
            raise ModelError(
                f"the language model has {positions} positions; a prefix of {self.description['prefix_length']} and "
                f"captions of up to {self.max_tokens} tokens need {needed}. Set a shorter prefix "
                "(--set mapper.prefix_length=10) or shorter captions (--set decoding.max_tokens=…)."
            )


def new_captioner(
    decoder: Any,
    tokenizer: Any,
    features: int,
    *,
    dual: bool = False,
    mapper: Mapping[str, Any] | None = None,
    **options: Any,
) -> Captioner:
    """A captioner whose mappers have random weights.

    Args:
        features: D, the length of the encoder's embeddings.
        dual: whether generated pictures have a mapper of their own; both begin with the same weights.
        mapper: `kind`, `prefix_length` and, for a transformer, `clip_length`, `layers`, `heads`. None: an MLP of 10.
        options: `normalize`, `ends_at_full_stop`, `max_tokens` of `Captioner`.
    """
    width = decoder.get_input_embeddings().embedding_dim
    described = {"kind": "mlp", "prefix_length": 10, **(mapper or {}), "features": features, "width": width}
    first = make_mapper(**described)
    if not dual:
        return Captioner(decoder, tokenizer, first, described, **options)
    second = make_mapper(**described)
    second.load_state_dict(first.state_dict())
    return Captioner(decoder, tokenizer, {"real": first, "generated": second}, described, **options)


def load_decoder(name_or_folder: str | Path, *, revision: str | None = None) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, by hub name or folder, as float32 in evaluation mode.

    Raises: ModelError for what cannot be found, is no language model, is a pickle, or lacks tensors.
    """
    import transformers

    name, folder = str(name_or_folder), Path(name_or_folder).expanduser()
    if folder.is_dir():
        name = str(folder)
    with without_progress_bars():
        model = whole_model(name, transformers.AutoModelForCausalLM, revision=revision)
        tokenizer = explained(name, transformers.AutoTokenizer.from_pretrained, revision=revision)
    return model.eval(), tokenizer
