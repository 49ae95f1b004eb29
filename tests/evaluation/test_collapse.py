"""The panel of collapse: exact values by hand, and the right way under collapses that are made."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation import collapse_panel, effective_rank, text_drift
from gen2real.evaluation.collapse import mean_cosine, uniformity


@pytest.fixture
def features(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures and texts of 16 dimensions, 50 of each, in cones that lie apart."""
    image, text = torch.randn(50, 16, generator=generator), torch.randn(50, 16, generator=generator)
    return image + torch.eye(16)[0], text + torch.eye(16)[1]


def test_exact_values_by_hand() -> None:
    # Pictures on four half axes, of any length; texts on two.
    image = torch.tensor([[3.0, 0], [0, 1], [-2, 0], [0, -1]])
    text = torch.tensor([[1.0, 0], [0, 5.0]])
    found = collapse_panel(image, text)
    # Squared distances: four of 2, two of 4. exp(−2·2) and exp(−2·4).
    assert found.image_uniformity == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6))
    assert found.text_uniformity == pytest.approx(-4)
    assert found.caption_cosine == pytest.approx(0)
    # Centroids: the origin, and (½, ½).
    assert found.modality_gap == pytest.approx(math.sqrt(0.5))
    assert found.image_rank == pytest.approx(2)
    assert found.text_rank == pytest.approx(1)
    assert (found.pictures, found.texts) == (4, 2)


def test_as_explicit_loops(features: tuple[Tensor, Tensor]) -> None:
    image, text = (normalize(one.double(), dim=1).numpy() for one in features)
    found = collapse_panel(*features)
    ordered = [(i, j) for i in range(50) for j in range(50) if i != j]
    spread = [math.exp(-2 * float(((image[i] - image[j]) ** 2).sum())) for i, j in ordered]
    assert found.image_uniformity == pytest.approx(math.log(np.mean(spread)))
    assert found.caption_cosine == pytest.approx(np.mean([text[i] @ text[j] for i, j in ordered]))
    assert found.modality_gap == pytest.approx(float(np.linalg.norm(image.mean(0) - text.mean(0))))
    assert found.image_rank == effective_rank(torch.from_numpy(image))


def test_a_collapse_to_a_point_shows_everywhere(features: tuple[Tensor, Tensor]) -> None:
    panels = [collapse_panel(*(one + by * torch.ones(16) for one in features)) for by in (0, 2, 20)]
    for name, rises in (("image_uniformity", 1), ("text_uniformity", 1), ("caption_cosine", 1)):
        values = [getattr(one, name) for one in panels]
        assert sorted(values, reverse=rises < 0) == values, name
    assert panels[-1].image_uniformity == pytest.approx(0, abs=0.05)
    assert panels[-1].caption_cosine == pytest.approx(1, abs=0.01)


def test_a_collapse_to_a_plane_shows_in_the_rank(features: tuple[Tensor, Tensor]) -> None:
    image, text = features
    narrow = torch.ones(16)
    narrow[2:] = 0.05
    before, after = collapse_panel(image, text), collapse_panel(image * narrow, text)
    assert after.image_rank < 3 < 10 < before.image_rank
    assert after.text_rank == before.text_rank


def test_a_widening_gap_shows(features: tuple[Tensor, Tensor]) -> None:
    image, text = features
    gaps = [collapse_panel(image + by * torch.eye(16)[2], text).modality_gap for by in (0, 1, 3, 9)]
    assert gaps == sorted(gaps)
    assert gaps[3] > 2 * gaps[0]


def test_equal_captions_are_one_text(features: tuple[Tensor, Tensor]) -> None:
    image, text = features
    # Captions 3, 1, 7, each several times, in any order.
    groups = torch.tensor([3, 1, 3, 7, 1, 7, 7])
    found = collapse_panel(image, text[groups], groups)
    alone = collapse_panel(image, text[[3, 1, 7]])
    assert found == alone
    assert found.texts == 3
    assert collapse_panel(image, text[groups]).caption_cosine > found.caption_cosine


def test_features_of_one_point_have_the_ends_of_every_scale() -> None:
    one = torch.ones(6, 4)
    assert uniformity(one) == pytest.approx(0, abs=1e-12)
    assert mean_cosine(one) == pytest.approx(1)
    assert collapse_panel(one, one).image_rank == 0


def test_drift_by_hand(generator: torch.Generator) -> None:
    then = torch.tensor([[[1.0, 0], [0, 2.0]]])
    assert text_drift(then, then).to_json() == {"direction": 0, "norm": 1}
    # The first turned by a right angle, and of twice its length; the second as it was.
    now = torch.tensor([[[0, 2.0], [0, 2.0]]])
    assert text_drift(now, then).to_json() == {"direction": pytest.approx(0.5), "norm": pytest.approx(1.5)}
    first = torch.tensor([[True, False]])
    assert text_drift(now, then, first).to_json() == {"direction": pytest.approx(1), "norm": pytest.approx(2)}
    # Longer alone is no turn; noise is one, and more of it is more.
    states = torch.randn(3, 5, 8, generator=generator)
    assert text_drift(3 * states, states).direction == pytest.approx(0, abs=1e-9)
    noise = torch.randn(3, 5, 8, generator=generator)
    turned = [text_drift(states + by * noise, states).direction for by in (0, 0.1, 1)]
    assert turned == sorted(turned)
    assert turned[1] < 0.1 < turned[2]


def test_what_cannot_be_measured_is_told(features: tuple[Tensor, Tensor]) -> None:
    image, text = features
    with pytest.raises(ImageSetError, match="at least 2 different texts"):
        collapse_panel(image, text[:3], torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ImageSetError, match="at least 2 pictures"):
        collapse_panel(image[:1], text)
    with pytest.raises(ModelError, match="1 of 50 rows hold NaN"):
        collapse_panel(image.index_fill(0, torch.tensor([4]), torch.inf), text)
    states = torch.ones(1, 2, 3)
    with pytest.raises(ImageSetError, match="at least one prompt"):
        text_drift(states, states, torch.zeros(1, 2, dtype=torch.bool))
