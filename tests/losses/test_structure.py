"""The structure loss: by hand, in both scales; targets are constants."""

from __future__ import annotations

import inspect

import pytest
import torch

from gen2real.losses import structure


def test_by_hand() -> None:
    similarity = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    target = torch.tensor([[1.0, 0.1], [0.3, 0.0]], dtype=torch.float64)
    # 0.4² + 0.2² + 1² = 1.2
    assert structure(similarity, target).item() == pytest.approx(1.2 / 4, rel=1e-14)
    assert structure(similarity, target, scale="rows").item() == pytest.approx(1.2 / 2, rel=1e-14)


def test_the_mean_does_not_grow_with_the_batch_and_the_rows_do() -> None:
    small, large = torch.full((4, 4), 0.5), torch.full((8, 8), 0.5)
    assert structure(small, 0 * small).item() == structure(large, 0 * large).item() == 0.25
    assert structure(large, 0 * large, scale="rows").item() == 2 * structure(small, 0 * small, scale="rows").item() == 2


def test_only_the_similarity_learns(generator: torch.Generator) -> None:
    similarity = torch.randn(3, 3, generator=generator, requires_grad=True)
    target = torch.randn(3, 3, generator=generator, requires_grad=True)
    structure(similarity, target).backward()
    assert similarity.grad is not None
    assert torch.allclose(similarity.grad, 2 * (similarity - target).detach() / 9)
    assert target.grad is None


def test_no_rows_are_nothing_to_learn_and_still_on_the_graph() -> None:
    none = torch.zeros(0, 0, requires_grad=True)
    loss = structure(none, torch.zeros(0, 0))
    loss.backward()
    assert loss.item() == 0


def test_it_computes_in_float32_under_autocast() -> None:
    similarity = torch.tensor([[1.0, 0.3], [0.3, 1.0]]).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = structure(similarity, torch.zeros(2, 2, dtype=torch.float64))
    assert found.dtype == torch.float32
    assert found.item() == similarity.float().square().mean().item()


def test_what_it_refuses() -> None:
    # As it runs outside the tests, where shapes and words are not checked at the door.
    bare = inspect.unwrap(structure)
    with pytest.raises(ValueError, match="scale is 'sum'; expected"):
        bare(torch.eye(2), torch.eye(2), scale="sum")
    with pytest.raises(ValueError, match=r"similarity has shape \[2, 2\] and target \[1, 2\]"):
        bare(torch.eye(2), torch.ones(1, 2))
