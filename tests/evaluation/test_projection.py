"""The common plane: what is known of two dimensions, and numpy's own decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gen2real.evaluation.projection import common_plane, sample_rows


def test_points_are_the_principal_components_of_all_rows_at_unit_length(rng: np.random.Generator) -> None:
    sets = {name: rng.normal(size=(count, 6)) for name, count in (("generated", 20), ("real", 15))}
    found = common_plane({name: torch.from_numpy(value).float() for name, value in sets.items()})
    unit = np.concatenate([value / np.linalg.norm(value, axis=1, keepdims=True) for value in sets.values()])
    _, singular, axes = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    expected = (unit - unit.mean(axis=0)) @ axes[:2].T
    points = torch.cat([found.points["generated"], found.points["real"]]).numpy()
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose(found.explained, (singular**2 / (singular**2).sum())[:2], atol=1e-6)


def test_scale_does_not_matter_and_the_signs_are_fixed(generator: torch.Generator) -> None:
    features = torch.randn(12, 5, generator=generator)
    once = common_plane({"one": features}).points["one"]
    torch.testing.assert_close(common_plane({"one": 3 * features}).points["one"], once)
    mirrored = common_plane({"one": -features}).points["one"]
    torch.testing.assert_close(mirrored, -once, atol=1e-5, rtol=0)


def test_rows_that_do_not_vary_lie_on_one_point() -> None:
    found = common_plane({"one": torch.ones(4, 3)})
    assert torch.equal(found.points["one"], torch.zeros(4, 2))
    assert found.explained == (0.0, 0.0)
    with pytest.raises(ValueError, match="at least one row"):
        common_plane({"one": torch.ones(0, 3)})


def test_rows_are_sampled_in_order() -> None:
    assert sample_rows(5, 10).tolist() == [0, 1, 2, 3, 4]
    some = sample_rows(1000, 50).tolist()
    assert some == sorted(set(some))
    assert len(some) == 50
    assert some == sample_rows(1000, 50).tolist() != sample_rows(1000, 50, seed=1).tolist()
