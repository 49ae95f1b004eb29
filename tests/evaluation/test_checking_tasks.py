"""The files of tasks, read without a model: the same faults as in measuring, told before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gen2real.errors import Gen2RealError, ImageSetError
from gen2real.evaluation.tasks import LOOKED_UP, READERS, TASKS, Asked, TaskInput, check_task, measure_task
from gen2real.imagesets import ImageSet
from gen2real.models.multimodal import MultimodalModel
from tiny_sets import colour_set

GOOD: dict[str, dict[str, Any]] = {
    "questions": {"image": "red/0.png", "question": "what?", "answer": "red"},
    "yes-no": {"image": "red/0.png", "question": "is it?", "answer": "no"},
    "choice": {"images": ["red/0.png"], "question": "which?", "options": ["red", "blue"], "answer": 0},
    "knowledge": {"image": "red/0.png", "question": "who?", "answer": "I", "facts": ["a fact"]},
    "position": {
        "question": "is it?",
        "answer": "no",
        "relevant": 0,
        "pairs": ["a", {"image": "red/0.png", "text": "b"}],
    },
    "story-retrieval": {"images": ["red/0.png", "red/1.png"], "text": "<image> It came. <image> It went."},
    "composed-retrieval": {"image": "red/0.png", "text": "but blue", "target": "blue/0.png"},
    "winoground": {"images": ["red/0.png", "blue/0.png"], "captions": ["a on b", "b on a"]},
}


class Silent(MultimodalModel):
    """Is asked nothing."""

    def __init__(self) -> None:
        self.name, self.made_by = "silent", {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_set(tmp_path_factory.mktemp("checked") / "set", per_class=2).root


def asks(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "items.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_every_task_can_be_checked() -> None:
    assert set(READERS) == set(TASKS) == {*GOOD, "captioning", "retrieval"}


@pytest.mark.parametrize("task", GOOD)
def test_faults_of_a_file_are_those_of_measuring(folder: Path, task: str) -> None:
    check_task(task, asks(folder, GOOD[task]))
    gone = json.loads(json.dumps(GOOD[task]).replace("red/0.png", "gone.png"))
    path = asks(folder, GOOD[task], {}, gone)
    told = []
    for look in (check_task, lambda *given: measure_task(given[0], Silent(), given[1])):
        with pytest.raises(
            ImageSetError, match=r"(?s)2 line\(s\) cannot.*line 2: .*line 3: there is no picture .*gone"
        ) as found:
            look(task, path)
        told.append(str(found.value))
    assert told[0] == told[1]
    with pytest.raises(ImageSetError, match="the file is empty"):
        check_task(task, asks(folder))


@pytest.mark.parametrize("task", LOOKED_UP)
def test_what_would_be_asked(folder: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    asked: list[Asked] = []

    def answers(self: TaskInput, given: list[Asked]) -> None:
        asked.extend(given)
        raise Stop

    monkeypatch.setattr(TaskInput, "answers", answers)
    path = asks(folder, *[GOOD[task]] * 3)
    with pytest.raises(Stop):
        measure_task(task, Silent(), path, limit=2)
    assert len(asked) == 2
    assert check_task(task, path, limit=2) == asked


@pytest.mark.parametrize("task", ["captioning", "retrieval"])
def test_pictures_of_a_set_must_be_there(tmp_path: Path, task: str) -> None:
    made = colour_set(tmp_path / "set", per_class=2)
    rows = [{**row, "captions": [] if row["id"] == "red-0" else row["captions"]} for row in made.rows()]
    known = ImageSet.write(made.root, rows, made.classes, name="some.parquet")
    assert check_task(task, known.manifest) == []
    (made.root / "red" / "0.png").unlink()
    assert check_task(task, known.manifest) == []
    (made.root / "red" / "1.png").unlink()
    with pytest.raises(
        ImageSetError, match=r"(?s)some\.parquet: 1 of 7 captioned pictures are not there:\n  red-1: .*red/1\.png"
    ):
        check_task(task, known.manifest)
    bare = ImageSet.write(made.root, [{**row, "captions": []} for row in rows], made.classes, name="bare.parquet")
    with pytest.raises(ImageSetError, match="no captions on its 8 kept"):
        check_task(task, bare.manifest)


def test_other_tasks_and_limits_are_refused(folder: Path) -> None:
    with pytest.raises(Gen2RealError, match="there is no task 'answers'; there are: questions"):
        check_task("answers", folder)
    with pytest.raises(Gen2RealError, match="a limit of 0 leaves nothing"):
        check_task("questions", folder, limit=0)
