"""The text-initialised classifier, with hand-worked values and with tiny real checkpoints."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tiny
from gen2real.errors import ModelError
from gen2real.imagesets.transforms import Preprocess
from gen2real.models.classifier import TextInitialisedClassifier, text_head
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder
from gen2real.models.weights import interpolate

CLASSES = ["F-16A/B", "F/A-18", "<script>", "missile", "missile"]


class Dictionary(DualEncoder):
    """Texts have the embeddings that a table says; every text asked for is remembered."""

    def __init__(self, table: dict[str, list[float]], scale: float) -> None:
        super().__init__(nn.Flatten(), math.log(scale), Preprocess(1, (0.0,) * 3, (1.0,) * 3), 2, "dictionary")
        self.table, self.asked = table, list[str]()

    def _encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.asked += texts
        return torch.tensor([self.table[text] for text in texts])


def test_head_by_hand() -> None:
    encoder = Dictionary({"a": [3.0, 0.0], "b": [0.0, 0.5], "c": [0.6, 0.8]}, scale=10.0)
    weight = text_head(encoder, [["a", "b"], ["c"], ["a", "a", "b"]], batch_size=2)
    # (1, 0) and (0, 1) average to (½, ½): direction (1, 1)/√2. Twice a and once b: (2, 1)/√5.
    expected = [[10 / 2**0.5] * 2, [6.0, 8.0], [20 / 5**0.5, 10 / 5**0.5]]
    torch.testing.assert_close(weight, torch.tensor(expected))
    assert encoder.asked == ["a", "b", "c"]
    assert not weight.requires_grad


def test_head_refuses_a_class_without_prompts() -> None:
    with pytest.raises(ModelError, match=r"position\(s\) \[1\]"):
        text_head(Dictionary({"a": [1.0, 0.0]}, scale=1.0), [["a"], []])


def test_head_keeps_the_encoders_mode() -> None:
    encoder = Dictionary({"a": [1.0, 0.0]}, scale=1.0).train()
    text_head(encoder, [["a"]])
    assert encoder.training


@pytest.mark.parametrize("make", [tiny.tiny_clip, tiny.tiny_siglip, tiny.tiny_siglip2])
def test_step_zero_is_zero_shot_classification(make: object, tmp_path: Path) -> None:
    encoder = load_dual_encoder(make(tmp_path / "tiny"))  # type: ignore[operator]
    prompts = [[f"a {name}.", f"the {name}."] for name in CLASSES]
    weight = text_head(encoder, prompts)
    classifier = TextInitialisedClassifier(encoder.vision, weight).eval()
    pixels = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32).sin()
    with torch.no_grad():
        logits, features = classifier(pixels)
        image = encoder.encode_image(pixels)
        text = torch.stack(
            [encoder.encode_text(p).div(encoder.encode_text(p).norm(dim=1, keepdim=True)).mean(0) for p in prompts]
        )
        cosine = (image / image.norm(dim=1, keepdim=True)) @ (text / text.norm(dim=1, keepdim=True)).T
    assert torch.equal(features, image)
    torch.testing.assert_close(logits, encoder.logit_scale.exp() * cosine, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weight.norm(dim=1), encoder.logit_scale.exp().detach().expand(5))
    assert torch.equal(weight[3], weight[4])
    assert torch.equal(classifier.head.bias, torch.zeros(5))


def test_logits_by_hand() -> None:
    classifier = TextInitialisedClassifier(
        nn.Flatten(),
        torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]),
        torch.tensor([0.0, 1.0]),
        feature_mean=torch.tensor([1.0, 1.0, 0.0]),
    )
    # (4, 5, 0) − (1, 1, 0) = (3, 4, 0), normalised (0.6, 0.8, 0)
    logits, features = classifier(torch.tensor([[4.0, 5.0, 0.0], [1.0, 1.0, 0.0]]).reshape(2, 3, 1, 1))
    torch.testing.assert_close(logits, torch.tensor([[1.2, 2.6], [0.0, 1.0]]))
    assert features.tolist() == [[4.0, 5.0, 0.0], [1.0, 1.0, 0.0]]


def test_a_zero_vector_gives_finite_gradients() -> None:
    classifier = TextInitialisedClassifier(nn.Flatten(), torch.eye(3))
    pixels = torch.zeros(1, 3, 1, 1, requires_grad=True)
    logits, _ = classifier(pixels)
    logits.sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.isfinite().all()


def test_stored_embeddings() -> None:
    classifier = TextInitialisedClassifier(nn.Identity(), torch.eye(2))
    features = torch.tensor([[3.0, 4.0]])
    logits, same = classifier(features)
    torch.testing.assert_close(logits, torch.tensor([[0.6, 0.8]]))
    assert torch.equal(same, features)


def test_half_precision_features_are_normalised_in_float32() -> None:
    classifier = TextInitialisedClassifier(nn.Identity(), torch.eye(2))
    small = torch.tensor([[6e-5, 8e-5]], dtype=torch.float16)
    torch.testing.assert_close(classifier.classify_features(small), torch.tensor([[0.6, 0.8]]), rtol=1e-2, atol=1e-2)


def test_everything_is_in_the_state_and_blends(tmp_path: Path) -> None:
    encoder = load_dual_encoder(tiny.tiny_clip(tmp_path / "clip"))
    zero_shot = TextInitialisedClassifier(encoder.vision, text_head(encoder, [["cat"], ["dog"]])).eval()
    tuned = copy.deepcopy(zero_shot)
    with torch.no_grad():
        for tensor in tuned.state_dict().values():
            tensor.add_(0.01)
    assert {"head.weight", "head.bias", "feature_mean"} <= set(tuned.state_dict())
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    blended = copy.deepcopy(zero_shot)
    for alpha, endpoint in ((0.0, zero_shot), (1.0, tuned)):
        blended.load_state_dict(interpolate(zero_shot.state_dict(), tuned.state_dict(), alpha))
        with torch.no_grad():
            assert torch.equal(blended(pixels)[0], endpoint(pixels)[0])


def test_every_parameter_learns(tmp_path: Path) -> None:
    encoder = load_dual_encoder(tiny.tiny_siglip2(tmp_path / "siglip2"))
    classifier = TextInitialisedClassifier(encoder.vision, text_head(encoder, [["cat"], ["dog"]]))
    logits, _ = classifier(torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32).sin())
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert [name for name, parameter in classifier.named_parameters() if parameter.grad is None] == []
