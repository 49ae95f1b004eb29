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
from gen2real.errors import ModelError
from gen2real.models import DualEncoder, load_dual_encoder
from gen2real.models.adapters import add_lora, merge_lora
from gen2real.models.aligned import (
    Aligned,
    Branch,
    ShiftedTower,
    TwoBranches,
    difference,
    is_aligned,
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


def test_refusals(tmp_path: Path) -> None:
    clip = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip"))
    with pytest.raises(ModelError, match=r"no such parameters:\n  nothing\.weight \(2, 2\)"):
        ShiftedTower(clip.vision, {"nothing.weight": torch.zeros(2, 2)})
    with pytest.raises(ModelError, match=r"visual_projection\.weight \(2, 2\) \(the tower's: \(20, 32\)\)"):
        save_aligned(tmp_path / "model", clip, {"visual_projection.weight": torch.zeros(2, 2)}, made_by={})
    with pytest.raises(ModelError, match=r"shape \(3, 3\); expected \(20, 20\)"):
        save_aligned(tmp_path / "model", clip, {}, real_projection=torch.zeros(3, 3), made_by={})
    with pytest.raises(ModelError, match="no LoRA layers that are not merged"):
        shift_of(clip.vision)
    with pytest.raises(ModelError, match="has no projection for real pictures"):
        Aligned(clip).tower("projection")
    other = load_dual_encoder("my_towers:build")
    with pytest.raises(ModelError, match="not of one architecture"):
        save_aligned(tmp_path / "model", clip, other.vision, made_by={})
    moved = copy.deepcopy(other.vision).train()
    moved(PIXELS)
    with pytest.raises(ModelError, match=r"other buffers .*1\.running_mean.*freeze_batch_norm: true"):
        difference(moved, other.vision)
    assert not (tmp_path / "model").exists()


def test_gradient_checkpointing_is_refused(tmp_path: Path) -> None:
    """Layers would be computed again without the shift, and gradients be wrong without a word."""
    clip = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip"))
    shifted = ShiftedTower(clip.vision, {"visual_projection.weight": torch.ones(20, 32)})
    clip.gradient_checkpointing()
    shifted.eval()(PIXELS)
    with pytest.raises(ModelError, match=r"encoder\.generated_through=f_r"):
        shifted.train()(PIXELS)


def test_a_torn_or_foreign_adapter_is_refused(tmp_path: Path) -> None:
    encoder = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip"))
    save_aligned(tmp_path / "model", encoder, lora_tower(encoder), made_by={})
    assert is_aligned(tmp_path / "model")
    assert not is_aligned(tmp_path / "clip")
    other = load_dual_encoder("my_towers:build")
    save_aligned(tmp_path / "other", other, lora_tower(other), made_by={})
    weights = tmp_path / "model" / "generated" / "adapter_model.safetensors"
    own = weights.read_bytes()
    weights.write_bytes((tmp_path / "other" / "generated" / "adapter_model.safetensors").read_bytes())
    with pytest.raises(ModelError, match="does not fit the image tower"):
        load_aligned(tmp_path / "model")
    weights.write_bytes(own[:-100])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_aligned(tmp_path / "model")
    weights.unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        load_aligned(tmp_path / "model")
