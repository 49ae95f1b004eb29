import math

import pytest
import torch

from gen2real.losses import soft_target_cross_entropy


def test_by_hand():
    # teacher softmax([2 ln 3, 0] / 2) = [3/4, 1/4]; student uniform: L = log 2
    teacher = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
    assert soft_target_cross_entropy(torch.zeros(1, 2, dtype=torch.float64), teacher).item() == pytest.approx(
        math.log(2)
    )
    # student [2 ln 3, 0] as well: the entropy of (3/4, 1/4)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert soft_target_cross_entropy(teacher, teacher).item() == pytest.approx(entropy)


def test_teacher_gets_no_gradient_and_agreement_is_stationary():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    teacher = logits.detach().clone().requires_grad_()
    soft_target_cross_entropy(logits, teacher).backward()
    assert teacher.grad is None
    torch.testing.assert_close(logits.grad, torch.zeros(4, 3), atol=1e-7, rtol=0)


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="above 0"):
        soft_target_cross_entropy(torch.zeros(1, 2), torch.zeros(1, 2), temperature=0.0)
