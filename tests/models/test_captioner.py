"""The captioner against plain code: its loss token by token, greedy and beam search without cache or batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPModel

from gen2real.errors import ModelError
from gen2real.imagesets.loading import Pictures
from gen2real.losses import next_token
from gen2real.models import (
    Captioner,
    is_captioner,
    load_captioner,
    load_decoder,
    load_dual_encoder,
    new_captioner,
    save_captioner,
)
from gen2real.models.captioner import IGNORED
from gen2real.models.prefix_mappers import MLPMapper, TransformerMapper
from tiny import tiny_clip, tiny_gpt2
from tiny_sets import colour_set

TOLD = ["a cat", "a red dog.", "", "two"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("captioner")
    tiny_gpt2(root / "gpt2")
    tiny_clip(root / "clip")
    return root


def make(root: Path, **options: Any) -> Captioner:
    decoder, tokenizer = load_decoder(root / "gpt2")
    torch.manual_seed(0)
    options = {"max_tokens": 12, **options}
    return new_captioner(decoder, tokenizer, 20, **options).eval()


def features(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 20, generator=torch.Generator().manual_seed(1))


def test_the_mlp_is_clipcaps() -> None:
    # 512 → 3,840 → 7,680 for GPT-2 with a prefix of 10: 31.5 million parameters.
    sizes = [tuple(p.shape) for p in MLPMapper(512, 768, 10).parameters()]
    assert sizes == [(3840, 512), (3840,), (7680, 3840), (7680,)]
    mapper, seen = MLPMapper(4, 6, 2), torch.randn(3, 4)
    first, _, second = mapper.layers
    expected = torch.tanh(seen @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(mapper(seen), expected.reshape(3, 2, 6))


def test_the_transformers_prefix_is_what_its_constants_become() -> None:
    mapper = TransformerMapper(4, 8, prefix_length=3, clip_length=5, layers=2, heads=2)
    seen = torch.randn(2, 4, requires_grad=True)
    prefix = mapper(seen)
    assert prefix.shape == (2, 3, 8)
    prefix[0].sum().backward()
    assert mapper.constants.grad is not None
    assert seen.grad is not None
    assert seen.grad[0].abs().min() > 0
    assert not seen.grad[1].any(), "rows do not see each other"
    with pytest.raises(ModelError, match=r"mapper\.heads to a divisor of it, such as 2"):
        TransformerMapper(4, 8, heads=3)


def test_ids_end_with_the_end_token_and_are_filled_up(root: Path) -> None:
    captioner = make(root)
    ids, end = captioner.token_ids(["ab", "abcdefghijklmnop", ""]), captioner.tokenizer.eos_token_id
    assert ids.shape == (3, 12)
    assert ids[0, 2] == end
    assert set(ids[0, 3:].tolist()) == {IGNORED}
    assert end not in ids[1], "a caption that was cut has not ended"
    assert ids[2, 0] == end


def test_the_loss_is_that_of_each_token_after_prefix_and_tokens_before(root: Path) -> None:
    captioner, seen = make(root), features()
    ids = captioner.token_ids(TOLD)
    sums, counts = next_token(captioner(seen, torch.zeros(4, dtype=torch.bool), ids), ids)
    table = captioner.decoder.get_input_embeddings()
    for row, text in enumerate(TOLD):
        told = [*captioner.tokenizer(text)["input_ids"], captioner.tokenizer.eos_token_id]
        expected = 0.0
        for place, token in enumerate(told):
            before = torch.tensor([told[:place]], dtype=torch.long)
            inputs = torch.cat([captioner.prefix(seen[row : row + 1], "real"), table(before)], dim=1)
            logits = captioner.decoder(inputs_embeds=inputs).logits[0, -1].detach()
            expected -= float(logits.log_softmax(-1)[token])
        assert counts[row] == len(told)
        assert float(sums[row].detach()) == pytest.approx(expected, rel=1e-5)


def test_each_origin_has_its_own_mapper(root: Path) -> None:
    captioner, seen = make(root, dual=True), features()
    ids = captioner.token_ids(TOLD)
    generated = torch.tensor([True, False, True, False])
    assert torch.equal(captioner.prefix(seen, "real"), captioner.prefix(seen, "generated")), "both begin as one"
    with torch.no_grad():
        captioner.mapper("generated").layers[0].bias.add_(1.0)
    logits = captioner(seen, generated, ids)
    assert torch.equal(logits[~generated], make(root)(seen, generated, ids)[~generated])
    logits[generated].sum().backward()
    assert all(not p.grad.any() for p in captioner.mapper("real").parameters() if p.grad is not None)
    assert captioner.mapper("generated").layers[0].weight.grad.any()


def test_greedy_captions_are_those_of_a_loop_without_cache(root: Path) -> None:
    captioner, seen = make(root), features(6)
    table = captioner.decoder.get_input_embeddings()
    expected = []
    for row in seen:
        ids: list[int] = []
        while len(ids) < 12 and (not ids or ids[-1] != captioner.tokenizer.eos_token_id):
            inputs = torch.cat([captioner.prefix(row[None], "real"), table(torch.tensor([ids], dtype=torch.long))], 1)
            ids.append(int(captioner.decoder(inputs_embeds=inputs).logits[0, -1].argmax()))
        expected.append(" ".join(captioner.tokenizer.decode(ids, skip_special_tokens=True).split()))
    assert captioner.captions(seen, beams=1) == expected
    assert captioner.captions(seen, beams=1, batch_size=4) == expected


def test_a_beam_as_wide_as_the_vocabulary_finds_the_best_of_all(root: Path) -> None:
    captioner, seen = make(root, max_tokens=2), features(3)
    table, end = captioner.decoder.get_input_embeddings(), captioner.tokenizer.eos_token_id
    words = len(captioner.tokenizer)
    expected = []
    for row in seen:
        prefix = captioner.prefix(row[None], "real")
        first = captioner.decoder(inputs_embeds=prefix).logits[0, -1].log_softmax(-1)
        inputs = torch.cat([prefix.expand(words, -1, -1), table(torch.arange(words))[:, None]], dim=1)
        second = captioner.decoder(inputs_embeds=inputs).logits[:, -1].log_softmax(-1)
        scores = (first[:, None] + second) / 2
        scores[end] = -torch.inf
        best = divmod(int(scores.argmax()), words)
        if first[end] > scores.max():
            best = (end, end)
        expected.append(" ".join(captioner.tokenizer.decode(best, skip_special_tokens=True).split()))
    assert captioner.captions(seen, beams=words) == expected


def test_a_caption_ends_at_its_full_stop_where_asked(root: Path) -> None:
    captioner = make(root)
    stop = captioner.tokenizer(".")["input_ids"][0]
    with torch.no_grad():
        # Whatever is seen, the full stop is the likeliest token.
        captioner.decoder.lm_head.weight = torch.nn.Parameter(captioner.decoder.lm_head.weight.clone())
        captioner.decoder.transformer.ln_f.weight.zero_()
        captioner.decoder.transformer.ln_f.bias.copy_(captioner.decoder.lm_head.weight[stop])
        captioner.decoder.lm_head.weight[stop] *= 10
    assert captioner.captions(features(1), beams=1) == ["." * 12]
    captioner.ends_at_full_stop = True
    assert captioner.captions(features(2), beams=2) == [".", "."]


def test_a_frozen_language_model_keeps_out_of_training_mode(root: Path) -> None:
    captioner = make(root)
    assert captioner.train().decoder.training
    captioner.decoder.requires_grad_(False)
    assert not captioner.train().decoder.training
    assert captioner.mappers.training


def test_too_few_positions_are_told(root: Path) -> None:
    with pytest.raises(ModelError, match=r"64 positions; .* need 77"):
        make(root, max_tokens=67)


@pytest.mark.parametrize("dual", [False, True])
def test_the_folder_gives_the_same_captions_back(root: Path, tmp_path: Path, dual: bool) -> None:
    mapper = {"kind": "transformer", "prefix_length": 4, "clip_length": 3, "layers": 1, "heads": 2}
    captioner = make(root, dual=dual, mapper=mapper, normalize=True)
    encoder = load_dual_encoder(root / "clip")
    save_captioner(tmp_path / "model", captioner, encoder, made_by={"seed": 3}, findings="Found <this>.")
    loaded = load_captioner(tmp_path / "model")
    assert loaded.made_by == {"seed": 3}
    assert loaded.captioner.captions(features()) == captioner.captions(features())
    assert is_captioner(tmp_path / "model")
    assert not is_captioner(tmp_path)

    image_set = colour_set(tmp_path / "set", per_class=1)
    told = loaded.captions(Pictures(image_set, encoder.preprocess), beams=2)
    assert loaded.captions([str(path) for path in image_set.paths], beams=2, batch_size=3) == told
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "black.png")
    assert len(loaded.captions([tmp_path / "black.png"])) == 1

    folder = tmp_path / "model"
    stock = AutoModelForCausalLM.from_pretrained(folder / "decoder").state_dict()
    assert all(torch.equal(stock[key], value) for key, value in captioner.decoder.state_dict().items())
    assert AutoTokenizer.from_pretrained(folder / "decoder").eos_token == "<|endoftext|>"
    assert CLIPModel.from_pretrained(folder / "encoder").config.projection_dim == 20
    assert "Found <this>." in (folder / "README.md").read_text()
    names = {path.name for path in folder.glob("mapper*")}
    assert names == ({"mapper_real.safetensors", "mapper_generated.safetensors"} if dual else {"mapper.safetensors"})


def test_what_is_no_captioner_is_told(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no folder"):
        load_captioner(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="holds no captioner"):
        load_captioner(root / "clip")
    with pytest.raises(ModelError, match="could not be loaded"):
        load_decoder(root / "clip")
    save_captioner(tmp_path / "model", make(root), load_dual_encoder(root / "clip"), made_by={})
    described = json.loads((tmp_path / "model" / "captioner.json").read_text())
    (tmp_path / "model" / "captioner.json").write_text(json.dumps({**described, "version": 2}))
    with pytest.raises(ModelError, match="format version 2"):
        load_captioner(tmp_path / "model")
    described["mapper"]["prefix_length"] = 5
    (tmp_path / "model" / "captioner.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="does not fit"):
        load_captioner(tmp_path / "model")
