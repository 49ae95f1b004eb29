"""What a run learns from: the right pictures, the right labels, and nothing that it is tested on."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import World

from gen2real.errors import ImageSetError, RecipeError
from gen2real.imagesets import ImageSet
from gen2real.imagesets.manifest import ClassName
from gen2real.imagesets.transforms import Preprocess
from gen2real.methods.classification_data import (
    Batch,
    ClassificationData,
    FeatureBatches,
    PictureBatches,
    class_indices,
)
from gen2real.methods.settings import DataSettings
from tiny_sets import colour_set

PREPROCESS = Preprocess(size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def data_of(world: World, *, seed: int = 0, **settings: Any) -> ClassificationData:
    whole = {"generated": [str(world.generated)], "holdout": 0.0, **settings}
    return ClassificationData(DataSettings(**whole), PREPROCESS, seed=seed)


def hashes(source: Any) -> set[str]:
    return set(source.image_set.table["sha256"].to_pylist())


def test_held_out_pictures_are_not_trained_on(world: World) -> None:
    data = data_of(world, holdout=0.34)
    (held_out,), (source,) = data.held_out, data.sources
    assert (len(held_out.pictures), len(source.pictures)) == (8, 16)
    assert Counter(held_out.labels.tolist()) == dict.fromkeys(range(4), 2)
    assert not hashes(held_out) & hashes(source)
    assert data.measured_on == (data.held_out, "held out")
    assert held_out.pictures.augmentation is None
    again = data_of(world, holdout=0.34, seed=7)
    assert hashes(again.held_out[0]) == hashes(held_out), "all seeds are measured on the same pictures"


def test_without_held_out_pictures_those_of_training_are_measured_and_named(world: World) -> None:
    data = data_of(world)
    assert data.held_out == []
    assert data.measured_on == (data.sources, "training")


def test_a_set_of_its_own_may_be_held_out(world: World, tmp_path: Path) -> None:
    other = colour_set(tmp_path / "other", seed=3, per_class=2)
    data = ClassificationData(
        DataSettings(generated=[str(world.generated)], held_out=str(other.root)), PREPROCESS, seed=0
    )
    assert (len(data.held_out[0].pictures), len(data.sources[0].pictures)) == (8, 24)


@pytest.mark.parametrize("place", ["generated", "held_out"])
def test_real_pictures_are_refused_where_generated_ones_belong(world: World, place: str) -> None:
    settings: dict[str, Any] = {"generated": [str(world.generated)], "holdout": 0.0}
    settings[place] = [str(world.real)] if place == "generated" else str(world.real)
    with pytest.raises(RecipeError, match=r"16 of the 16 pictures .* are not of origin 'generated'.*data\.real"):
        ClassificationData(DataSettings(**settings), PREPROCESS, seed=0)


@pytest.mark.parametrize(("shots", "expected"), [(1, 4), (3, 12), (100, 24), (None, 24)])
def test_few_shot_pictures_are_counted_by_class(world: World, tmp_path: Path, shots: int | None, expected: int) -> None:
    real = colour_set(tmp_path / "shots", origin="real", seed=5)
    data = data_of(world, real={"path": str(real.root), "shots": shots})
    assert len(data.sources) == 2
    assert Counter(data.sources[1].labels.tolist()) == dict.fromkeys(range(4), expected // 4)
    if shots == 3:
        other = data_of(world, real={"path": str(real.root), "shots": shots}, seed=1)
        assert hashes(other.sources[1]) != hashes(data.sources[1]), "the run's seed chooses them"
        same = data_of(world, real={"path": str(real.root), "shots": shots})
        assert hashes(same.sources[1]) == hashes(data.sources[1])


def test_weights_share_out_the_draws(world: World, tmp_path: Path) -> None:
    real = colour_set(tmp_path / "shots", origin="real", seed=5, per_class=1)
    settings = {"generated": [{"path": str(world.generated), "weight": 1.0}]}
    data = data_of(world, **settings, real={"path": str(real.root), "weight": 3.0})
    sampler = data.sampler(10, 0)
    drawn = Counter(source for step in range(300) for source, _ in sampler.batch(step))
    assert drawn[1] / sum(drawn.values()) == pytest.approx(0.75, abs=0.03)
    even = data_of(world, real={"path": str(real.root)}).sampler(28, 0)
    assert sorted(even.batch(0)) == [(0, row) for row in range(24)] + [(1, row) for row in range(4)]


def test_pictures_of_the_evaluation_set_may_not_be_trained_on(world: World, tmp_path: Path) -> None:
    shutil.copy(next((world.generated / "red").iterdir()), tmp_path / "copy.png")
    leaked = colour_set(tmp_path / "leaked", origin="real", per_class=2)
    rows = leaked.table.to_pylist()
    rows[0] |= {"sha256": ImageSet.read(world.generated).table["sha256"][2].as_py()}
    (leaked.root / "manifest.parquet").unlink()
    ImageSet.write(leaked.root, rows, leaked.classes)
    with pytest.raises(ImageSetError, match=r"1 picture\(s\) of .* are also in the evaluation set .*byte for byte"):
        data_of(world, evaluation=str(leaked.root))
    with pytest.raises(ImageSetError, match=r"16 picture\(s\)"):
        data_of(world, real={"path": str(world.real)}, evaluation=str(world.real))
    # Held-out pictures choose alpha: they may not be tested on either.
    with pytest.raises(ImageSetError, match="are also in the evaluation set"):
        data_of(world, holdout=0.9, evaluation=str(leaked.root))


def test_an_unknown_class_is_told_with_the_nearest(world: World, tmp_path: Path) -> None:
    real = colour_set(tmp_path / "real", origin="real")
    rows = [{**row, "label": {"red": "redd"}.get(row["label"], row["label"])} for row in real.table.to_pylist()]
    (real.root / "manifest.parquet").unlink()
    classes = [ClassName("redd", "redd") if known.label == "red" else known for known in real.classes]
    ImageSet.write(real.root, rows, classes)
    with pytest.raises(
        ImageSetError, match=r"1 class\(es\) that the run does not train on:\n  'redd' \(nearest: 'red'\)"
    ):
        data_of(world, evaluation=str(real.root))


def test_class_order_comes_from_a_file(world: World, tmp_path: Path) -> None:
    names = ["blue", "F-16A/B", "purple", "green", "red"]
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    data = data_of(world, class_names=str(tmp_path / "names.txt"))
    assert data.class_names == names
    read = ImageSet.read(world.generated)
    assert [names[label] for label in data.sources[0].labels] == [read.class_names[label] for label in read.labels]


def test_classes_match_by_name_where_their_labels_were_dealt_otherwise() -> None:
    """Slugs of "C" and "C++" clash; which one gets the number depends on the order in which they were listed."""

    class Set:
        manifest = "some.parquet"
        classes = (ClassName("c", "C++"), ClassName("c-2", "C"))

    run_classes = (ClassName("c", "C"), ClassName("c-2", "C++"))
    assert class_indices(Set(), run_classes).tolist() == [1, 0, -1]  # type: ignore[arg-type]
    with pytest.raises(ImageSetError, match="'C'"):
        class_indices(Set(), (ClassName("c-2", "C++"), ClassName("d", "D")))  # type: ignore[arg-type]
    Set.classes = (ClassName("crane-2", "crane"), ClassName("crane", "crane"))
    assert class_indices(Set(), Set.classes[::-1]).tolist() == [1, 0, -1]  # type: ignore[arg-type]


def test_pictures_without_a_label_are_refused(world: World, tmp_path: Path) -> None:
    made = colour_set(tmp_path / "some", seed=8)
    rows = made.table.to_pylist()
    rows[3]["label"] = rows[5]["label"] = None
    (made.root / "manifest.parquet").unlink()
    ImageSet.write(made.root, rows, made.classes)
    with pytest.raises(ImageSetError, match=r"2 of the 24 pictures .* have no label"):
        data_of(world, generated=[str(made.root)])


def joined(parts: tuple[Batch, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        torch.cat([part.inputs for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.draws for part in parts]),
    )


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_a_batch_does_not_depend_on_the_parts_it_comes_in(world: World, parts: int) -> None:
    data = data_of(world, augmentation={"flip": 0.5, "brightness": 0.3})
    sampler = data.sampler(7, 1)
    whole = list(PictureBatches(data, sampler, seed=1, parts=1, workers=1)(range(4)))
    cut = list(PictureBatches(data, sampler, seed=1, parts=parts, workers=2)(range(4)))
    assert [sum(part.rows for part in batch) for batch in cut] == [7, 7, 7, 3]
    for one, other in zip(whole, cut, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(joined(one), joined(other), strict=True))
    (resumed,) = PictureBatches(data, sampler, seed=1, parts=1, workers=1)(range(3, 4))
    assert torch.equal(resumed[0].inputs, whole[3][0].inputs), "a batch depends on its number alone"
    assert not torch.equal(whole[0][0].inputs[0], whole[1][0].inputs[0])


def test_feature_batches_draw_a_view_for_each_place() -> None:
    class Order:
        def batch(self, number: int) -> list[tuple[int, int]]:
            return [(1, 0), (0, 2), (0, 0), (1, 1)] if number == 0 else [(0, 1)] * 40

    first = torch.arange(3.0)[None, :, None] + torch.tensor([0.0, 100.0])[:, None, None]
    other = first[:, :2] + 10
    labels = [np.array([5, 6, 7]), np.array([8, 9])]
    make = {"seed": 0}
    (one,), (many,) = FeatureBatches([first, other], labels, Order(), parts=1, **make)(range(2))  # type: ignore[arg-type]
    assert (one.inputs[:, 0] % 100).tolist() == [10, 2, 0, 11]
    assert one.labels.tolist() == [8, 7, 5, 9]
    assert (one.inputs[:, 0] >= 100).tolist() == [bool(view) for view in one.draws]
    assert set(many.draws.tolist()) == {0, 1}
    cut, _ = FeatureBatches([first, other], labels, Order(), parts=3, **make)(range(2))  # type: ignore[arg-type]
    assert [part.rows for part in cut] == [2, 2]
    assert torch.equal(joined(cut)[0], one.inputs)


@pytest.mark.parametrize("place", [0, 1])
def test_a_process_without_rows_holds_one_that_does_not_count(
    world: World, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    from gen2real.training import distributed

    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: place)
    data = data_of(world)
    ((part,),) = PictureBatches(data, data.sampler(23, 0), seed=0, parts=1, workers=1)(range(1, 2))
    assert (len(part.inputs), len(part.labels), len(part.draws), part.rows) == (1, place, place, 1)
