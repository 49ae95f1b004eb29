"""gen2real generate as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commands import gen2real_ as in_this_process
from gen2real.imagesets import ImageSet, decode
from gen2real.imagesets.decoding import format_of


def gen2real_(*words: object) -> str:
    done = in_this_process(*words)
    assert done.code == 0, done.err
    return done.out


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("cat\nred dog\n")
    return tmp_path


def test_names_become_a_set_and_the_same_command_again_reads_it(here: Path, sd: Path) -> None:
    words: list[Any] = ["generate", "names.txt", "--generator", sd, "--out", "set", "--per-class", 2, "--steps", 1]
    words += ["--size", "40x24", "--format", "webp", "--guidance", 2, "--seed", 3, "--negative-prompt", "dark"]
    words += ["--templates", "a {} outside", "--scheduler", "euler", "--batch-size", 4, "--device", "cpu"]
    assert gen2real_(*words) == "set: 4 pictures, 2 classes\n"
    row = list(ImageSet.read("set").rows())[2]
    drawn = ("width", "height", "guidance", "negative_prompt", "prompt", "scheduler", "steps")
    assert [row[key] for key in drawn] == [40, 24, 2.0, "dark", "a red dog outside", "euler", 1]
    assert format_of((here / "set" / row["path"]).read_bytes()) == "WEBP"
    before = (here / "set" / "manifest.parquet").stat().st_mtime_ns
    said = json.loads(gen2real_(*words, "--json"))
    assert said == {"set": "set", "finished": True, "pictures": 4, "kept": 4, "classes": 2}
    assert (here / "set" / "manifest.parquet").stat().st_mtime_ns == before


def test_a_dry_run_draws_nothing(here: Path, sd: Path) -> None:
    words = ["generate", "names.txt", "--generator", sd, "--out", "set", "--steps", 2, "--dry-run", "--device", "cpu"]
    assert "20 pictures to draw" in gen2real_(*words, "--batch-size", 1)
    found = json.loads(gen2real_(*words, "--batch-size", 1, "--json"))
    keys = {"version", "planned", "pictures", "hours", "memory_gb", "memory_of", "disk_gb", "disk_free_gb", "parts"}
    assert set(found) == keys
    assert not Path("set").exists()


def test_shares_on_two_machines(here: Path, sd: Path) -> None:
    words = ["generate", "names.txt", "--generator", sd, "--out", "set", "--per-class", 3, "--steps", 1]
    first = json.loads(gen2real_(*words, "--share", "0/2", "--json"))
    assert first == {"set": "set", "finished": False}
    assert gen2real_(*words, "--share", "1/2") == "set: 6 pictures, 2 classes\n"


def test_a_recipe_with_what_is_typed_over_it(here: Path, sd: Path) -> None:
    generator = f"{{name: {sd}, steps: 1}}"
    Path("draw.yaml").write_text(
        f"method: generate\nsource: names.txt\noutput: elsewhere\ngenerators: [{generator}]\nseed: 1\n"
    )
    typed = ["--out", "set", "--per-class", 1, "--set", "generators.0.guidance=1", "--seed", 2]
    gen2real_("generate", "draw.yaml", *typed)
    rows = list(ImageSet.read("set").rows())
    assert [(row["steps"], row["guidance"]) for row in rows] == [(1, 1.0)] * 2
    assert "seed: 2" in Path("set/generation/recipe.yaml").read_text()


def test_one_picture_again(here: Path, sd: Path) -> None:
    gen2real_("generate", "names.txt", "--generator", sd, "--out", "set", "--per-class", 1, "--steps", 1)
    said = json.loads(gen2real_("generate", "set", "--redraw", "cat/00000", "--out", "again.png", "--json"))
    assert (said["picture"], said["id"]) == ("again.png", "cat/00000")
    assert said["largest_difference"] <= 1
    assert decode(Path("again.png")).size == (32, 32)
