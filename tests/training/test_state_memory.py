"""What a training holds besides activations: counted by hand, and for models that do not fit here, from shapes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gen2real.training.state_memory import StateMemory, state_memory


def test_each_kind_is_counted_by_hand() -> None:
    whole, some = nn.Linear(10, 4), nn.Linear(5, 2)
    some.bias.requires_grad_(False)
    still = nn.BatchNorm1d(3).requires_grad_(False).to(torch.float64)
    found = state_memory([("a", "full", whole, True), ("b", "lora", some, False), ("c", "frozen", still, False)])
    a, b, c = found.parts
    assert (a.parameters, a.trained) == (44, 44)
    assert (a.weights, a.gradients, a.moments, a.average) == (176, 176, 352, 176)
    assert (b.parameters, b.trained) == (12, 10)
    assert (b.weights, b.gradients, b.moments, b.average) == (48, 40, 80, 0)
    # Two parameters and two buffers of 3 values of 8 bytes, and a counter.
    assert (c.parameters, c.trained, c.weights, c.total) == (6, 0, 104, 104)
    assert found.total == 880 + 168 + 104
    assert found.to_json()["total"] == sum(part["total"] for part in found.to_json()["parts"])


def test_what_two_parts_share_is_counted_once() -> None:
    shared = nn.Linear(3, 3)
    found = state_memory(
        [("a", "full", shared, False), ("b", "frozen", shared, False), ("c", "full", nn.Identity(), True)]
    )
    assert [part.name for part in found.parts] == ["a"]


@pytest.fixture(scope="module")
def sizes() -> dict[str, nn.Module]:
    """Stable Diffusion 1.5 and CLIP ViT-L/14, as shapes alone."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPConfig, CLIPModel

    from gen2real.models.transformers_encoders import ClipVision

    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
    with torch.device("meta"):
        clip = CLIPModel(
            CLIPConfig(
                text_config=text, vision_config={**vision, "patch_size": 14, "image_size": 224}, projection_dim=768
            )
        )
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
    parts = {"image": ClipVision(clip), "text": clip.text_model, "unet": unet, "vae": vae}
    return {name: part.requires_grad_(False) for name, part in parts.items()}


def test_the_published_sizes(sizes: dict[str, nn.Module]) -> None:
    found = state_memory((name, "frozen", part, False) for name, part in sizes.items())
    counted = {part.name: round(part.parameters / 1e6, 2) for part in found.parts}
    assert counted == {"image": 303.97, "text": 123.06, "unet": 859.52, "vae": 83.65}
    assert found.total == pytest.approx(4 * 1370.20e6, rel=1e-4)


def test_everything_in_training_with_a_running_mean_of_the_denoiser(sizes: dict[str, nn.Module]) -> None:
    tuned = ("image", "text", "unet")
    for name in tuned:
        sizes[name].requires_grad_(True)
    found = state_memory((name, "full", part, name == "unet") for name, part in sizes.items())
    for name in tuned:
        sizes[name].requires_grad_(False)
    # AdamW in float32: 16 bytes a weight in training, 4 more where a running mean is kept, 4 where it is frozen.
    assert found.total == pytest.approx(16 * 1286.55e6 + 4 * 859.52e6 + 4 * 83.65e6, rel=1e-4)
    assert found.text().startswith(
        "24.36 GB of states (weights 5.48 GB, gradients 5.15 GB, AdamW 10.29 GB, running means 3.44 GB)"
    )
    assert "  unet, full: 859.52 M weights, 17.19 GB" in found.text()


def test_lora_on_the_denoiser(sizes: dict[str, nn.Module]) -> None:
    from gen2real.models.adapters import add_lora, matching
    from gen2real.models.joint import UNET_TARGETS

    unet = sizes["unet"]
    add_lora(unet, rank=16, alpha=16, dropout=0.0, targets=matching(unet, UNET_TARGETS, where="the denoiser"))
    found: StateMemory = state_memory([("unet", "lora", unet, True)])
    [part] = found.parts
    # peft's count for rank 16 on to_q, to_k, to_v and to_out.0 of Stable Diffusion 1.5.
    assert round(part.trained / 1e6, 2) == 3.19
    assert part.total - part.weights == 4 * 4 * part.trained
    assert part.weights == pytest.approx(4 * (859.52e6 + 3.19e6), rel=1e-4)
    assert "3.19 M of them trained" in found.text()
