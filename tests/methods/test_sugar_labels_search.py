"""The kit's benchmark of what Sugar's labels find by themselves."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from sugar_world import make_world, sugar_config

from gen2real.imagesets import ImageSet
from gen2real.imagesets.interleaved import Interleaved, Turn, slices
from gen2real.methods.sugar.labels import Teachers, prefix_targets


def test_labels_search_by_themselves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two pictures to find, by a text, by a picture and a text, and by the first of them."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks" / "kit"))
    module = importlib.import_module("sugar_labels")
    root = make_world(tmp_path)
    config = sugar_config(root, tmp_path / "run")
    red, green, *_ = ImageSet.read(root / "learnt").paths
    labels = module.Labels(config, None)
    assert torch.equal(labels.embed([[red], [green]], batch_size=2), torch.eye(2))
    asked = [["a red square"], [green, " the same, but red"], [red]]
    found = labels.embed(asked, batch_size=2)
    contents = [slices(Interleaved("", (Turn(tuple(own)),))) for own in (*asked, [red], [green])]
    features = Teachers(config.teachers).features([one for own in contents for one in own])
    expected = prefix_targets(features, [features.prefix(own) for own in contents], range(5), config.kernel)
    torch.testing.assert_close(found, expected[:3, 3:])
    assert found[2, 0] == pytest.approx(1)
