"""Two image towers over one set of weights: exact without a shift, equal to merged LoRA, the same after loading."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import CLIPModel

import tiny
from gen2real.models import DualEncoder, load_dual_encoder
from gen2real.models.adapters import add_lora, merge_lora
from gen2real.models.aligned import (
    Aligned,
    Branch,
    ShiftedTower,
    TwoBranches,
    difference,
    load_aligned,
    save_aligned,
    shift_of,
)

sys.path.insert(0, str(Path(__file__).parent))

BRANCHES: tuple[Branch, ...] = ("f_r", "f_g", "projection")
PIXELS = torch.linspace(-1, 1, 4 * 3 * 32 * 32).reshape(4, 3, 32, 32).sin()
ENCODERS: dict[str, Callable[[Path], str | Path]] = {
    "clip": tiny.tiny_clip,
    "siglip": tiny.tiny_siglip,
    "siglip2": tiny.tiny_siglip2,
    "convolutions": lambda _: "my_towers:build",
}


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest, tmp_path: Path) -> DualEncoder:
    return load_dual_encoder(ENCODERS[request.param](tmp_path / "encoder"))


def lora_tower(encoder: DualEncoder, *, rank: int = 2) -> nn.Module:
    """A copy of the image tower with LoRA layers that have learned something."""
    tower = add_lora(copy.deepcopy(encoder.vision), rank=rank, alpha=2 * rank)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(3)
        for name, parameter in tower.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)
    return tower


def same(one: nn.Module, other: nn.Module) -> bool:
    with torch.no_grad():
        return torch.equal(one(PIXELS), other(PIXELS))


def test_without_a_shift_it_is_the_tower(encoder: DualEncoder) -> None:
    zeros = {name: torch.zeros_like(value) for name, value in encoder.vision.named_parameters()}
    assert same(ShiftedTower(encoder.vision, {}), encoder.vision)
    assert same(ShiftedTower(encoder.vision, zeros).eval(), encoder.vision)
    assert same(Aligned(encoder).tower("f_g"), encoder.vision)


def test_the_shift_of_lora_is_what_merging_adds(encoder: DualEncoder) -> None:
    tower = lora_tower(encoder)
    shifted = ShiftedTower(encoder.vision, shift_of(tower)).eval()
    with torch.no_grad():
        unmerged = tower(PIXELS)
        torch.testing.assert_close(shifted(PIXELS), unmerged, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(encoder.vision(PIXELS), unmerged, atol=1e-3)
    assert same(shifted, merge_lora(tower))


@pytest.mark.parametrize("form", ["lora", "whole tower", "difference"])
def test_loading_gives_the_same_embeddings(encoder: DualEncoder, tmp_path: Path, form: str) -> None:
    tower = lora_tower(encoder)
    shift = shift_of(tower)
    whole = merge_lora(copy.deepcopy(tower))
    if form == "whole tower":
        shift = difference(whole, encoder.vision)
    forms: dict[str, nn.Module | dict[str, torch.Tensor]] = {"lora": tower, "whole tower": whole, "difference": shift}
    measured = Aligned(encoder, shift, torch.linspace(-1, 1, encoder.embedding_dim**2).view(encoder.embedding_dim, -1))
    save_aligned(
        tmp_path / "model",
        encoder,
        forms[form],
        real_projection=measured.real_projection,
        made_by={"seed": 1},
        findings="",
    )
    loaded = load_aligned(tmp_path / "model")
    for branch in BRANCHES:
        assert same(loaded.tower(branch), measured.tower(branch)), branch
    assert not same(loaded.tower("f_r"), loaded.tower("f_g"))
    assert torch.equal(loaded.encoder.encode_text(["a red square"]), encoder.encode_text(["a red square"]))
    assert loaded.made_by == {"seed": 1}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft's own
def test_stock_transformers_and_peft_load_both_towers(tmp_path: Path) -> None:
    encoder = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip"))
    tower = lora_tower(encoder)
    save_aligned(tmp_path / "model", encoder, tower, made_by={})
    f_r = CLIPModel.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        # Copied, as tensors mapped from a file start at any byte and products then differ in the last bit.
        f_r.load_state_dict({name: value.clone() for name, value in f_r.state_dict().items()}, assign=True)
        assert torch.equal(f_r.get_image_features(pixel_values=PIXELS).pooler_output, encoder.vision(PIXELS))
        f_g = PeftModel.from_pretrained(f_r, str(tmp_path / "model" / "generated"))
        expected = load_aligned(tmp_path / "model").tower("f_g")(PIXELS)
        found = f_g.get_image_features(pixel_values=PIXELS).pooler_output
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_each_row_goes_through_its_own_tower(encoder: DualEncoder) -> None:
    shift = shift_of(lora_tower(encoder))
    both = TwoBranches(encoder.vision, shift).eval()
    f_g = ShiftedTower(encoder.vision, shift).eval()
    with torch.no_grad():
        for mask in ([True, False, False, True], [False] * 4, [True] * 4):
            drawn = torch.tensor(mask)
            expected = torch.where(drawn[:, None], f_g(PIXELS), encoder.vision(PIXELS))
            torch.testing.assert_close(both(PIXELS, drawn), expected, rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_weights_and_not_the_shift(encoder: DualEncoder) -> None:
    shift = shift_of(lora_tower(encoder))
    merged = copy.deepcopy(encoder.vision)
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            parameter.add_(shift.get(name, torch.zeros(())))
    both = TwoBranches(encoder.vision, shift).eval()
    both(PIXELS, torch.ones(4, dtype=torch.bool)).square().sum().backward()
    merged(PIXELS).square().sum().backward()
    for (name, found), expected in zip(encoder.vision.named_parameters(), merged.parameters(), strict=True):
        assert (found.grad is None) == (expected.grad is None), name
        if found.grad is not None and expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad)
    assert {name for name, _ in both.named_parameters()} == {
        f"shifted.tower.{name}" for name, _ in encoder.vision.named_parameters()
    }
