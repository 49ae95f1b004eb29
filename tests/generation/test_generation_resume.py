"""Killed at any moment, shared by any number of processes: the set is the same, and nothing is lost or drawn twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gen2real.errors import ImageSetError, RecipeError
from gen2real.files import write_json
from gen2real.generation import GenerateConfig, generate
from gen2real.generation import generating as module
from gen2real.generation.drawing import Painter
from gen2real.generation.generating import Share
from gen2real.generation.plan import make_plan
from gen2real.generation.writer import SetWriter
from gen2real.imagesets import ImageSet

Make = Callable[..., GenerateConfig]
WORKER = Path(__file__).parent / "workers" / "killed_generations.py"
KILLS = 20


def run(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
    )


def content(root: Path) -> dict[str, bytes]:
    """Every file of a set but the recipe, which names the folder, and the manifest, which is compared by its rows."""
    names = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in names.items() if "recipe" not in name and "manifest" not in name}


def drawn_by(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The prompts of every batch from here on."""
    batches: list[list[str]] = []
    draw = Painter.draw

    def watched(self: Painter, prompts: Any, seeds: Any, **more: Any) -> Any:
        batches.append(list(prompts))
        return draw(self, prompts, seeds, **more)

    monkeypatch.setattr(Painter, "draw", watched)
    return batches


def test_twenty_kills_change_nothing(config: Make, tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        made = config(output=tmp_path / name, per_class=50, batch_size=3, drawing={"steps": 1})
        write_json(tmp_path / f"{name}.json", made.model_dump(mode="json"))
    done = run([str(WORKER), "whole.json", "killed.json", str(KILLS)], tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1].replace("killed", "whole") == "whole exit 0", done.stderr[-4000:]
    kills = [line.split() for line in lines[1:-1]]
    assert [words[:3] for words in kills] == [["killed", "signal", "9"]] * KILLS
    finished = [int(words[3]) for words in kills]
    assert finished == sorted(finished), "what is finished stays finished"
    assert 0 < finished[-1] < 150, "they came while there was work"
    whole, killed = (ImageSet.read(tmp_path / name) for name in ("whole", "killed"))
    assert killed.table.equals(whole.table)
    assert len(killed) == 150
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert not (tmp_path / "killed" / "generation" / "journal").exists()


def test_two_processes_of_torchrun_share_a_set(config: Make, tmp_path: Path) -> None:
    words = ["names.txt", "--per-class", "2", "--steps", "2", "--batch-size", "4", "--device", "cpu", "--out", "shared"]
    words += ["--generator", config().generators[0].name]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = run([*launcher, "gen2real", "generate", *words], tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "shared: 6 pictures, 3 classes" in done.stdout
    shared = ImageSet.read(tmp_path / "shared")
    assert shared.ids == [one.id for one in make_plan(config()).pictures]
    assert len({row["sha256"] for row in shared.rows()}) == 6
    assert not (tmp_path / "shared" / "generation" / "journal").exists()


def test_parts_make_the_set_of_one_process(config: Make, tmp_path: Path) -> None:
    whole = generate(config(batch_size=1), quiet=True)
    assert whole is not None
    parts = config(output=tmp_path / "parts", batch_size=1)
    assert generate(parts, quiet=True, share=Share(0, 3)) is None
    # Another number of processes from here on.
    assert generate(parts, quiet=True, share=Share(1, 2)) is None
    made = generate(parts, quiet=True, share=Share(0, 2))
    assert made is not None
    assert made.table.equals(whole.table)
    assert content(tmp_path / "parts") == content(tmp_path / "set")


def test_what_is_done_is_not_drawn_again(config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(batch_size=2)
    store = SetWriter.store
    stored: list[str] = []

    def stops(self: SetWriter, picture: Any, *given: Any) -> int:
        if len(stored) == 3:
            raise KeyboardInterrupt
        stored.append(picture.id)
        return store(self, picture, *given)

    monkeypatch.setattr(SetWriter, "store", stops)
    with pytest.raises(KeyboardInterrupt):
        generate(made, quiet=True)
    monkeypatch.setattr(SetWriter, "store", store)
    (journal,) = (tmp_path / "set" / "generation" / "journal").glob("*.jsonl")
    # As a kill leaves it: a line that ends in the middle of a letter.
    journal.write_bytes(journal.read_bytes() + '{"id": "cat/0000é'.encode()[:-1])
    batches = drawn_by(monkeypatch)
    finished = generate(made, quiet=True)
    assert finished is not None
    assert [len(batch) for batch in batches] == [2, 2], "the batch that was cut, and the one after it"
    whole = generate(config(batch_size=2, output=tmp_path / "whole"), quiet=True)
    assert whole is not None
    assert finished.table.equals(whole.table)
    assert generate(made, quiet=True) is not None
    assert len(batches) == 5, "a finished set is only read"


def test_a_picture_that_has_gone_is_drawn_again(config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config()
    assert generate(made, quiet=True, share=Share(0, 2)) is None
    writer = SetWriter(made, make_plan(made))
    first = next(iter(writer.done().values()))
    (tmp_path / "set" / first["path"]).unlink()
    assert first["id"] not in writer.done()
    assert generate(made, quiet=True) is not None
    assert (tmp_path / "set" / first["path"]).is_file()


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"per_class": 3}, r"per_class: 2 → 3"),
    ({"seed": 1}, r"seed: 0 → 1"),
    ({"drawing": {"steps": 3}}, "generators: .*'steps': 2.* → .*'steps': 3"),
    ({"templates": "{}"}, "templates: 'simple' → '{}'"),
]


@pytest.mark.parametrize(("changes", "said"), CHANGES)
def test_other_settings_are_refused_with_what_differs(
    config: Make, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    made = config()
    SetWriter(made, make_plan(made)).begin()
    with pytest.raises(RecipeError, match=said):
        generate(config(**changes), quiet=True)


def test_other_names_under_the_same_path_are_refused(config: Make, tmp_path: Path) -> None:
    made = config()
    SetWriter(made, make_plan(made)).begin()
    (tmp_path / "names.txt").write_text("cat\nred dog\nF-16C/D\n")
    with pytest.raises(RecipeError, match="content of source"):
        generate(made, quiet=True)


def test_batch_size_device_and_place_may_change(config: Make, tmp_path: Path) -> None:
    made = config()
    SetWriter(made, make_plan(made)).begin()
    (tmp_path / "set").rename(tmp_path / "moved")
    other = config(output=tmp_path / "moved", batch_size=1, device="auto")
    assert SetWriter(other, make_plan(other)).done() == {}


def test_a_folder_with_something_else_is_left_alone(config: Make, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.tex").write_text("important")
    with pytest.raises(ImageSetError, match="no unfinished generation"):
        generate(config(), quiet=True)
    assert os.listdir(tmp_path / "set") == ["thesis.tex"]


def test_a_generator_that_has_changed_is_refused(config: Make, tmp_path: Path, sd: Path) -> None:
    import shutil

    copy = shutil.copytree(sd, tmp_path / "sd")
    made = config(generators=[{"name": str(copy), "steps": 1}])
    assert generate(made, quiet=True, share=Share(0, 2)) is None
    index = copy / "model_index.json"
    index.write_text(index.read_text() + "\n")
    with pytest.raises(RecipeError, match="not the generator that this set was begun with"):
        generate(made, quiet=True)


def test_the_launcher_says_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Share.of_environment() == Share(0, 1, 0)
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert Share.of_environment() == Share(5, 8, 1)
    assert Share.parse("2/4") == Share(2, 4)
    for wrong in ("4/4", "1", "a/b", "-1/2"):
        with pytest.raises(RecipeError, match="PLACE/COUNT"):
            Share.parse(wrong)


def test_two_that_end_at_the_same_moment_write_one_manifest(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = config()
    first = generate(made, quiet=True)
    assert first is not None
    plan = make_plan(made)
    late = SetWriter(made, plan)
    rows = {row["id"]: row for row in first.rows()}
    late.begin()
    (late._journals / "late.jsonl").write_text("".join(f"{json.dumps(rows[one.id])}\n" for one in plan.pictures))
    # It looks for a manifest a moment before the other has written it.
    answers = iter([False])
    monkeypatch.setattr(SetWriter, "finished", property(lambda self: next(answers, True)))
    again = late.finish()
    assert again is not None
    assert again.table.equals(first.table)


def test_progress_goes_on_from_where_it_was(config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(batch_size=1)
    own = len(make_plan(made).share(0, 2))
    assert generate(made, quiet=True, share=Share(0, 2)) is None
    told: list[Any] = []

    class Told:
        def __init__(self, title: str, **settings: Any) -> None:
            told.append((title, settings["start"], settings["total"]))

        def __enter__(self) -> Told:
            return self

        def __exit__(self, *_: Any) -> None: ...

        def update(self, done: int) -> None:
            told.append(done)

    monkeypatch.setattr(module, "WorkProgress", Told)
    assert generate(made, quiet=True) is not None
    assert told == [("drawing", own, 6), *range(own + 1, 7)]
