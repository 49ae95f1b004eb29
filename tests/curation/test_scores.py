from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize
from tiny_safety import tiny_safety
from transformers import ViTForImageClassification, ViTImageProcessorPil

from gen2real.curation.scores import SafetyModel, real_likeness, text_scores
from gen2real.errors import ImageSetError, ModelError
from gen2real.imagesets import ClassName, ImageSet
from gen2real.models import DualEncoder, load_dual_encoder

CLASSES = [ClassName("cat", "cat"), ClassName("dog", "dog"), ClassName("dog-2", "dog"), ClassName("eel", "eel")]
PROMPTS = [["a cat", "one cat"], ["a dog"], ["a dog"], ["an eel", "eels"]]


def rows(*given: dict[str, object]) -> list[dict[str, object]]:
    return [{"id": str(number), "path": f"{number}.png", **row} for number, row in enumerate(given)]


@pytest.fixture(scope="module")
def encoder(clip: Path) -> DualEncoder:
    return load_dual_encoder(clip)


@pytest.fixture(scope="module")
def unit(encoder: DualEncoder):
    """Text(s) → one normalised embedding, the mean of several, in float64."""

    @torch.no_grad()
    def embed(*texts: str) -> np.ndarray:
        found = encoder.encode_text(list(texts)).double().numpy()
        mean = (found / np.linalg.norm(found, axis=1, keepdims=True)).mean(axis=0)
        return mean / np.linalg.norm(mean)

    return embed


def test_similarity_is_to_the_prompt_else_the_class_else_the_captions(tmp_path, encoder, unit, rng) -> None:
    given = rows(
        {"label": "cat", "prompt": "a cat in the rain", "captions": ["never read"]},
        {"label": "eel", "prompt": "  ", "captions": ["never read"]},
        {"captions": ["a boat", "boats at sea", ""]},
        {},
    )
    image_set = ImageSet.write(tmp_path, given, CLASSES)
    features = rng.normal(size=(4, 20))
    pictures = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = text_scores(torch.from_numpy(features), image_set, encoder, PROMPTS)
    texts = [unit("a cat in the rain"), unit("an eel", "eels"), unit("a boat", "boats at sea")]
    expected = [picture @ text for picture, text in zip(pictures, texts, strict=False)]
    assert found.similarity[:3] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(found.similarity[3])


def test_the_margin_of_a_label_is_its_lead_over_the_best_other_class(tmp_path, encoder, unit, rng) -> None:
    given = rows({"label": "cat", "prompt": "x"}, {"label": "dog"}, {"label": "dog-2"}, {"label": "eel"})
    image_set = ImageSet.write(tmp_path, given, CLASSES)
    features = rng.normal(size=(4, 20))
    pictures = features / np.linalg.norm(features, axis=1, keepdims=True)
    cat, dog, eel = unit("a cat", "one cat"), unit("a dog"), unit("an eel", "eels")
    to_cat, to_dog, to_eel = pictures @ cat, pictures @ dog, pictures @ eel
    # The two dogs share their prompts, so neither is the other's rival.
    expected = [
        to_cat[0] - max(to_dog[0], to_eel[0]),
        to_dog[1] - max(to_cat[1], to_eel[1]),
        to_dog[2] - max(to_cat[2], to_eel[2]),
        to_eel[3] - max(to_cat[3], to_dog[3]),
    ]
    found = text_scores(torch.from_numpy(features), image_set, encoder, PROMPTS)
    assert found.margin == pytest.approx(expected, abs=1e-6)
    assert min(expected) < 0 < max(expected)


def test_the_margin_without_a_label_is_to_the_others_captions(tmp_path, encoder, unit, rng) -> None:
    given = rows({"captions": ["a boat"]}, {"captions": ["a tree"]}, {"captions": ["a boat"]}, {"label": "cat"}, {})
    image_set = ImageSet.write(tmp_path, given, CLASSES)
    features = rng.normal(size=(5, 20))
    pictures = features / np.linalg.norm(features, axis=1, keepdims=True)
    lead = pictures @ (unit("a boat") - unit("a tree"))
    found = text_scores(torch.from_numpy(features), image_set, encoder, PROMPTS)
    assert found.margin[:3] == pytest.approx([lead[0], -lead[1], lead[2]], abs=1e-6)
    assert np.isfinite(found.margin[3])
    assert np.isnan(found.margin[4])


def test_without_another_class_there_is_no_margin(tmp_path, encoder) -> None:
    image_set = ImageSet.write(tmp_path, rows({"label": "cat"}, {"captions": ["alone"]}), CLASSES[:1])
    found = text_scores(torch.ones(2, 20), image_set, encoder, PROMPTS[:1])
    assert np.isnan(found.margin).all()
    assert np.isfinite(found.similarity).all()


def test_real_likeness_is_the_log_odds_of_a_classifier_that_has_not_seen_the_picture(rng) -> None:
    """Two folds, refitted with scipy."""
    features, real = rng.normal(size=(6, 2)), rng.normal(size=(3, 2)) + 1
    ids = [str(number) for number in range(6)]
    scores = real_likeness(torch.from_numpy(features), torch.from_numpy(real), ids, folds=2)

    def refitted(seen: np.ndarray, scored: np.ndarray) -> np.ndarray:
        whole = np.concatenate([real, features[seen]])
        mean, deviation = whole.mean(axis=0), whole.std(axis=0, ddof=1)
        x, y = (whole - mean) / deviation, np.repeat([1.0, 0.0], 3)

        def loss(w: np.ndarray) -> float:
            z = x @ w[:2] + w[2]
            return (np.logaddexp(0, z) - y * z).sum() + 0.5 * (w[:2] ** 2).sum()

        w = minimize(loss, np.zeros(3), tol=1e-12).x
        return (features[scored] - mean) / deviation @ w[:2] + w[2]

    matches = 0
    for bits in range(64):
        seen = np.flatnonzero([bits >> row & 1 for row in range(6)])
        rest = np.setdiff1d(np.arange(6), seen)
        if len(seen) == 3 and np.allclose(refitted(seen, rest), scores[rest], atol=1e-3):
            assert np.allclose(refitted(rest, seen), scores[seen], atol=1e-3)
            matches += 1
    assert matches == 2


def test_real_likeness_knows_the_real_ones_and_not_the_order_of_the_rows(rng) -> None:
    features, real = rng.normal(size=(80, 12)), rng.normal(size=(60, 12))
    features[20:] += 2.0
    ids = [f"picture {number}" for number in range(80)]
    scores = real_likeness(torch.from_numpy(features), torch.from_numpy(real), ids)
    assert scores[:20].min() > np.quantile(scores[20:], 0.9)
    order = rng.permutation(80)
    again = real_likeness(torch.from_numpy(features[order]), torch.from_numpy(real), [ids[row] for row in order])
    np.testing.assert_allclose(again, scores[order], atol=1e-9)


def test_real_likeness_needs_pictures_and_one_encoder() -> None:
    with pytest.raises(ImageSetError, match="got 1 generated, 3 real"):
        real_likeness(torch.ones(1, 2), torch.ones(3, 2), ["a"])
    with pytest.raises(ModelError, match="2 and 3 wide"):
        real_likeness(torch.ones(2, 2), torch.ones(3, 3), ["a", "b"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(5)]
    for path in paths:
        Image.new("RGB", (20, 24), tuple(random.integers(0, 256, 3).tolist())).save(path)
    return paths


WORDS = ("porn", "hentai", "sexy")


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_unsafe_is_the_probability_of_the_unsafe_labels(tmp_path, pictures, problem) -> None:
    folder = tiny_safety(tmp_path / "safety", problem=problem)
    model, processor = ViTForImageClassification.from_pretrained(folder), ViTImageProcessorPil.from_pretrained(folder)
    with torch.no_grad():
        logits = model(**processor([Image.open(path) for path in pictures], return_tensors="pt")).logits.double()
    safety = SafetyModel(str(folder), (), WORDS)
    assert safety.unsafe_labels == ["Hentai", "PORN", "Sexy"]
    if problem == "single_label_classification":
        expected = logits.softmax(dim=1)[:, [1, 3, 4]].sum(dim=1)
    else:
        expected = logits.sigmoid()[:, [1, 3, 4]].amax(dim=1)
    assert safety.probabilities(pictures, batch_size=2) == pytest.approx(expected.numpy(), abs=1e-6)
    assert expected.std() > 0.003


def test_unsafe_labels_of_ones_own(tmp_path, pictures) -> None:
    folder = tiny_safety(tmp_path / "safety")
    assert SafetyModel(str(folder), ("neutral",), WORDS).unsafe_labels == ["Neutral"]
    with pytest.raises(ModelError, match=r"no label \['nude'\].*'Drawings', 'Hentai', 'Neutral', 'PORN', 'Sexy'"):
        SafetyModel(str(folder), ("nude", "sexy"), WORDS)


def test_a_model_without_unsafe_labels_lists_what_it_has(tmp_path) -> None:
    folder = tiny_safety(tmp_path / "pets", ("cat", "dog"))
    with pytest.raises(ModelError, match=r"words porn, hentai, sexy\. Its labels are: 'cat', 'dog'"):
        SafetyModel(str(folder), (), WORDS)
    with pytest.raises(ModelError, match=r"nowhere could not be loaded"):
        SafetyModel(str(tmp_path / "nowhere"), (), WORDS)
