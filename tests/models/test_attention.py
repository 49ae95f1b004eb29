"""The image towers' attention: stock in float32, faster and as exact in bfloat16 on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, CLIPVisionModel

import tiny
from gen2real.models import attention
from gen2real.models.dual_encoder import load_dual_encoder

MAKERS = [tiny.tiny_clip, tiny.tiny_siglip, tiny.tiny_siglip2]


def by_hand(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    scores = torch.einsum("nhtd,nhsd->nhts", query.double(), key.double()) * scaling
    weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
    return torch.einsum("nhts,nhsd->nhtd", weights, value.double())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_plain_attention_and_its_gradients_are_the_formula(
    dtype: torch.dtype, tolerance: float, generator: torch.Generator
) -> None:
    inputs = [torch.randn(2, 3, 5, 4, generator=generator).to(dtype) for _ in range(3)]
    weight = torch.randn(2, 3, 5, 4, generator=generator)
    results = []
    for attend in (attention.plain_attention, by_hand):
        leaves = [one.clone().requires_grad_() for one in inputs]
        out = attend(*leaves, 0.5)
        (out.float() * weight).sum().backward()
        results.append([out.detach().float(), *(leaf.grad.float() for leaf in leaves)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("maker", MAKERS)
def test_bfloat16_is_as_near_to_float32_as_transformers_own(
    maker: Callable[[Path], Path], tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings and gradients under autocast; and the plain formula is what computed them."""
    vision = load_dual_encoder(maker(tmp_path / "model")).vision
    pixels = torch.randn(3, 3, 32, 32, generator=generator)
    calls = []

    def counted(*inputs: Tensor, **options: float) -> Tensor:
        calls.append(1)
        return plain(*inputs, **options)

    plain = attention.plain_attention
    monkeypatch.setattr(attention, "plain_attention", counted)

    def outcome(implementation: str, *, bfloat16: bool) -> list[Tensor]:
        vision.vision_model.set_attn_implementation(implementation)
        vision.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            features = vision(pixels)
        features.float().square().mean().backward()
        gradients = [p.grad.flatten() for name, p in vision.named_parameters() if "self_attn" in name]
        return [features.detach().float().flatten(), torch.cat(gradients)]

    exact = outcome("eager", bfloat16=False)
    stock = outcome("sdpa", bfloat16=True)
    assert not calls
    ours = outcome(attention.NAME, bfloat16=True)
    assert len(calls) == 2, "one call a layer"
    for true, other, own in zip(exact, stock, ours, strict=True):
        assert (own - true).norm() <= 1.5 * (other - true).norm() < 0.1 * true.norm()


def test_float32_and_masks_take_transformers_own_path(
    tmp_path: Path, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "plain_attention", None)
    encoder = load_dual_encoder(tiny.tiny_clip(tmp_path / "model"))
    stock = AutoModel.from_pretrained(tmp_path / "model")
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    gradients = []
    for tower, embed in (
        (encoder.vision, lambda: encoder.encode_image(pixels)),
        (stock.vision_model, lambda: stock.get_image_features(pixel_values=pixels).pooler_output),
    ):
        embed().square().sum().backward()
        inner = tower if isinstance(tower, CLIPVisionModel) else getattr(tower, "vision_model", tower)
        gradients.append([parameter.grad for parameter in inner.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 20
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    module = encoder.vision.vision_model.encoder.layers[0].self_attn
    halves = torch.randn(1, 4, 3, 8, generator=generator, dtype=torch.bfloat16)
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.bfloat16)
    out, weights = attention.attention_forward(module, halves, halves, halves, mask, scaling=1.0)
    assert out.shape == (1, 3, 4, 8)
    assert weights is None


def test_what_is_saved_does_not_name_it(tmp_path: Path) -> None:
    """A tower's attention is how it is computed here, not what the checkpoint is."""
    encoder = load_dual_encoder(tiny.tiny_clip(tmp_path / "model"))
    encoder.save(tmp_path / "saved")
    assert attention.NAME not in (tmp_path / "saved" / "config.json").read_text()
    assert AutoModel.from_pretrained(tmp_path / "saved").config.vision_config._attn_implementation == "sdpa"
