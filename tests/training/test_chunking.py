"""Encoding by chunks: the loss, its gradients and the dropout of a real CLIP, and the memory that it is there for."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPModel

from gen2real.losses import image_text_contrastive
from gen2real.models.adapters import add_lora
from gen2real.training.chunking import in_chunks
from gen2real.training.conflict import gradients_of
from tiny import tiny_clip

ROWS = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("chunking") / "clip")


def clip(folder: Path, dtype: torch.dtype = torch.float64) -> CLIPModel:
    return CLIPModel.from_pretrained(folder).to(dtype).train()


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(ROWS, 3, 32, 32, generator=generator).to(dtype)
    ids = torch.randint(2, 60, (ROWS, 7), generator=generator)
    return pixels, ids, torch.ones_like(ids)


def encoders(model: CLIPModel) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    def image(pixels: Tensor) -> Tensor:
        return model.get_image_features(pixel_values=pixels).pooler_output

    def text(ids: Tensor, mask: Tensor) -> Tensor:
        return model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output

    return image, text


def contrastive(model: CLIPModel, size: int | None, dtype: torch.dtype = torch.float64) -> Tensor:
    pixels, ids, mask = batch(dtype)
    image, text = encoders(model)
    groups = torch.tensor([0, 0, *range(1, ROWS - 1)])
    return image_text_contrastive(
        in_chunks(image, (pixels,), size), in_chunks(text, (ids, mask), size), model.logit_scale.exp(), groups=groups
    )


def learnt(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("size", [1, 4, 10])
def test_a_chunked_clip_learns_what_a_whole_one_does(
    folder: Path, dtype: torch.dtype, tolerance: float, size: int
) -> None:
    model = clip(folder, dtype)
    whole, chunked = contrastive(model, None, dtype), contrastive(model, size, dtype)
    torch.testing.assert_close(chunked, whole, rtol=0, atol=tolerance)
    expected, found = learnt(model, whole), learnt(model, chunked)
    assert set(found) == set(expected) == {name for name, _ in model.named_parameters()}
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=tolerance)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 0.01


def test_negatives_of_other_chunks_count(folder: Path) -> None:
    """Accumulation, the mean of the chunks' own losses, is another loss."""
    model, (pixels, ids, mask) = clip(folder), batch()
    image, text = encoders(model)
    parts = zip(pixels.split(4), ids.split(4), mask.split(4), strict=True)
    scale = model.logit_scale.exp()
    apart = [(len(a), image_text_contrastive(image(a), text(b, c), scale)) for a, b, c in parts]
    accumulated = sum(count * loss for count, loss in apart) / ROWS
    together = image_text_contrastive(in_chunks(image, (pixels,), 4), in_chunks(text, (ids, mask), 4), scale)
    assert together.item() > accumulated.item() + 0.5


def test_lora_dropout_is_the_same_the_second_time(folder: Path) -> None:
    """As the same chunks that keep their activations: one loss, one gradient, and the random numbers go on alike."""
    model, (pixels, _, _) = clip(folder), batch()
    add_lora(model.vision_model, rank=2, alpha=4, dropout=0.5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    image = encoders(model)[0]
    target = torch.randn(ROWS, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    results = []
    for encode in (
        lambda: torch.cat([image(part) for part in pixels.split(4)]),
        lambda: in_chunks(image, (pixels,), 4),
    ):
        torch.manual_seed(3)
        loss = image_text_contrastive(encode(), target, 10.0)
        results.append((loss.detach(), learnt(model, loss), torch.rand(2)))
    (loss, expected, after), (chunked, found, chunked_after) = results
    assert torch.equal(loss, chunked)
    assert torch.equal(after, chunked_after)
    assert set(found) == set(expected) != set()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12)
    torch.manual_seed(4)
    assert not torch.equal(image_text_contrastive(in_chunks(image, (pixels,), 4), target, 10.0), loss), "dropout is on"


def test_activations_of_one_chunk_live_at_a_time(folder: Path) -> None:
    model = clip(folder)
    pixels = batch()[0]
    image = encoders(model)[0]
    living: list[weakref.ref[Any]] = []
    peak = 0

    def look(_: nn.Module, __: Any, output: Tensor) -> None:
        nonlocal peak
        living.append(weakref.ref(output.untyped_storage()))
        peak = max(peak, sum(storage.nbytes() for one in living if (storage := one()) is not None))

    # The activation function keeps its input for the backward pass.
    hooks = [layer.mlp.fc1.register_forward_hook(look) for layer in model.vision_model.encoder.layers]
    peaks = {}
    for size in (None, 1, 4):
        peak, living = 0, []
        in_chunks(image, (pixels,), size).square().sum().backward()
        peaks[size] = peak
    for hook in hooks:
        hook.remove()
    assert peaks[None] == len(hooks) * ROWS * 17 * model.config.vision_config.intermediate_size * 8
    assert peaks[1] == peaks[None] // ROWS
    assert peaks[4] == peaks[None] * 4 // ROWS


def test_gradients_of_each_loss_go_through_chunks_more_than_once(folder: Path) -> None:
    model, (pixels, _, _) = clip(folder), batch()
    image = encoders(model)[0]
    trained = {"image": [p for p in model.vision_model.parameters() if p.requires_grad]}
    found = []
    for size in (None, 4):
        features = in_chunks(image, (pixels,), size)
        losses = {"square": features.square().mean(), "fourth": features.pow(4).mean()}
        apart = gradients_of(losses, trained)
        learnt(model, losses["square"] + losses["fourth"])
        found.append((apart, [p.grad.clone() for p in trained["image"]]))
    for name in ("square", "fourth"):
        for one, other in zip(found[0][0][name]["image"], found[1][0][name]["image"], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_what_needs_no_chunks_is_computed_once() -> None:
    calls: list[int] = []

    def encode(rows: Tensor) -> Tensor:
        calls.append(len(rows))
        return rows * 2

    for size in (None, 3, 5):
        rows = torch.arange(3.0).requires_grad_()
        in_chunks(encode, (rows,), size).sum().backward()
        assert rows.grad is not None
        assert rows.grad.tolist() == [2, 2, 2]
    assert calls == [3, 3, 3]
    calls.clear()
    assert in_chunks(encode, (torch.zeros(0, 4),), 2).shape == (0, 4), "a process without rows runs the tower as well"
    assert calls == [0]
    calls.clear()
    rows = torch.arange(5.0).requires_grad_()
    assert in_chunks(encode, (rows,), 2).tolist() == [0, 2, 4, 6, 8]
    assert calls == [2, 2, 1]


def test_the_second_time_has_the_precision_of_the_first() -> None:
    """The backward pass runs outside autocast, as with accelerate."""
    layer, seen = nn.Linear(4, 4), list[torch.dtype]()

    def encode(rows: Tensor) -> Tensor:
        seen.append((output := layer(rows)).dtype)
        return output.square()

    with torch.autocast("cpu", torch.bfloat16):
        loss = in_chunks(encode, (torch.randn(4, 4),), 2).float().mean()
    loss.backward()
    assert seen == [torch.bfloat16] * 4


def test_what_cannot_be_cut_is_said() -> None:
    with pytest.raises(ValueError, match=r"inputs have \[3, 4\] rows; expected one number for all of them"):
        in_chunks(torch.add, (torch.zeros(3), torch.zeros(4)), 2)
    with pytest.raises(ValueError, match=r"size is 0; expected a number of rows, 1 or more"):
        in_chunks(torch.neg, (torch.zeros(3),), 0)
    with pytest.raises(ValueError, match=r"inputs have \[\] rows"):
        in_chunks(torch.neg, (), 2)
