"""Reconstruction from principal components: against numpy, and where nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gen2real.losses import from_principal_components


def rows(count: int = 9, dim: int = 6) -> torch.Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_as_the_covariances_eigenvectors_have_it() -> None:
    features = rows()
    x = features.numpy()
    _, vectors = np.linalg.eigh(np.cov(x.T))
    top = vectors[:, -2:]
    expected = x.mean(0) + (x - x.mean(0)) @ top @ top.T
    assert from_principal_components(features, 2).numpy() == pytest.approx(expected, abs=1e-12)


def test_all_components_lose_nothing() -> None:
    for count, dim in ((9, 6), (4, 6)):
        features = rows(count, dim)
        torch.testing.assert_close(from_principal_components(features, 32), features)


def test_small_and_equal_batches_have_finite_gradients() -> None:
    for features in (rows(3, 8), torch.ones(4, 8, dtype=torch.float64), rows(1, 8)):
        features.requires_grad_()
        from_principal_components(features, 2).square().sum().backward()
        assert features.grad is not None
        assert torch.isfinite(features.grad).all()


def test_fewer_than_one_are_refused() -> None:
    with pytest.raises(ValueError, match="components is 0; expected at least 1, such as Long-CLIP's 32"):
        from_principal_components(rows(), 0)
