"""Towers of the user's own: made by their function, saved as weights, loaded back bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gen2real.errors import ModelError
from gen2real.models.classifier import TextInitialisedClassifier, text_head
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.folder import load_classifier, save_classifier

PIXELS = torch.linspace(-1, 1, 2 * 3 * 16 * 16).reshape(2, 3, 16, 16).sin()


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def outputs(folder_or_path: str | Path) -> tuple[Tensor, Tensor]:
    encoder = load_dual_encoder(folder_or_path)
    with torch.no_grad():
        return encoder.encode_image(PIXELS), encoder.encode_text(["a cat", "F-16A/B", ""])


def test_round_trip(tmp_path: Path) -> None:
    encoder = load_dual_encoder("my_towers:build")
    assert not encoder.training
    encoder.train()
    encoder.encode_image(PIXELS)  # moves the batch norm's statistics
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1)
    encoder.eval().save(tmp_path / "saved")
    again = load_dual_encoder(tmp_path / "saved")
    assert again.fingerprint() == encoder.fingerprint()
    assert again.preprocess == encoder.preprocess
    for before, after in zip(encoder.state_dict().items(), again.state_dict().items(), strict=True):
        assert before[0] == after[0]
        assert torch.equal(before[1], after[1])
    with torch.no_grad():
        assert torch.equal(outputs(tmp_path / "saved")[0], encoder.encode_image(PIXELS))
        assert torch.equal(outputs(tmp_path / "saved")[1], encoder.encode_text(["a cat", "F-16A/B", ""]))


def test_text_may_be_a_function(tmp_path: Path) -> None:
    encoder = load_dual_encoder("my_towers:build_with_a_function")
    assert encoder.encode_text(["a", "b"]).tolist() == [[1.0] * 6] * 2
    encoder.save(tmp_path / "saved")
    assert outputs(tmp_path / "saved")[1].shape == (3, 6)


def test_classifier_folder(tmp_path: Path) -> None:
    encoder = load_dual_encoder("my_towers:build")
    classifier = TextInitialisedClassifier(encoder.vision, text_head(encoder, [["cat"], ["dog"]])).eval()
    save_classifier(tmp_path / "saved", encoder, classifier, ["cat", "dog"], made_by={})
    loaded = load_classifier(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(loaded.classifier(PIXELS)[0], classifier(PIXELS)[0])
    assert "transformers" not in (tmp_path / "saved" / "README.md").read_text()


def test_saving_needs_the_factory(tmp_path: Path) -> None:
    import my_towers

    with pytest.raises(ModelError, match="factory="):
        my_towers.build().save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("no_such_module:build", "cannot be imported"),
        ("my_towers:no_such_function", "has no function 'no_such_function'"),
        ("my_towers:not_a_factory", "must be a function that says what it returns"),
        ("my_towers:Letters", "must be a function"),
        ("my_towers:build_something_else", "returned Linear"),
    ],
)
def test_refusals(path: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        load_dual_encoder(path)


def test_a_foreign_folder_cannot_have_any_function_called(tmp_path: Path) -> None:
    (tmp_path / "towers.json").write_text(json.dumps({"version": 1, "factory": "os:abort", "preprocess": {}}))
    with pytest.raises(ModelError, match="must be a function"):
        load_dual_encoder(tmp_path)


def test_a_factory_that_changed(tmp_path: Path) -> None:
    load_dual_encoder("my_towers:build").save(tmp_path / "saved")
    description = json.loads((tmp_path / "saved" / "towers.json").read_text())
    description["factory"] = "my_towers:build_with_a_function"
    (tmp_path / "saved" / "towers.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match="do not fit what my_towers:build_with_a_function makes now"):
        load_dual_encoder(tmp_path / "saved")


def test_no_gradient_checkpointing() -> None:
    with pytest.raises(ModelError, match="gradient_checkpointing_enable"):
        load_dual_encoder("my_towers:build").gradient_checkpointing(True)
