"""Model folders: bit-identical round trips, stock transformers, safe cards."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoModel

import tiny
from gen2real.errors import ModelError
from gen2real.models.card import plain_text
from gen2real.models.classifier import TextInitialisedClassifier, text_head
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder
from gen2real.models.folder import is_model_folder, load_classifier, save_classifier

CLASSES = ["F-16A/B", "F/A-18", "<script>alert(1)</script>", "missile", "missile", "a | b `c`\n---", "海豚"]
MADE_BY = {
    "config": {"method": "regft", "lr": 1e-5},
    "seed": 3,
    "versions": {"torch": "2.13.0"},
    "note": "<b>``` --- é",
}
PIXELS = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32).sin()


def tuned(folder: Path) -> tuple[DualEncoder, TextInitialisedClassifier]:
    encoder = load_dual_encoder(folder)
    classifier = TextInitialisedClassifier(encoder.vision, text_head(encoder, [[f"a {name}."] for name in CLASSES]))
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        classifier.feature_mean.normal_()
    return encoder, classifier.eval()


@pytest.fixture(scope="module", params=[tiny.tiny_clip, tiny.tiny_siglip, tiny.tiny_siglip2], ids=lambda m: m.__name__)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[Path], Path] = request.param
    return make(tmp_path_factory.mktemp("models") / "tiny")


def test_round_trip_is_bit_identical(original: Path, tmp_path: Path) -> None:
    encoder, classifier = tuned(original)
    save_classifier(tmp_path / "model", encoder, classifier, CLASSES, made_by=MADE_BY)
    assert is_model_folder(tmp_path / "model")
    loaded = load_classifier(tmp_path / "model")
    assert loaded.class_names == CLASSES
    assert loaded.made_by == MADE_BY
    assert loaded.encoder.vision is loaded.classifier.vision
    assert list(loaded.classifier.state_dict()) == list(classifier.state_dict())
    with torch.no_grad():
        for found, expected in zip(loaded.classifier(PIXELS), classifier(PIXELS), strict=True):
            assert torch.equal(found, expected)
        assert torch.equal(loaded.encoder.encode_text(CLASSES), encoder.encode_text(CLASSES))
    assert not list((tmp_path).glob(".*"))


def test_stock_transformers_loads_the_tuned_tower(original: Path, tmp_path: Path) -> None:
    encoder, classifier = tuned(original)
    before = AutoModel.from_pretrained(original).state_dict()
    save_classifier(tmp_path / "model", encoder, classifier, CLASSES, made_by={})
    stock, report = AutoModel.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tower = classifier.vision.state_dict()
    for name, tensor in stock.state_dict().items():
        assert torch.equal(tensor, tower[name] if name in tower else before[name])
    assert load_dual_encoder(tmp_path / "model").fingerprint() != load_dual_encoder(original).fingerprint()


def test_the_cards_code_runs(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, classifier = tuned(original)
    save_classifier(tmp_path / "model", encoder, classifier, [f"class {i}" for i in range(7)], made_by={})
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        code = block.replace("this folder", str(tmp_path / "model")).replace("photo.jpg", str(tmp_path / "photo.png"))
        exec(compile(code, "card", "exec"), {})
    first, second = capsys.readouterr().out.split("\n")[:2]
    assert first == second
    assert first.startswith("class ")


def test_the_card_is_safe(tmp_path: Path) -> None:
    encoder, classifier = tuned(tiny.tiny_clip(tmp_path / "clip"))
    save_classifier(tmp_path / "model", encoder, classifier, CLASSES, made_by=MADE_BY)
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "transformers"
    written = [*(tmp_path / "model").glob("*.json"), tmp_path / "model" / "README.md"]
    assert [path.name for path in written if str(tmp_path) in path.read_text(encoding="utf-8")] == []
    shown = body.partition("## Made by")[0]
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert len(re.findall(r"^\| \d+ \| .* \|$", shown, flags=re.MULTILINE)) == len(CLASSES)
    assert plain_text("a | b\n*c*") == "a &#124; b &#42;c&#42;"


def test_the_card_tells_of_preprocessing_that_transformers_cannot_do(tmp_path: Path) -> None:
    encoder, classifier = tuned(tiny.tiny_clip(tmp_path / "clip"))
    for fit, told in (("crop", False), ("pad", True)):
        encoder.preprocess = replace(encoder.preprocess, fit=fit)
        save_classifier(tmp_path / fit, encoder, classifier, CLASSES, made_by={})
        assert ("results differ" in (tmp_path / fit / "README.md").read_text(encoding="utf-8")) == told
        assert load_classifier(tmp_path / fit).encoder.preprocess == encoder.preprocess


def test_own_card_and_odd_names_in_json(tmp_path: Path) -> None:
    encoder, classifier = tuned(tiny.tiny_clip(tmp_path / "clip"))
    save_classifier(tmp_path / "model", encoder, classifier, CLASSES, made_by=MADE_BY, card="# mine\n")
    assert (tmp_path / "model" / "README.md").read_text() == "# mine\n"
    assert json.loads((tmp_path / "model" / "classes.json").read_text(encoding="utf-8")) == CLASSES


def test_an_older_model_is_replaced_and_other_things_are_not(tmp_path: Path) -> None:
    encoder, classifier = tuned(tiny.tiny_clip(tmp_path / "clip"))
    for _ in range(2):
        save_classifier(tmp_path / "model", encoder, classifier, CLASSES, made_by={})
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    with pytest.raises(ModelError, match="not replaced"):
        save_classifier(tmp_path / "photos", encoder, classifier, CLASSES, made_by={})
    with pytest.raises(ModelError, match="7 classes; class_names has 2"):
        save_classifier(tmp_path / "new", encoder, classifier, ["a", "b"], made_by={})
    assert not (tmp_path / "new").exists()


class TestLoadingRefuses:
    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        encoder, classifier = tuned(tiny.tiny_clip(tmp_path / "clip"))
        save_classifier(tmp_path / "model", encoder, classifier, CLASSES, made_by={})
        return tmp_path / "model"

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="there is no folder"):
            load_classifier(tmp_path / "none")

    def test_an_encoder_alone(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="load_dual_encoder"):
            load_classifier(tiny.tiny_clip(tmp_path / "clip"))

    def test_a_pickled_head(self, model: Path) -> None:
        (model / "head.safetensors").write_bytes(pickle.dumps({"weight": 1}))
        with pytest.raises(ModelError, match="is a pickle"):
            load_classifier(model)

    def test_a_torn_head(self, model: Path) -> None:
        whole = (model / "head.safetensors").read_bytes()
        (model / "head.safetensors").write_bytes(whole[:-10])
        with pytest.raises(ModelError, match="not a whole safetensors file"):
            load_classifier(model)

    def test_classes_that_do_not_fit(self, model: Path) -> None:
        (model / "classes.json").write_text('["a"]')
        with pytest.raises(ModelError, match=r"classes\.json and the encoder need"):
            load_classifier(model)

    def test_a_newer_format(self, model: Path) -> None:
        (model / "gen2real.json").write_text('{"version": 2, "made_by": {}}')
        with pytest.raises(ModelError, match="format version 2"):
            load_classifier(model)
