"""What Sugar learns from: every file is looked at, whatever is wrong with the others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from sugar_world import make_world, sugar_config

from gen2real.errors import ImageSetError, UnreadablePictures
from gen2real.methods.sugar.data import SugarData
from gen2real.models.multimodal import MultimodalModel, load_multimodal


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("sugar-data"))


@pytest.fixture(scope="module")
def model(root: Path) -> MultimodalModel:
    return load_multimodal(root / "llava")


def samples(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_faults_of_all_files_are_told_at_once(root: Path, model: MultimodalModel, tmp_path: Path) -> None:
    """A line that is torn in one file, a picture in another, samples that are too long in two."""
    good, torn = tmp_path / "good.png", tmp_path / "torn.png"
    shutil.copy(next((root / "learnt").rglob("*.png")), good)
    torn.write_bytes(b"torn")
    long = {"id": "long", "text": "A word. " * 60}
    short = {"id": "short", "text": "<image> One.", "images": ["good.png"]}
    first = samples(tmp_path / "first.jsonl", {"id": "lost", "text": "<image> One.", "images": ["no.png"]}, long)
    second = samples(tmp_path / "second.jsonl", {"id": "torn", "text": "<image> One.", "images": ["torn.png"]}, long)
    third = samples(tmp_path / "third.jsonl", {**long, "id": "longer"}, short)

    def faults(*paths: Path, on_unreadable: str = "error") -> ImageSetError:
        data = sugar_config(
            root, tmp_path / "run", data__train=[str(path) for path in paths], data__max_length=40,
            data__on_unreadable=on_unreadable,
        ).data  # fmt: skip
        with pytest.raises(ImageSetError) as caught:
            SugarData(data, model, seed=0)
        return caught.value

    told = str(faults(third, first, second))
    places = [
        told.index(part)
        for part in (
            f"{first}: 1 line(s) cannot be used:\n  line 1: there is no picture",
            f"1 picture(s) cannot be read:\n  {torn}: ",
            f"{third}: 1 of 2 samples cannot be learnt from:\n  longer: it has",
            f"{second}: 1 of 1 samples cannot be learnt from:\n  long: it has",
        )
    ]
    assert places == sorted(places)
    told = str(faults(first, samples(tmp_path / "empty.jsonl")))
    assert "first.jsonl: 1 line(s) cannot be used" in told
    assert "empty.jsonl holds no samples" in told


def test_pictures_alone_are_told_as_such(root: Path, model: MultimodalModel, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.png").write_bytes(b"torn")
        samples(tmp_path / f"{name}.jsonl", {"text": "<image> One.", "images": [f"{name}.png"]})
    paths = [tmp_path / "one.jsonl", tmp_path / "two.jsonl", root / "train.jsonl"]
    changes: dict[str, Any] = {"data__train": [str(path) for path in paths]}
    with pytest.raises(UnreadablePictures) as caught:
        SugarData(sugar_config(root, tmp_path / "run", **changes).data, model, seed=0)
    assert [one.path.name for one in caught.value.offenders] == ["one.png", "two.png"]
    changes["data__on_unreadable"] = "skip"
    with pytest.warns(UserWarning, match="2 of "), pytest.raises(ImageSetError) as left:
        SugarData(sugar_config(root, tmp_path / "run", **changes).data, model, seed=0)
    assert str(left.value).splitlines() == [
        f"{path}: it has no sample whose pictures can all be read." for path in paths[:2]
    ]
