"""Dry runs: what they count, and that they leave nothing behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import paired_runs
import pytest
import torch
from paired_runs import Pairs
from small_runs import World, config

from gen2real.config import parse_config
from gen2real.errors import Gen2RealError, RecipeError
from gen2real.methods import classification_rehearsal, rehearsal
from gen2real.methods.classification_data import SealedSet
from gen2real.methods.estimate import estimate
from gen2real.methods.settings import SoupConfig
from tiny_sets import colour_set


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("method", "changes", "encoded"),
    [
        # Generated: 24, of which 4 are held out; real: 16. Alphas: 0, 0.3, 0.5, 0.6 and 1.
        ("regft", {}, 5 * (4 + 16)),
        ("regft", {"tune": "head"}, 20 + 4 + 16),
        ("regft", {"tune": "head", "data__views": 3}, 3 * 20 + 4 + 16),
        ("regft", {"tune": "lora", "data__evaluation": None}, 5 * 4),
        ("regft", {"head_first": {"epochs": 1000}, "data__holdout": 0}, 24 + 5 * (24 + 16)),
        ("flyp", {"centering": "generated"}, 20 + 5 * (4 + 16)),
    ],
)
def test_pictures_and_updates_are_counted(
    world: World, tmp_path: Path, method: str, changes: dict[str, Any], encoded: int
) -> None:
    training = {"epochs": 10, "steps": None, "batch_size": 8}
    settings = config(world, tmp_path / "run", method, **{"training": training, **changes})
    found = estimate(settings)
    held_out = 0 if changes.get("data__holdout") == 0 else 4
    assert (found.pictures, found.held_out) == (24 - held_out, held_out)
    assert found.updates == 10 * 3
    assert found.timed_updates == 3
    assert found.encoded == encoded
    spent = found.updates * found.seconds_per_update + encoded * found.seconds_per_encoded
    assert found.hours == pytest.approx(spent / 3600)
    assert 0 < found.seconds_per_update < 10
    assert 0 < found.memory_gb < 64
    assert 0 < found.disk_gb < 0.1
    assert found.disk_free_gb > 0


def test_nothing_is_left_behind(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setenv("GEN2REAL_CACHE", str(tmp_path / "cache"))
    before = files(world.generated.parent)
    estimate(config(world, tmp_path / "run", tune="head"))
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]
    assert list(temporary.iterdir()) == []
    assert files(world.generated.parent) == before
    assert os.environ["GEN2REAL_CACHE"] == str(tmp_path / "cache")


def test_the_evaluation_set_is_counted_and_not_opened(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any) -> None:
        raise AssertionError("a dry run measured on the real pictures")

    monkeypatch.setattr(SealedSet, "open", opened)
    shutil.copytree(world.real, tmp_path / "real")
    for picture in (tmp_path / "real").rglob("*.png"):
        picture.unlink()
    found = estimate(config(world, tmp_path / "run", data__evaluation=str(tmp_path / "real")))
    assert found.encoded == 5 * (4 + 16)


def test_a_run_on_many_pictures_is_rehearsed_on_some(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "MOST_PICTURES", 8)
    seen = []
    encode = classification_rehearsal.encode_pictures

    def watched(vision: torch.nn.Module, pictures: Any, **more: Any) -> torch.Tensor:
        seen.append([pictures.image_set.labels.tolist(), pictures.image_set.paths[0]])
        return encode(vision, pictures, **more)

    monkeypatch.setattr(classification_rehearsal, "encode_pictures", watched)
    found = estimate(config(world, tmp_path / "run", tune="head", data__holdout=0))
    assert found.pictures == 24
    [[labels, path]] = seen
    assert len(labels) == 8
    assert set(labels) == {0, 1, 2, 3}
    assert path.is_relative_to(world.generated)


def test_several_sources_and_few_shot_pictures_are_counted(world: World, tmp_path: Path) -> None:
    more = colour_set(tmp_path / "more", seed=7, per_class=3).root
    sources = [str(world.generated), {"path": str(more), "weight": 2.0}]
    real = {"path": str(world.real), "shots": 2}
    found = estimate(
        config(world, tmp_path / "run", data__generated=sources, data__real=real, data__evaluation=None, tune="head")
    )
    assert found.pictures + found.held_out == 24 + 12 + 8


def test_what_would_stop_the_run_stops_the_rehearsal(world: World, tmp_path: Path) -> None:
    with pytest.raises(Gen2RealError, match="nowhere does not exist"):
        estimate(config(world, tmp_path / "run", data__generated=["nowhere"]))
    stranger = colour_set(tmp_path / "real", origin="real").root
    with pytest.raises(RecipeError, match="not of origin 'generated'"):
        estimate(config(world, tmp_path / "run", data__generated=[str(stranger)]))


def test_a_soup_has_no_training(tmp_path: Path) -> None:
    soup = parse_config(SoupConfig, {"output": str(tmp_path / "soup"), "runs": ["run"]}, source="soup.yaml")
    with pytest.raises(RecipeError, match="--dry-run estimates a training, and this recipe has none"):
        estimate(soup)


def test_an_alignment_is_rehearsed_with_its_partners(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "MOST_PICTURES", 8)
    training = {"epochs": 10, "steps": None, "batch_size": 4}
    found = estimate(paired_runs.config(pairs, tmp_path / "run", training=training, loss="align+text"))
    # 20 generated pictures of 10 real ones, of which 2 are held out with theirs; 8 to measure on.
    assert (found.pictures, found.held_out, found.updates) == (16, 4, 10 * 4)
    assert found.encoded == 10 + 2 * 4 + 2 * 8
    assert found.timed_updates == 3
    assert not (tmp_path / "run").exists()


def test_it_reads_like_a_sentence(world: World, tmp_path: Path) -> None:
    found = estimate(config(world, tmp_path / "run", tune="head"))
    said = found.text()
    assert said.startswith("20 pictures to train on, 4 held out\n3 updates at ")
    assert "too small" not in said
    full = type(found)(**{**vars(found), "disk_free_gb": 0.0})
    assert "The disk is too small for this run" in full.text()
    assert set(found.to_json()) == {
        "version", "pictures", "held_out", "updates", "seconds_per_update", "encoded", "seconds_per_encoded", "hours",
        "memory_gb", "memory_of", "disk_gb", "disk_free_gb", "timed_updates",
    }  # fmt: skip
