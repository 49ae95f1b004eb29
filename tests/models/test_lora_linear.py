"""The lean LoRA layer against peft's own: outputs and gradients, in both precisions, and what it leaves to peft."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import nn

from gen2real.models.adapters import add_lora, merge_lora
from gen2real.models.lora_linear import LeanLinear, make_lean


def layers(generator: torch.Generator, *, bias: bool = True, **settings: float) -> tuple[nn.Module, nn.Module]:
    """The same LoRA layer twice: peft's and the lean one, with random A and B."""
    plain = nn.Sequential(nn.Linear(12, 7, bias=bias)).requires_grad_(False)
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["0"], **settings)
    stock = inject_adapter_in_model(config, plain)
    for parameter in stock[0].lora_B.parameters():
        nn.init.normal_(parameter, generator=generator)
    return stock, make_lean(copy.deepcopy(stock))


def answers(layer: nn.Module, x: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    own = x.clone().requires_grad_()
    y = layer(own)
    (y.float() * weights).sum().backward()
    adapter = layer[0]
    return [y, own.grad, adapter.lora_A["default"].weight.grad, adapter.lora_B["default"].weight.grad]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (2, 4)])
def test_the_same_as_peft_in_float64(bias, shape, generator):
    stock, lean = (layer.double() for layer in layers(generator, bias=bias))
    assert type(stock[0]) is Linear
    assert type(lean[0]) is LeanLinear
    x, weights = (torch.randn(*shape, dim, generator=generator, dtype=torch.float64) for dim in (12, 7))
    for found, expected in zip(answers(lean, x, weights), answers(stock, x, weights), strict=True):
        torch.testing.assert_close(found, expected)
    assert lean[0].base_layer.weight.grad is None


def test_under_autocast_as_exact_as_peft(generator):
    stock, lean = layers(generator)
    x, weights = (torch.randn(64, dim, generator=generator) for dim in (12, 7))
    exact = answers(copy.deepcopy(stock), x, weights)
    with torch.autocast("cpu", torch.bfloat16):
        found, peft = answers(lean, x, weights), answers(stock, x, weights)
    assert found[0].dtype == torch.bfloat16
    assert [one.dtype for one in found[1:]] == [torch.float32] * 3
    for own, theirs, true in zip(found, peft, exact, strict=True):
        assert (own.float() - true).norm() < 1.2 * (theirs.float() - true).norm() + 1e-3


def test_the_first_layer_asks_no_gradient_of_its_pictures(generator):
    _, lean = layers(generator)
    lean(torch.randn(5, 12, generator=generator)).sum().backward()
    assert lean[0].lora_A["default"].weight.grad is not None


def test_without_an_update_the_output_is_the_original_bit_for_bit(generator):
    plain = nn.Sequential(nn.Linear(33, 18))
    x = torch.randn(9, 5, 33, generator=generator)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            expected = plain(x)
            tuned = add_lora(copy.deepcopy(plain), rank=2, alpha=4)
            assert type(tuned[0]) is LeanLinear
            assert torch.equal(tuned(x), expected)


def test_what_is_more_than_plain_lora_is_left_to_peft(generator):
    x = torch.randn(6, 12, generator=generator)
    stock, lean = layers(generator)
    assert lean[0]._only_adapter() == "default"
    lean[0].enable_adapters(False)
    assert lean[0]._only_adapter() is None
    torch.testing.assert_close(lean(x), lean[0].base_layer(x))
    lean[0].enable_adapters(True)
    # A base layer in training needs a gradient of its own.
    lean[0].base_layer.weight.requires_grad_(True)
    lean(x).sum().backward()
    assert lean[0].base_layer.weight.grad is not None
    lean[0].base_layer.weight.requires_grad_(False)
    assert layers(generator, lora_dropout=0.5)[1][0]._only_adapter() is None
    expected = stock(x)
    torch.testing.assert_close(merge_lora(lean)(x), expected)
