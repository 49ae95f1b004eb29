import math

import pytest
import torch

from gen2real.losses import next_token
from gen2real.losses.next_token import IGNORED


def test_by_hand():
    # softmax([ln 3, 0]) = [3/4, 1/4]: tokens 0, 1 cost log(4/3) and log 4; the fill costs nothing
    logits = torch.tensor([[[math.log(3), 0.0]] * 3] * 2, dtype=torch.float64)
    tokens = torch.tensor([[0, 1, IGNORED], [1, IGNORED, IGNORED]])
    sums, counts = next_token(logits, tokens)
    assert sums.tolist() == pytest.approx([math.log(4 / 3) + math.log(4), math.log(4)])
    assert counts.tolist() == [2.0, 1.0]
    assert sums.dtype == counts.dtype == torch.float64


def test_nothing_is_learnt_from_the_fill():
    logits = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    next_token(logits, torch.tensor([[2, IGNORED, IGNORED]]))[0].sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].abs().min() > 0
    assert not logits.grad[0, 1:].any()


def test_it_computes_in_float32_under_autocast():
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    tokens = torch.tensor([[0, 1, 2, 3], [5, 4, 3, 2]])
    with torch.autocast("cpu", torch.bfloat16):
        sums, _ = next_token(logits, tokens)
    assert sums.dtype == torch.float32
    assert torch.equal(sums, next_token(logits.float(), tokens)[0])
