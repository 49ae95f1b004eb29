import math

import pytest
import torch

from gen2real.losses import image_text_contrastive


def test_two_orthogonal_pairs_by_hand():
    # S = [[s, 0], [0, s]]: each row's cross-entropy is log(1 + e^{-s})
    eye = torch.eye(2, dtype=torch.float64)
    loss = image_text_contrastive(3 * eye, 7 * eye, 2.0)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2.0)), abs=1e-12)


def test_both_directions_count():
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    # S = s·[[1, 1], [0, 0]]. Rows: log 2 each. Columns: target row 0 gives log(1+e^-s), target row 1 gives log(1+e^s)
    s = 1.5
    expected = (math.log(2) + (math.log1p(math.exp(-s)) + math.log1p(math.exp(s))) / 2) / 2
    assert image_text_contrastive(image, text, s).item() == pytest.approx(expected, abs=1e-12)


def test_groups_make_equal_ids_positive():
    eye = torch.eye(3, dtype=torch.float64)
    text = eye[[0, 0, 2]]
    image = eye[[0, 0, 2]]
    groups = torch.tensor([5, 5, 9])
    s = 4.0
    # rows 0 and 1: two of three logits are s, share 1/2 each: log(2e^s + 1) − s; row 2: log(e^s + 2) − s
    expected = (2 * (math.log(2 * math.exp(s) + 1) - s) + math.log(math.exp(s) + 2) - s) / 3
    assert image_text_contrastive(image, text, s, groups=groups).item() == pytest.approx(expected, abs=1e-12)
    literal = image_text_contrastive(image, text, s).item()
    assert literal == pytest.approx(
        expected, abs=1e-12
    )  # same-class texts are equal here, so only the gradient differs


def test_distinct_groups_equal_no_groups():
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(6, 4, generator=generator), torch.randn(6, 4, generator=generator)
    torch.testing.assert_close(
        image_text_contrastive(image, text, 10.0, groups=torch.arange(6)), image_text_contrastive(image, text, 10.0)
    )


def test_scale_receives_a_gradient():
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    text = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: image_text_contrastive(image, text, s), scale)
