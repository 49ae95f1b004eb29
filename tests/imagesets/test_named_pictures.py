"""Which pictures a JSON Lines file names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gen2real.errors import ImageSetError
from gen2real.imagesets.named_pictures import named_pictures


def test_pictures_are_named_at_any_depth_and_each_once(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png", "tasks/d.png", "text.png"):
        (tmp_path / name).touch()
    lines = [
        {"image": "d.png", "target": "../b.png", "text": "text.png"},
        {"images": ["../a.png", "d.png", 3], "pairs": ["../c.png", {"image": "../c.png", "text": "../text.png"}]},
        {"image": "an-id-in-a-set", "target": "word " * 400, "images": None},
        {"image": "nul\0", "turns": [{"images": ["../tasks/d.png"]}]},
    ]
    path = folder / "some.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = [folder / "d.png", tmp_path / "b.png", tmp_path / "a.png", tmp_path / "c.png"]
    assert named_pictures(path) == found


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match=r"none\.jsonl does not exist"):
        named_pictures(tmp_path / "none.jsonl")
    (tmp_path / "list.jsonl").write_text("[]\n")
    with pytest.raises(ImageSetError, match="line 1: not an object"):
        named_pictures(tmp_path / "list.jsonl")
