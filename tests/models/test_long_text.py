"""Longer texts: position embeddings by arithmetic, short texts as before, stock transformers reads what is saved."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPModel, Siglip2Model, SiglipModel

import tiny
from gen2real.errors import ModelError
from gen2real.models import load_dual_encoder
from gen2real.models.long_text import stretch_positions, stretched_positions
from gen2real.models.transformers_encoders import TransformersEncoder

sys.path.insert(0, str(Path(__file__).parent))

FAMILIES = {
    "clip": (tiny.tiny_clip, CLIPModel, 32),
    "siglip": (tiny.tiny_siglip, SiglipModel, 24),
    "siglip2": (tiny.tiny_siglip2, Siglip2Model, 64),
}


def test_clips_77_become_248() -> None:
    old = torch.randn(77, 5, generator=torch.Generator().manual_seed(0))
    new = stretched_positions(old)
    assert new.shape == (248, 5)
    assert torch.equal(new[:20], old[:20])
    # Every fourth is an old one, and numpy interpolates between them.
    torch.testing.assert_close(new[20::4], old[20:])
    places = np.arange(228) / 4
    for column in range(5):
        inside = np.interp(places[:225], np.arange(57), old[20:, column].numpy())
        np.testing.assert_allclose(new[20:245, column].numpy(), inside, rtol=1e-5, atol=1e-6)
    step = (old[76] - old[75]) / 4
    torch.testing.assert_close(new[245:], old[76] + torch.tensor([[1.0], [2.0], [3.0]]) * step)


def test_a_factor_of_one_changes_nothing() -> None:
    old = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(stretched_positions(old, keep=4, factor=1), old)


@pytest.mark.parametrize(("keep", "factor", "words"), [(8, 4, "0 to 7 can be kept"), (2, 0, "at least 1")])
def test_refusals(keep: int, factor: int, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        stretched_positions(torch.zeros(9, 3), keep=keep, factor=factor)


def test_towers_of_ones_own_are_refused() -> None:
    with pytest.raises(ModelError, match="my_towers:build is not a CLIP or SigLIP"):
        stretch_positions(load_dual_encoder("my_towers:build"))


def stretched(folder: Path, make: Callable[[Path], Path]) -> TransformersEncoder:
    encoder = load_dual_encoder(make(folder))
    assert isinstance(encoder, TransformersEncoder)
    return encoder


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_transformers_loads_what_is_saved(family: str, tmp_path: Path) -> None:
    make, model_class, length = FAMILIES[family]
    encoder = stretch_positions(stretched(tmp_path / "encoder", make), keep=10, factor=3)
    longer = 10 + 3 * (length - 10)
    assert encoder.context_length == longer
    texts = ["a b " * 2 * length, "a b " * 2 * length + "c", "red"]
    ours = encoder.encode_text(texts)
    encoder.save(tmp_path / "long")
    again = load_dual_encoder(tmp_path / "long")
    assert torch.equal(again.encode_text(texts), ours)
    assert again.fingerprint() == encoder.fingerprint()

    model = model_class.from_pretrained(tmp_path / "long").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "long")
    assert tokenizer.model_max_length == longer
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt", return_attention_mask=False)
    assert tokens["input_ids"].shape == (3, longer)
    with torch.no_grad():
        theirs = model.get_text_features(input_ids=tokens["input_ids"]).pooler_output
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_clip_reads_short_texts_as_before_and_long_ones_to_their_end(tmp_path: Path) -> None:
    encoder = stretched(tmp_path / "clip", tiny.tiny_clip)
    short, long = ["a red cup"], ["cup " * 12 + end for end in ("red", "blue")]  # letters are tokens: 9 and some 40
    with torch.no_grad():
        before, cut = encoder.encode_text(short), encoder.encode_text(long)
        assert torch.equal(cut[0], cut[1])
        stretch_positions(encoder, keep=12, factor=4)
        assert torch.equal(encoder.encode_text(short), before)
        whole = encoder.encode_text(long)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)


def test_the_longer_positions_learn(tmp_path: Path) -> None:
    encoder = stretch_positions(stretched(tmp_path / "clip", tiny.tiny_clip), keep=12)
    encoder.encode_text(["cup " * 20]).sum().backward()
    learned = dict(encoder.text.named_parameters())["text_model.embeddings.position_embedding.weight"]
    assert learned.grad is not None
    assert learned.grad[40].abs().sum() > 0
