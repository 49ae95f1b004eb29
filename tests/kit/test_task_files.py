"""Stories and hard questions on disk: evaluation reads of them what the world says, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import gen2real_
from gen2real.errors import ImageSetError
from gen2real.evaluation.choice import read_choices
from gen2real.evaluation.composed_retrieval import read_changes
from gen2real.evaluation.knowledge import read_knowledge
from gen2real.evaluation.position import read_positions
from gen2real.evaluation.story_retrieval import read_stories
from gen2real.evaluation.winoground import read_twins
from gen2real.evaluation.yes_no import read_yes_no
from gen2real.imagesets import read_interleaved
from gen2real.kit.world import (
    STORIES,
    TASK_FILES,
    Scene,
    render,
    sample_scene,
    sample_story,
    write_image_set,
    write_stories,
    write_tasks,
)
from gen2real.kit.world.hard_questions import (
    choice_about,
    choice_between,
    sample_foursome,
    sample_reference,
    sample_sources,
    text_first,
    yes_no_about,
)

COUNT = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of `home`, four stories and six hard questions of each kind, as the command writes them."""
    out = tmp_path_factory.mktemp("sets") / "home"
    words = ("home", "--split", "validation", "--count", COUNT, "--stories", 4, "--tasks", COUNT, "--out", out)
    done = gen2real_("kit", *words, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["files"] == [str(out / name) for name in (STORIES, *TASK_FILES.values())]
    return out


def shows(paths: list[Path], scenes: list[Scene]) -> bool:
    return np.array_equal(np.stack([np.asarray(Image.open(path)) for path in paths]), render(scenes))


def test_stories_are_documents_with_sentences_before_or_after_their_pictures(root: Path) -> None:
    samples, told = read_interleaved(root / STORIES), read_stories(root / STORIES)
    orders = set()
    for number, (sample, found) in enumerate(zip(samples, told, strict=True)):
        story = sample_story("home", "validation", number)
        assert sample.id == found.id == f"home-validation-story-{number:06d}"
        assert found.captions == story.sentences
        assert shows(list(found.pictures), list(story.scenes))
        first = text_first("home", "validation", number)
        assert isinstance(sample.parts[0], str) == first
        orders.add(first)
    assert len(samples) == 4
    assert orders == {True, False}


def test_every_task_reads_its_file(root: Path) -> None:
    scenes = [sample_scene("home", "validation", number) for number in range(COUNT)]
    own = [root / "images" / f"{number:06d}.png" for number in range(COUNT)]

    foursomes = [sample_foursome("home", "validation", number) for number in range(COUNT)]
    twins = read_twins(root / "winoground.jsonl")
    assert [(one.captions, one.category) for one in twins] == [(one.captions, one.category) for one in foursomes]
    assert shows([path for one in twins for path in one.pictures], [scene for one in foursomes for scene in one.scenes])

    choices = read_choices(root / "choices.jsonl")
    for number, one in enumerate(choices):
        between = number % 3 == 2
        expected = (
            choice_between(foursomes[number], number, split="validation")
            if between
            else choice_about(scenes[number], number, split="validation")
        )
        assert (one.question, one.options, one.answer) == (expected.question, expected.options, expected.answer)
        assert one.pictures == (twins[number].pictures if between else (own[number],))

    asked = [
        (own[number], one.question, one.answer == "yes", one.category)
        for number, scene in enumerate(scenes)
        for one in yes_no_about(scene, number, split="validation")
    ]
    found = read_yes_no(root / "yes-no.jsonl")
    assert [(one.asked.pictures[0], one.asked.question, one.yes, one.category) for one in found] == asked

    references = [sample_reference("home", "validation", number) for number in (0, 4)]
    changes = read_changes(root / "composed.jsonl")
    expected_changes = [(one.scene, *change) for one in references for change in one.changes][:COUNT]
    assert [change.text for change in changes] == [text for _, text, _ in expected_changes]
    assert shows([change.picture for change in changes], [before for before, _, _ in expected_changes])
    assert shows([change.target for change in changes], [after for _, _, after in expected_changes])
    # No picture is there that no line names.
    named = {path for change in changes for path in (change.picture, change.target)}
    assert named == set((root / "composed").iterdir())

    sources = [sample_sources("home", "validation", number) for number in range(COUNT)]
    knowledge, positions = read_knowledge(root / "knowledge.jsonl"), read_positions(root / "position.jsonl")
    for know, position, one in zip(knowledge, positions, sources, strict=True):
        assert (know.question, know.answers, know.category) == (one.asked[0], (one.asked[1],), one.topic)
        assert (position.question, position.answers) == (one.yes_no[0], (one.yes_no[1],))
        assert position.relevant == one.relevant
        assert tuple(fact.text for fact in know.facts) == one.texts
        assert know.facts == position.pairs
        assert shows([fact.picture for fact in know.facts if fact.picture], list(one.scenes))


def test_the_set_beside_them_is_as_without_them(root: Path, tmp_path: Path) -> None:
    plain = write_image_set(tmp_path / "plain", "home", "validation", COUNT)
    files = {path.relative_to(plain.root): path.read_bytes() for path in plain.root.rglob("*") if path.is_file()}
    assert len(files) == COUNT + 2
    assert {path: (root / path).read_bytes() for path in files} == files


def test_a_smaller_number_is_the_beginning_and_another_seed_another_world(root: Path, tmp_path: Path) -> None:
    write_image_set(tmp_path, "home", "validation", 3)
    write_stories(tmp_path, "home", "validation", 2)
    for path in [tmp_path / STORIES, *write_tasks(tmp_path, "home", "validation", 3)]:
        lines = path.read_text().splitlines()
        assert lines == (root / path.name).read_text().splitlines()[: len(lines)]
    write_stories(tmp_path / "other", "home", "validation", 2, seed=1)
    assert (tmp_path / "other" / STORIES).read_text() != (tmp_path / STORIES).read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stories", 501), "home train has 500 scenes, so there are 0 to 500 stories, not 501"),
        (("--tasks", -1), "there are 0 to 500 hard questions, not -1"),
        (("--tasks", 3), "3 hard questions are about as many pictures, and there are 2. Render as many: --count 3"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(options: tuple[str, int], message: str, tmp_path: Path) -> None:
    done = gen2real_("kit", "home", "--split", "train", "--count", 2, *options, "--out", tmp_path / "set")
    assert (done.code, done.out) == (2, "")
    assert message in " ".join(done.err.split())
    assert not (tmp_path / "set").exists()


def test_questions_need_their_pictures(tmp_path: Path) -> None:
    write_image_set(tmp_path, "home", "train", 1)
    with pytest.raises(ImageSetError, match="2 hard questions are about as many pictures, and there are 1"):
        write_tasks(tmp_path, "home", "train", 2)
    assert not (tmp_path / "winoground").exists()
