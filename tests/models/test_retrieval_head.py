"""What is read of hidden states, the retrieval head, embeddings, and the head in a model's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from gen2real.errors import ModelError
from gen2real.imagesets.interleaved import Interleaved, Part, Turn
from gen2real.models.embedder import Embedder
from gen2real.models.hidden_states import hidden_states
from gen2real.models.multimodal import MultimodalModel, load_multimodal
from gen2real.models.multimodal_folder import make_trainable, merge, save_multimodal, save_whole
from gen2real.models.retrieval_head import RetrievalHead, Whitening, load_head, read_out, save_head, whitening_of
from gen2real.models.sequences import encode_sequences
from tiny import tiny_clip
from tiny_multimodal import tiny_llava


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("heads")
    tiny_clip(root / "clip")
    tiny_llava(root / "llava", root / "clip")
    for name, colour in (("red", (200, 40, 30)), ("blue", (20, 40, 190))):
        Image.new("RGB", (40, 30), colour).save(root / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def model(root: Path) -> MultimodalModel:
    return load_multimodal(root / "llava")


@pytest.fixture(scope="module")
def contents(root: Path) -> list[list[Part]]:
    red, blue = root / "red.png", root / "blue.png"
    return [[red], ["a duck."], [red, "a duck."], [blue], ["a story: ", red, " It went. ", blue, " "], ["!"]]


def head_of(model: MultimodalModel) -> RetrievalHead:
    torch.manual_seed(3)
    return RetrievalHead(model.width, 20, 12)


def test_a_read_out_is_the_mean_of_its_tokens_or_the_last() -> None:
    hidden = torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    spans = torch.tensor([[2, 0, 7], [0, 3, 4], [2, 5, 7], [0, 1, 4], [2, 6, 7]])
    expected = torch.stack([hidden[row, begin:end].mean(dim=0) for row, begin, end in spans.tolist()])
    torch.testing.assert_close(read_out(hidden, spans), expected, rtol=1e-12, atol=1e-12)
    last = torch.stack([hidden[row, end - 1] for row, _, end in spans.tolist()])
    assert torch.equal(read_out(hidden, spans, image="last"), last)
    weights = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, known = (torch.autograd.grad((of * weights).sum(), hidden)[0] for of in (read_out(hidden, spans), expected))
    torch.testing.assert_close(found, known, rtol=1e-12, atol=1e-12)
    assert not found[1].any()
    assert read_out(hidden, spans[:0]).shape == (0, 5)


def test_half_precision_is_read_as_float32_also_under_autocast() -> None:
    hidden = torch.arange(600, dtype=torch.float32).reshape(1, 600, 1).bfloat16() / 64
    spans = torch.tensor([[0, 0, 600], [0, 599, 600]])
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            found = read_out(hidden, spans)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found[0], hidden[0].float().mean(dim=0), rtol=1e-2, atol=0)
        assert torch.equal(found[1], hidden[0, 599].float())


def test_a_head_is_two_layers_and_unit_length() -> None:
    torch.manual_seed(0)
    head, states = RetrievalHead(6, 5, 4), torch.randn(3, 6)
    first, _, second = head.layers
    by_hand = F.gelu(states @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(head(states), by_hand / by_hand.norm(dim=1, keepdim=True))
    assert head(states.bfloat16()).dtype == torch.float32


def test_embeddings_are_those_of_the_prefixes_that_are_taught(
    model: MultimodalModel, contents: list[list[Part]], root: Path
) -> None:
    head = head_of(model)
    found = Embedder(model, head).embed(contents, batch_size=2)
    assert found.shape == (6, 12)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(Embedder(model, head).embed(contents), found, rtol=1e-4, atol=1e-5)
    # The same content at the beginning of a sample that goes on, as it is learnt from.
    longer = (root / "red.png", " a duck. It went. ", root / "blue.png")
    batch = encode_sequences(model, [Interleaved("1", (Turn(longer),))], [[0, 1]])
    with torch.no_grad():
        taught = head(read_out(hidden_states(model, batch.inputs), batch.spans))
    torch.testing.assert_close(found[[0, 2]], taught, rtol=1e-4, atol=1e-5)
    assert (found @ found.T - torch.eye(6)).max() < 0.9999
    assert not torch.allclose(Embedder(model, head).embed(contents[:1], image="last"), found[:1], atol=1e-3)


def test_without_a_head_the_state_is_the_embedding(model: MultimodalModel, contents: list[list[Part]]) -> None:
    model.model.train()
    found = Embedder(model, None).embed(contents[:2])
    assert model.model.training
    model.model.eval()
    batch = encode_sequences(
        model, [Interleaved(str(n), (Turn(tuple(own)),)) for n, own in enumerate(contents[:2])], [[0]] * 2
    )
    with torch.no_grad():
        states = read_out(hidden_states(model, batch.inputs), batch.spans)
    torch.testing.assert_close(found, F.normalize(states, dim=1), rtol=1e-4, atol=1e-5)
    assert Embedder(model, None).embed([]).shape == (0, model.width)
    with pytest.raises(ModelError, match="content 1 to embed has neither text nor a picture"):
        Embedder(model, None).embed([["a"], [" "]])


def test_a_head_is_saved_and_loaded_with_the_adapter_and_without(
    root: Path, tmp_path: Path, contents: list[list[Part]]
) -> None:
    model = load_multimodal(root / "llava")
    make_trainable(model, rank=2, alpha=4.0, projector="frozen")
    with torch.no_grad():
        for name, parameter in model.model.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.3)
    model.head = head_of(model)
    expected = Embedder(model, model.head).embed(contents)
    save_multimodal(tmp_path / "tuned", model, made_by={"method": "sugar"})
    assert "Embedder(model, model.head)" in (tmp_path / "tuned" / "README.md").read_text(encoding="utf-8")
    loaded = load_multimodal(tmp_path / "tuned")
    assert loaded.head is not None
    assert not any(parameter.requires_grad for parameter in loaded.head.parameters())
    torch.testing.assert_close(Embedder(loaded, loaded.head).embed(contents), expected, rtol=0, atol=0)
    save_whole(tmp_path / "whole", merge(loaded))
    whole = load_multimodal(tmp_path / "whole")
    torch.testing.assert_close(Embedder(whole, whole.head).embed(contents), expected, rtol=1e-3, atol=1e-4)
    assert load_multimodal(root / "llava").head is None


def test_a_head_of_another_model_is_refused(tmp_path: Path) -> None:
    head = RetrievalHead(6, 5, 4)
    assert load_head(tmp_path, 6) is None
    save_head(tmp_path, None)
    assert load_head(tmp_path, 6) is None
    save_head(tmp_path, head)
    loaded = load_head(tmp_path, 6)
    assert loaded is not None
    assert loaded.dim == 4
    with pytest.raises(ModelError, match="no retrieval head for hidden states of width 7"):
        load_head(tmp_path, 7)


def narrow_states(count: int) -> torch.Tensor:
    """Far from the origin, of two kinds, and long in one direction."""
    generator = torch.Generator().manual_seed(4)
    spread = torch.randn(count, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    return spread * torch.tensor([9.0, 1, 1, 1, 1, 0.1]) + 50 + 20 * (torch.arange(count) % 2)[:, None]


def test_whitened_states_vary_alike_in_every_direction() -> None:
    states = narrow_states(500)
    whitening = Whitening.of(states, ridge=0.0)
    white = whitening(states)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(6), rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.cov(white.T), torch.eye(6), rtol=0, atol=1e-2)
    # Symmetric: of all that do so the one that turns nothing.
    torch.testing.assert_close(whitening.matrix, whitening.matrix.T)
    assert not list(whitening.parameters())


def test_directions_that_hardly_vary_stay_small() -> None:
    flat = narrow_states(40)
    flat[:, 5] = 3
    white = Whitening.of(flat)(flat)
    assert white.isfinite().all()
    assert float(torch.cov(white.T).trace()) < 6
    for few in (flat[:1], flat[:1].expand(5, -1)):
        with pytest.raises(ModelError, match=rf"{len(few)} hidden states that do not differ"):
            Whitening.of(few)


def test_whitening_is_saved_with_its_head_and_alone(tmp_path: Path) -> None:
    states = narrow_states(30)
    whitening = Whitening.of(states)
    for name, head in (("head", RetrievalHead(6, 5, 4, whitening)), ("alone", whitening)):
        (tmp_path / name).mkdir()
        save_head(tmp_path / name, head)
        loaded = load_head(tmp_path / name, 6)
        assert type(loaded) is type(head)
        assert loaded is not None
        assert torch.equal(loaded(states), head(states))
        found = whitening_of(loaded)
        assert found is not None
        assert torch.equal(found.matrix, whitening.matrix)
    bare = RetrievalHead(6, 5, 4)
    bare.layers = RetrievalHead(6, 5, 4, whitening).layers
    assert whitening_of(bare) is whitening_of(None) is None
    assert not torch.allclose(bare(states), RetrievalHead(6, 5, 4, whitening)(states))
