"""The kit's language model: GPT-2's architecture and tokenizer format, small, on the captions of `web`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

from gen2real.files import atomic_folder
from gen2real.kit.build.corpus import CorpusBatch, drawn_texts, texts, token_ids
from gen2real.kit.build.fitting import fit
from gen2real.kit.build.settings import BuildConfig
from gen2real.kit.build.storage import save_half
from gen2real.kit.world.language import vocabulary
from gen2real.losses import next_token
from gen2real.losses.next_token import IGNORED
from gen2real.training.distributed import gather

END = "<|endoftext|>"
"""Before and after every text, as in GPT-2."""

_TEXTS_FOR_TOKENIZER = 5_000


def build_decoder(config: BuildConfig, *, quiet: bool = False) -> Path:
    """Trains the language model, or goes on with it. Returns its folder."""
    out = config.output / "decoder"
    if out.exists():
        return out
    tokenizer = build_decoder_tokenizer(config)
    seed = config.seed + 20
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(_model_config(config, tokenizer))
    # Stock attention is slow backwards in bfloat16 on a CPU (see models/attention.py).
    model.set_attn_implementation("eager")
    ids = token_ids(config, tokenizer)
    language = Language(model)

    def step(models: Mapping[str, nn.Module], batch: CorpusBatch) -> dict[str, Tensor]:
        targets = caption_targets(drawn_texts(ids, batch), tokenizer.eos_token_id).to(model.device)
        sums, counts = next_token(models["language"](targets), targets)
        return {"loss": gather(sums).sum() / gather(counts).sum()}

    folder = config.output / "decoder-run"
    fit(folder, config, config.decoder, {"language": language}, step, scenes=config.scenes, seed=seed, quiet=quiet)
    with atomic_folder(out) as partial:
        save_half(model.cpu(), partial)
        tokenizer.save_pretrained(partial)
    return out


def build_decoder_tokenizer(config: BuildConfig) -> Any:
    """A byte-level byte-pair tokenizer in GPT-2's format, learnt from texts of `web`. Its fill is its end token."""
    inner = Tokenizer(BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=config.vocabulary - 1, initial_alphabet=letters, show_progress=False)
    some = config.model_copy(update={"scenes": min(config.scenes, _TEXTS_FOR_TOKENIZER)})
    inner.train_from_iterator([*vocabulary(), *(text for told in texts(some) for text in told)], trainer)
    learnt = json.loads(inner.to_str())["model"]
    return GPT2Tokenizer(
        vocab={**learnt["vocab"], END: len(learnt["vocab"])},
        merges=[tuple(pair) for pair in learnt["merges"]],
        pad_token=END,
        model_max_length=config.decoder_positions,
    )


def caption_targets(ids: Tensor, end: int) -> Tensor:
    """[n L] ids filled up with the end token → the same with the first end token kept and the rest `IGNORED`, cut to
    the longest."""
    ended = (ids == end).int()
    counts = (ended.cumsum(dim=1) - ended == 0).sum(dim=1)
    behind = torch.arange(ids.shape[1]) >= counts[:, None]
    return ids.masked_fill(behind, IGNORED)[:, : int(counts.max())]


class Language(nn.Module):
    """Targets [n L] → logits [n L V], each from the end token and the targets before it."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, targets: Tensor) -> Tensor:
        end = int(self.model.config.eos_token_id)
        start = torch.full_like(targets[:, :1], end)
        inputs = torch.cat([start, targets[:, :-1].clamp(min=0)], dim=1)
        logits: Tensor = self.model(input_ids=inputs, use_cache=False).logits
        return logits


def _model_config(config: BuildConfig, tokenizer: Any) -> GPT2Config:
    end = tokenizer.eos_token_id
    return GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=config.decoder_positions,
        n_embd=config.decoder_width,
        n_layer=config.decoder_layers,
        n_head=4,
        bos_token_id=end,
        eos_token_id=end,
        # The texts of a small world are many for a model of this size.
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
