"""Tiny random text encoders on disk, in the hub's own layout: a BERT as BGE is one, and a RoBERTa."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from gen2real.models.hub_loading import without_progress_bars
from tiny import _LETTERS, _layers, _random


def tiny_bert(folder: Path, *, seed: int = 0, roberta: bool = False, pooler: bool = True) -> Path:
    """A text encoder of width 24 that reads letter by letter, up to 32 tokens, [CLS] and [SEP] among them.

    roberta: positions are counted from behind the padding's. pooler: whether the checkpoint has BERT's own.
    """
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", *_LETTERS]
    inner = Tokenizer(WordLevel({token: index for index, token in enumerate(words)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")])
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=10**9 if roberta else 32,
    )
    kind, config = (RobertaModel, RobertaConfig) if roberta else (BertModel, BertConfig)
    settings = config(
        **_layers(24), vocab_size=len(words), max_position_embeddings=34 if roberta else 40, pad_token_id=1
    )
    model = _random(kind, settings, seed)
    if not pooler:
        model.pooler = None
    with without_progress_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
