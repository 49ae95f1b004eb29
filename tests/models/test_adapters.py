"""LoRA: exact at the start, merges away without a trace, and peft itself loads what is saved."""

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
from gen2real.models.adapters import adaptable, add_lora, default_targets, merge_lora, save_adapter
from gen2real.models.dual_encoder import load_dual_encoder

sys.path.insert(0, str(Path(__file__).parent))
import my_towers

PIXELS = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32).sin()
TOWERS: dict[str, Callable[[Path], nn.Module]] = {
    "clip": lambda folder: load_dual_encoder(tiny.tiny_clip(folder)).vision,
    "siglip": lambda folder: load_dual_encoder(tiny.tiny_siglip(folder)).vision,
    "siglip2": lambda folder: load_dual_encoder(tiny.tiny_siglip2(folder)).vision,
    "convolutions": lambda _: my_towers.vision().eval(),
}


@pytest.fixture(params=TOWERS)
def tower(request: pytest.FixtureRequest, tmp_path: Path) -> nn.Module:
    return TOWERS[request.param](tmp_path)


def disturb(module: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)


def test_step_zero_is_the_original(tower: nn.Module) -> None:
    tower.requires_grad_(False)  # attention in nn.MultiheadAttention takes another path where nothing is trained
    with torch.no_grad():
        before = tower(PIXELS)
        adapted = add_lora(tower, rank=2, alpha=4, dropout=0.1)
        assert adapted is tower
        assert not tower.training
        assert torch.equal(adapted(PIXELS), before)


def test_only_the_adapter_learns(tower: nn.Module) -> None:
    add_lora(tower, rank=2, alpha=4)
    disturb(tower)
    tower(PIXELS).square().sum().backward()
    assert {name for name, p in tower.named_parameters() if p.grad is not None} == {
        name for name, _ in tower.named_parameters() if ".lora_" in name
    }
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tower.parameters() if p.requires_grad)


def test_merging_leaves_a_plain_module(tower: nn.Module) -> None:
    original = copy.deepcopy(tower.state_dict())
    add_lora(tower, rank=2, alpha=4)
    disturb(tower)
    with torch.no_grad():
        adapted = tower(PIXELS)
        assert not torch.allclose(adapted, copy_of(original, tower)(PIXELS), atol=1e-3)
        merged = merge_lora(tower)
        torch.testing.assert_close(merged(PIXELS), adapted, rtol=1e-3, atol=1e-4)
    assert list(merged.state_dict()) == list(original)
    assert all(parameter.requires_grad for parameter in merged.parameters())
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, original[name])}
    assert changed == {f"{name}.weight" for name in default_targets(merged)}
    add_lora(merged, rank=1, alpha=1)


def copy_of(state: dict[str, torch.Tensor], adapted: nn.Module) -> nn.Module:
    plain = merge_lora(copy.deepcopy(adapted))
    plain.load_state_dict(state)
    return plain


def test_default_targets(tmp_path: Path) -> None:
    siglip = load_dual_encoder(tiny.tiny_siglip(tmp_path / "siglip"))
    names = siglip.vision_linear_names()
    assert len(names) == 2 * 4
    assert names[0] == "vision_model.encoder.layers.0.self_attn.k_proj"
    assert not any("head.attention" in name for name in adaptable(siglip.vision))  # inside nn.MultiheadAttention
    assert default_targets(my_towers.vision()) == ["0", "4", "7"]  # not 3, which has groups


def test_targets_by_name_ending_and_pattern(tmp_path: Path) -> None:
    def adapted(*targets: str) -> set[str]:
        vision = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip")).vision
        add_lora(vision, rank=1, alpha=1, targets=targets)
        return {name.partition(".lora_A")[0] for name, _ in vision.named_parameters() if ".lora_A" in name}

    layer = "vision_model.encoder.layers"
    assert adapted("visual_projection") == {"visual_projection"}
    assert adapted("fc1") == {f"{layer}.0.mlp.fc1", f"{layer}.1.mlp.fc1"}
    assert adapted("*.0.mlp.*", "visual_projection") == {
        f"{layer}.0.mlp.fc1", f"{layer}.0.mlp.fc2", "visual_projection"
    }  # fmt: skip


def test_refusals(tmp_path: Path) -> None:
    vision = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip")).vision
    with pytest.raises(ModelError, match=r"target 'query'\. .*q_proj, v_proj[\s\S]*layers\.0\.self_attn\.k_proj"):
        add_lora(vision, rank=2, alpha=4, targets=["q_proj", "query"])
    with pytest.raises(ModelError, match="list of names"):
        add_lora(vision, rank=2, alpha=4, targets="q_proj")
    with pytest.raises(ModelError, match="rank must be at least 1"):
        add_lora(vision, rank=0, alpha=4)
    with pytest.raises(ModelError, match="no LoRA layers to merge"):
        merge_lora(vision)
    with pytest.raises(ModelError, match="no LoRA layers to save"):
        save_adapter(vision, tmp_path / "adapter")
    with pytest.raises(ModelError, match="no linear layer and no convolution"):
        add_lora(nn.Sequential(nn.ReLU()), rank=2, alpha=4)
    add_lora(vision, rank=2, alpha=4)
    with pytest.raises(ModelError, match="merge_lora"):
        add_lora(vision, rank=2, alpha=4)


def test_unmerged_layers_are_not_saved_as_a_model(tmp_path: Path) -> None:
    encoder = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip"))
    add_lora(encoder.vision, rank=2, alpha=4)
    with pytest.raises(ModelError, match="call merge_lora"):
        encoder.save(tmp_path / "saved")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft's own
def test_peft_loads_the_saved_adapter(tmp_path: Path) -> None:
    folder = tiny.tiny_clip(tmp_path / "clip")
    vision = load_dual_encoder(folder).vision
    add_lora(vision, rank=2, alpha=4, targets=["q_proj", "visual_projection"])
    disturb(vision)
    save_adapter(vision, tmp_path / "adapter")
    save_adapter(vision, tmp_path / "adapter")  # an older adapter is replaced
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    model = PeftModel.from_pretrained(CLIPModel.from_pretrained(folder), str(tmp_path / "adapter"))
    with torch.no_grad():
        expected = vision(PIXELS)
        torch.testing.assert_close(model.get_image_features(pixel_values=PIXELS).pooler_output, expected)
