"""Adapters give exactly what stock transformers gives, from folders that stock transformers loads."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer

import tiny
from gen2real.errors import ModelError
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder
from gen2real.models.transformers_encoders import patchify

TEXTS = ["a photo of a cat.", "F-16A/B", "<script>", "", "a very long text " * 20]
MAKERS = [tiny.tiny_clip, tiny.tiny_siglip, tiny.tiny_siglip2]


@pytest.fixture(scope="module", params=MAKERS, ids=lambda maker: maker.__name__)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[Path], Path] = request.param
    return make(tmp_path_factory.mktemp("models") / "tiny")


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR)


def test_image_embeddings_equal_stock_transformers(folder: Path) -> None:
    encoder, stock = load_dual_encoder(folder), AutoModel.from_pretrained(folder)
    inputs = AutoImageProcessor.from_pretrained(folder)(images=[picture(32, 32)] * 2, return_tensors="pt")
    pixels = encoder.preprocess.normalize(torch.stack([encoder.preprocess.geometry(picture(32, 32))] * 2))
    if "spatial_shapes" in inputs:
        ours_patches, rows, columns = patchify(pixels, 8)
        assert (rows, columns) == tuple(inputs["spatial_shapes"][0].tolist())
        assert torch.allclose(ours_patches, inputs["pixel_values"], atol=1e-6)
        inputs["pixel_values"] = ours_patches
    else:
        inputs["pixel_values"] = pixels
    with torch.no_grad():
        expected = stock.get_image_features(**inputs).pooler_output
        found = encoder.encode_image(pixels)
    assert torch.equal(found, expected)
    assert found.shape == (2, encoder.embedding_dim)


def test_text_embeddings_equal_stock_transformers(folder: Path) -> None:
    encoder, stock, tokenizer = (
        load_dual_encoder(folder),
        AutoModel.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    length = stock.config.text_config.max_position_embeddings
    if stock.config.model_type == "clip":
        tokens = tokenizer(TEXTS, padding=True, truncation=True, max_length=length, return_tensors="pt")
    else:
        tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        tokens = {"input_ids": tokens["input_ids"]}
    with torch.no_grad():
        expected = stock.get_text_features(**tokens).pooler_output
        found = encoder.encode_text(TEXTS)
        one_by_one = encoder.encode_text(TEXTS, batch_size=1)
    assert torch.equal(found, expected)
    assert torch.allclose(one_by_one, expected, atol=1e-4)


def test_preprocessing_is_within_one_level_of_the_hubs(folder: Path) -> None:
    encoder = load_dual_encoder(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    naflex = "max_num_patches" in processor.to_dict()
    for size in [(64, 64)] if naflex else [(64, 64), (90, 48), (40, 100)]:
        theirs = processor(images=picture(*size), return_tensors="pt")["pixel_values"]
        ours = encoder.preprocess.normalize(encoder.preprocess.geometry(picture(*size))[None])
        if naflex:
            ours = patchify(ours, 8)[0]
        level = 1 / 255 / min(encoder.preprocess.std)
        assert (ours - theirs).abs().max() <= level * 1.01


def test_text_is_lower_cased(folder: Path) -> None:
    encoder = load_dual_encoder(folder)
    with torch.no_grad():
        assert torch.equal(encoder.encode_text(["A CAT"]), encoder.encode_text(["a cat"]))


def test_no_text_and_a_bare_string(folder: Path) -> None:
    encoder = load_dual_encoder(folder)
    assert encoder.encode_text([]).shape == (0, encoder.embedding_dim)
    with pytest.raises(ModelError, match="list of strings"):
        encoder.encode_text("a cat")


def test_loads_as_float32_in_evaluation_mode(folder: Path, tmp_path: Path) -> None:
    AutoModel.from_pretrained(folder, dtype=torch.float16).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    encoder = load_dual_encoder(tmp_path)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert encoder.logit_scale.shape == ()
    assert not encoder.training


def test_saved_folder_is_the_hubs_own(folder: Path, tmp_path: Path) -> None:
    encoder = load_dual_encoder(folder)
    with torch.no_grad():
        for parameter in encoder.vision.parameters():
            parameter.add_(0.01)
    encoder.save(tmp_path / "saved")
    stock, report = AutoModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    original = AutoModel.from_pretrained(folder).state_dict()
    for name, tensor in stock.state_dict().items():
        assert torch.equal(tensor, {**original, **encoder.vision.state_dict()}[name]), name
    AutoProcessor.from_pretrained(tmp_path / "saved")
    again = load_dual_encoder(tmp_path / "saved")
    assert again.preprocess == encoder.preprocess
    assert again.fingerprint() == encoder.fingerprint()
    with torch.no_grad():
        assert torch.equal(again.encode_text(TEXTS), encoder.encode_text(TEXTS))


def test_fingerprint_follows_weights_and_preprocessing(folder: Path) -> None:
    encoder = load_dual_encoder(folder)
    first = encoder.fingerprint()
    assert load_dual_encoder(folder).fingerprint() == first
    encoder.preprocess = replace(encoder.preprocess, fit="pad")
    assert encoder.fingerprint() != first
    changed = load_dual_encoder(folder)
    with torch.no_grad():
        next(changed.text.parameters()).view(-1)[0] += 1  # type: ignore[union-attr]
    assert changed.fingerprint() != first


def test_changed_preprocessing_survives_saving(folder: Path, tmp_path: Path) -> None:
    encoder = load_dual_encoder(folder)
    encoder.preprocess = replace(encoder.preprocess, fit="pad", background=(0, 0, 0))
    encoder.save(tmp_path / "saved")
    assert load_dual_encoder(tmp_path / "saved").preprocess == encoder.preprocess


def test_gradient_checkpointing_changes_no_gradient(folder: Path) -> None:
    encoder = load_dual_encoder(folder).train()
    pixels = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)

    def gradients() -> list[torch.Tensor]:
        encoder.zero_grad()
        encoder.encode_image(pixels).square().sum().backward()
        return [p.grad.clone() for p in encoder.vision.parameters() if p.grad is not None]

    plain = gradients()
    encoder.gradient_checkpointing(True)
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))
    encoder.gradient_checkpointing(False)
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients(), strict=True))


def test_old_end_of_text_id_pools_at_the_largest_id(tmp_path: Path) -> None:
    old, new = tiny.tiny_clip(tmp_path / "old", legacy_eos=True), tiny.tiny_clip(tmp_path / "new")
    with torch.no_grad():
        assert torch.equal(load_dual_encoder(old).encode_text(TEXTS), load_dual_encoder(new).encode_text(TEXTS))


def test_patchify_orders_height_width_channel() -> None:
    pixels = torch.arange(1 * 2 * 2 * 4).reshape(1, 2, 2, 4).float()
    patches, rows, columns = patchify(pixels, 2)
    assert (rows, columns) == (1, 2)
    assert patches.tolist() == [[[0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]]]
    with pytest.raises(ValueError, match="2×4"):
        patchify(pixels, 3)


class TestRefusals:
    def test_pickled_checkpoint(self, tmp_path: Path) -> None:
        folder = tiny.tiny_clip(tmp_path / "clip")
        torch.save(AutoModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="is a pickle"):
            load_dual_encoder(folder)

    def test_unknown_model_type(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(ModelError, match="'bert'; gen2real knows clip, siglip, siglip2"):
            load_dual_encoder(tmp_path)

    def test_missing_folder(self) -> None:
        with pytest.raises(ModelError, match=r"there is no folder \./no/such/model.*hub name such as"):
            load_dual_encoder("./no/such/model")

    def test_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"no config.json and no towers.json"):
            load_dual_encoder(tmp_path)

    def test_unreachable_hub_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("transformers.AutoConfig.from_pretrained", _unreachable)
        with pytest.raises(ModelError, match="check the spelling"):
            load_dual_encoder("nobody/nothing")

    def test_checkpoint_that_lacks_a_tensor(self, tmp_path: Path) -> None:
        from gen2real.files import read_tensors, write_tensors

        folder = tiny.tiny_clip(tmp_path / "clip")
        state = read_tensors(folder / "model.safetensors")
        del state["visual_projection.weight"]
        write_tensors(folder / "model.safetensors", state, {"format": "pt"})
        with pytest.raises(ModelError, match=r"visual_projection\.weight"):
            load_dual_encoder(folder)

    def test_saving_over_something_else(self, tmp_path: Path) -> None:
        encoder = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip"))
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "thesis.tex").write_text("…")
        with pytest.raises(ModelError, match="not replaced"):
            encoder.save(tmp_path / "precious")
        assert (tmp_path / "precious" / "thesis.tex").exists()

    def test_a_tower_of_another_shape(self, tmp_path: Path) -> None:
        encoder = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip"))
        with pytest.raises(ModelError, match="differ in name or shape"):
            encoder.save(tmp_path / "saved", vision=nn.Linear(2, 2))

    def test_revision_of_a_folder_warns(self, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="is ignored"):
            load_dual_encoder(tiny.tiny_clip(tmp_path / "clip"), revision="main")


def test_size_comes_from_the_checkpoint(tmp_path: Path) -> None:
    encoder: DualEncoder = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip", image_size=40))
    assert encoder.preprocess.size == 40
    settings = json.loads((tmp_path / "clip" / "preprocessor_config.json").read_text())
    assert tuple(settings["image_mean"]) == encoder.preprocess.mean
    assert encoder.encode_image(torch.zeros(1, 3, 40, 40)).shape == (1, 20)
    assert encoder.encode_image(torch.zeros(1, 3, 48, 48)).shape == (1, 20)


def _unreachable(*_: object, **__: object) -> None:
    raise OSError("We couldn't connect to the hub")


def test_a_copy_computes_the_same_bits(folder: Path) -> None:
    encoder = load_dual_encoder(folder)
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32).sin()
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(encoder).encode_image(pixels), encoder.encode_image(pixels))
