"""From arms to recipes: what a run that starts from another is told, and when its folder is another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gen2real.comparison.plan import make_plan
from gen2real.comparison.recipes import make_recipes
from gen2real.config import parse_config
from gen2real.errors import RecipeError
from gen2real.files import write_json
from gen2real.imagesets import ImageSet
from gen2real.methods.settings import CompareConfig
from tiny_sets import colour_set

RECIPE = """\
method: regft
output: unused
encoder: {name: clip, revision: main}
data: {generated: [generated], evaluation: real}
"""
CHAIN: dict[str, Any] = {
    "end": {"init": "begin", "set": {"optimizer.lr": 1e-4}},
    "begin": {},
    "alone": {"set": {"optimizer.lr": 1e-4}},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    colour_set(tmp_path / "generated", per_class=2)
    colour_set(tmp_path / "real", origin="real", per_class=2)
    (tmp_path / "one.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipes(arms: dict[str, Any], **more: Any) -> dict[tuple[str, int], Any]:
    values = {"output": "out", "recipe": "one.yaml", "seeds": [0, 1], "arms": arms, **more}
    return make_recipes(make_plan(parse_config(CompareConfig, values, source="compare.yaml")))


@pytest.mark.usefixtures("place")
def test_a_run_starts_from_that_of_the_same_seed() -> None:
    found = recipes(CHAIN)
    assert list(found)[:2] == [("begin", 0), ("begin", 1)]
    for seed in (0, 1):
        end, begin = found["end", seed], found["begin", seed]
        assert (end.encoder.init, end.encoder.name, end.encoder.revision) == (begin.output, None, None)
        assert (begin.encoder.init, begin.encoder.name) == (None, "clip")
        assert (end.seed, begin.seed) == (seed, seed)
    kept = {arm: found[arm, 0].save_model for arm in CHAIN}
    assert kept == {"begin": True, "end": False, "alone": False}
    assert len({recipe.output for recipe in found.values()}) == 6


@pytest.mark.usefixtures("place")
def test_a_changed_start_changes_what_follows_and_nothing_else() -> None:
    before = recipes(CHAIN)
    after = recipes({**CHAIN, "begin": {"set": {"optimizer.weight_decay": 0.5}}})
    for seed in (0, 1):
        assert before["end", seed].output != after["end", seed].output
        assert before["alone", seed].output == after["alone", seed].output
    assert {place: recipe.output for place, recipe in recipes(CHAIN).items()} == {
        place: recipe.output for place, recipe in before.items()
    }


@pytest.mark.usefixtures("place")
def test_a_run_that_ended_does_not_move_those_that_start_from_it() -> None:
    before = recipes(CHAIN)
    ended = before["begin", 0].output
    ended.mkdir(parents=True)
    write_json(ended / "result.json", {"seed": 0})
    assert recipes(CHAIN)["end", 0].output == before["end", 0].output


@pytest.mark.usefixtures("place")
def test_a_run_from_elsewhere_counts_by_its_result(place: Path) -> None:
    arms = {"a": {"set": {"encoder": {"name": None, "revision": None, "init": "elsewhere"}}}}
    folders = []
    for seed in (0, 1):
        write_json(place / "elsewhere" / "result.json", {"seed": seed})
        folders.append(recipes(arms)["a", 0].output)
    assert folders[0] != folders[1]


@pytest.mark.usefixtures("place")
def test_other_captions_and_other_partners_are_other_data(place: Path) -> None:
    folders = [recipes({"a": {}})["a", 0].output]
    for change in ({"captions": ["another"]}, {"captions": ["another"], "pair_id": "red-0"}, {"kept": False}):
        known = ImageSet.read(place / "generated")
        [first, *rest] = known.rows()
        known.manifest.unlink()
        ImageSet.write(known.root, [{**first, **change}, *rest], known.classes)
        folders.append(recipes({"a": {}})["a", 0].output)
    assert len(set(folders)) == 4


@pytest.mark.usefixtures("place")
def test_a_size_is_a_key_of_the_recipe() -> None:
    found = recipes({"a": {}, "b": {"init": "a"}}, sizes=[5, 3], size_key="data.views", set={"tune": "head"}
                    | {"loss": {"variance": 0, "covariance": 0}})  # fmt: skip
    assert {place: recipe.data.views for place, recipe in found.items()} == {
        (f"{arm} @ {size}", seed): size for arm in "ab" for size in (5, 3) for seed in (0, 1)
    }
    assert found["b @ 3", 1].encoder.init == found["a @ 3", 1].output
    with pytest.raises(RecipeError, match=r"arm a @ 3: .*data\.pictures: unknown key"):
        recipes({"a": {}}, sizes=[3])


@pytest.mark.usefixtures("place")
def test_a_key_that_takes_no_run_is_named() -> None:
    with pytest.raises(RecipeError, match=r"arm b: .*start: unknown key"):
        recipes({"a": {}, "b": {"init": "a", "into": "start"}})
    with pytest.raises(RecipeError, match=r"(?s)must be one set for all:\n  a: generated\n  b: real"):
        recipes({"a": {"set": {"data.evaluation": "generated"}}, "b": {}})


@pytest.mark.usefixtures("place")
def test_only_an_arm_that_others_start_from_may_be_measured_elsewhere() -> None:
    found = recipes({"a": {"set": {"data.evaluation": "generated"}}, "b": {"init": "a"}})
    assert found["a", 0].data.evaluation != found["b", 0].data.evaluation


@pytest.mark.usefixtures("place")
def test_a_picture_beside_json_lines_is_data_too(place: Path) -> None:
    """Of what is learnt from, asked and looked up; a picture that no line names is not."""
    (place / "sugar.yaml").write_text(
        "method: sugar\noutput: unused\nmodel: {name: llava}\nteachers: {joint: clip}\n"
        "data: {train: [learnt.jsonl]}\nevaluation: {twins: {task: winoground, path: twins.jsonl}}\n"
        "rag: {own: {knowledge: known.jsonl}}\n"
    )
    for number in range(6):
        (place / f"{number}.png").write_bytes(bytes([number]))
    (place / "learnt.jsonl").write_text('{"text": "<image> a duck", "images": ["0.png"]}\n')
    (place / "twins.jsonl").write_text('{"images": ["1.png", "2.png"], "captions": ["a", "b"]}\n')
    facts = '"facts": [{"image": "../' + place.name + '/4.png", "text": "image"}]'
    (place / "known.jsonl").write_text('{"image": "3.png", "question": "what?", "answer": "5.png", ' + facts + "}\n")

    def folder() -> Path:
        found: Path = recipes({"a": {}}, recipe="sugar.yaml", seeds=[0])["a", 0].output
        return found

    before = folder()
    (place / "5.png").write_bytes(b"another")
    assert folder() == before
    seen = [before]
    for number in range(5):
        (place / f"{number}.png").write_bytes(b"another")
        seen.append(folder())
    # The two of a line changed places.
    (place / "1.png").write_bytes(bytes([2]))
    seen.append(folder())
    (place / "4.png").unlink()
    seen.append(folder())
    assert len(set(seen)) == 8
    (place / "twins.jsonl").write_text("{}\nno JSON\n")
    with pytest.raises(RecipeError, match=r"(?s)arm a: twins\.jsonl: 1 line\(s\) cannot be used:.*line 2: not JSON"):
        folder()
