"""Image encoders under a hub name; the hub is a folder here, as no test has a connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPImageProcessorPil, ViTConfig, ViTModel

from gen2real.errors import ModelError
from gen2real.models import image_encoder, load_dual_encoder
from gen2real.models.image_encoder import load_image_encoder
from tiny import tiny_clip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose folders are found under the hub names "some/…"."""

    def found(name: str) -> str:
        return str(tmp_path / name.removeprefix("some/"))

    explained, whole_model = image_encoder.explained, image_encoder.whole_model

    def explained_there(name: str, load: Any, **options: Any) -> Any:
        return explained(found(name), load, **options)

    def whole_model_there(name: str, kind: Any, **options: Any) -> Any:
        return whole_model(found(name), kind, **options)

    monkeypatch.setattr(image_encoder, "explained", explained_there)
    monkeypatch.setattr(image_encoder, "whole_model", whole_model_there)
    monkeypatch.setattr(image_encoder, "load_dual_encoder", lambda name: load_dual_encoder(found(name)))
    return tmp_path


@torch.no_grad()
def test_a_hub_name_may_be_an_image_models_or_a_dual_encoders(hub: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = ViTModel(ViTConfig(**sizes, image_size=16, patch_size=8)).eval()
    model.save_pretrained(hub / "vit")
    CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_std=[0.2, 0.2, 0.2]
    ).save_pretrained(hub / "vit")
    found = load_image_encoder("some/vit")
    assert found.encoder is None
    assert (found.name, found.preprocess.size, found.preprocess.std) == ("some/vit", 16, (0.2, 0.2, 0.2))
    pixels = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(found.vision(pixels), model(pixel_values=pixels).pooler_output)

    tiny_clip(hub / "clip")
    both = load_image_encoder("some/clip")
    assert both.encoder is not None
    assert both.vision is both.encoder.vision


def test_nothing_there_is_told() -> None:
    with pytest.raises(ModelError, match=r"nowhere/at-all could not be loaded"):
        load_image_encoder("nowhere/at-all")
    with pytest.raises(ModelError, match=r"there is no folder \./nowhere"):
        load_image_encoder("./nowhere")
