"""Sentence embeddings against stock transformers, one sentence at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from gen2real.errors import ModelError
from gen2real.models import load_dual_encoder
from gen2real.models.text_encoder import TextEncoder, load_text_encoder
from tiny import tiny_clip
from tiny_text import tiny_bert

# Of different lengths, out of order, one of them too long and one empty.
TEXTS = ["a red ball lies here", "it", "", "A Green Cube, and a blue one. " * 3, "a dog ran off"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("texts")
    tiny_bert(root / "bert")
    tiny_bert(root / "roberta", roberta=True)
    tiny_bert(root / "bare", pooler=False)
    tiny_clip(root / "clip")
    return root


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("pooling", ["first", "mean"])
@torch.no_grad()
def test_embeddings_are_those_of_one_sentence_at_a_time(root: Path, kind: str, pooling: str) -> None:
    model = AutoModel.from_pretrained(root / kind).eval()
    tokenizer = AutoTokenizer.from_pretrained(root / kind)
    encoder = load_text_encoder(root / kind, pooling)
    assert isinstance(encoder, TextEncoder)
    assert not encoder.training
    assert (encoder.embedding_dim, encoder.context_length) == (24, 32)
    found = encoder.encode_text(TEXTS, batch_size=2)
    for text, embedding in zip(TEXTS, found, strict=True):
        ids = tokenizer(text)["input_ids"]
        states = model(torch.tensor([ids if len(ids) <= 32 else [*ids[:31], ids[-1]]])).last_hidden_state[0]
        torch.testing.assert_close(embedding, states[0] if pooling == "first" else states.mean(dim=0))
    assert encoder.encode_text([]).shape == (0, 24)


@torch.no_grad()
def test_a_checkpoint_without_berts_own_pooler_is_whole(root: Path) -> None:
    whole, bare = load_text_encoder(root / "bert"), load_text_encoder(root / "bare")
    torch.testing.assert_close(whole.encode_text(TEXTS), bare.encode_text(TEXTS), rtol=0, atol=0)
    assert whole.fingerprint() == bare.fingerprint() == load_text_encoder(root / "bare").fingerprint()
    assert whole.fingerprint() != load_text_encoder(root / "bert", "mean").fingerprint()


@torch.no_grad()
def test_a_dual_encoder_reads_too(root: Path) -> None:
    found = load_text_encoder(root / "clip")
    assert torch.equal(found.encode_text(TEXTS), load_dual_encoder(root / "clip").encode_text(TEXTS))


def test_what_reads_no_sentences_is_told(root: Path, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)).save_pretrained(
        tmp_path / "vit"
    )
    with pytest.raises(ModelError, match="ViTModel, which gives no embedding of a sentence: it takes pixel_values"):
        load_text_encoder(tmp_path / "vit")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="not a model folder"):
        load_text_encoder(tmp_path / "empty")
    with pytest.raises(ModelError, match=r"there is no folder \./nowhere"):
        load_text_encoder("./nowhere")
    with pytest.raises(ModelError, match=r"nowhere/at-all could not be loaded"):
        load_text_encoder("nowhere/at-all")
    with pytest.raises(ModelError, match=r"Write \['a cat'\]"):
        load_text_encoder(root / "bert").encode_text("a cat")
