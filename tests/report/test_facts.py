"""What a report says, worked out again by hand from the run's own answers."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from odd_worlds import NAMES, SCRIPT, Runs
from PIL import Image

from gen2real.errors import RecipeError
from gen2real.evaluation.statistics import proportion_interval
from gen2real.files import read_json, write_json, write_tensors
from gen2real.imagesets import ImageSet
from gen2real.imagesets.provenance import describe
from gen2real.methods.findings import headline, lines, markdown, verdict
from gen2real.methods.result import Result
from gen2real.models.card import plain_text
from gen2real.report import write_report
from gen2real.report.arms import Arm, maps
from gen2real.report.charts import Point, Series, line_chart, ticks
from gen2real.report.map_again import plane_again
from gen2real.report.pictures import find_pictures
from gen2real.report.rows import of_comparison, of_readings
from gen2real.report.thumbnails import Thumbnails


@pytest.fixture
def result(runs: Runs) -> Result:
    return Result.read(runs.run)


def rewritten(result: Result, folder: Path, tuned: list[int], zero_shot: list[int]) -> Result:
    """A copy of the run whose first answers are given; the labels are 0 0 0 0 1 1 1 1 2 2 2 2."""
    shutil.copytree(result.folder, folder)
    answers = {name: value.clone() for name, value in result.answers.items()}
    for reading, first in (("blend", tuned), ("zero_shot", zero_shot)):
        answers[f"real.{reading}"][:, 0] = torch.tensor(first, dtype=torch.int32)
    write_tensors(folder / "answers.safetensors", answers)
    return Result.read(folder)


def test_classes_and_confusions(result: Result, tmp_path: Path) -> None:
    made = rewritten(
        result, tmp_path / "run", [0, 0, 0, 1, 1, 2, 2, 0, 2, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 0, 2, 2, 2, 2]
    )
    arm = Arm("mine", "blend", (made,))
    found = [(one.name, one.count, one.before, one.after) for one in arm.classes()]
    assert found == [(NAMES[0], 4, 0.25, 0.75), (NAMES[2], 4, 1.0, 1.0), (NAMES[1], 4, 0.75, 0.25)]
    pairs = [(one.true, one.predicted, one.times, one.rows) for one in arm.confusions(10)]
    assert pairs == [(1, 2, 2, (5, 6)), (0, 1, 1, (3,)), (1, 0, 1, (7,))]
    assert [one.times for one in arm.confusions(1)] == [2]
    both = Arm("mine", "blend", (made, made))
    assert [one.times for one in both.confusions(10)] == [4, 2, 2]


def test_the_alpha_curve_holds_each_alpha_with_its_interval(result: Result) -> None:
    chart = Arm("mine", "blend", (result,)).alpha_curve()
    assert chart is not None
    assert [line.name for line in chart.lines] == ["real photographs", "generated pictures"]
    alphas = [0, 0.25, 0.5, 0.75, 1]
    for alpha, dot in zip(alphas, chart.lines[0].dots, strict=True):
        right = result.correct(f"alpha={alpha:g}")
        assert dot[2] == f"alpha {alpha:g}: {proportion_interval(int(right.sum()), right.size).percent()}"
    across = [dot[0] for dot in chart.lines[0].dots]
    assert across == pytest.approx(np.linspace(across[0], across[-1], 5))


def test_a_line_lies_where_its_numbers_are() -> None:
    points = [Point(0, 0, 0, 0, "a"), Point(10, 5, 4, 6, "b")]
    chart = line_chart([Series("one", "real", points)], x_label="x", y_label="y", summary="")
    assert (chart.y_ticks[0].label, chart.y_ticks[-1].label) == ("0", "6")
    assert chart.lines[0].line.split()[0] == f"{chart.left:g},{chart.bottom:g}"
    x, y = map(float, chart.lines[0].line.split()[1].split(","))
    assert x == chart.right
    assert y == pytest.approx(chart.bottom - (chart.bottom - chart.top) * 5 / 6, abs=0.1)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (3, 3, None), (35.1, 57.7, [35, 40, 45, 50, 55, 60]), (-0.04, 0.11, None)],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: list[float] | None) -> None:
    found = ticks(low, high)
    assert expected is None or found == pytest.approx(expected)
    assert found[0] <= low < found[-1]
    assert high <= found[-1]
    assert 3 <= len(found) <= 9
    assert len({round(b - a, 9) for a, b in pairwise(found)}) == 1


def test_the_table_sets_the_oracle_apart(result: Result) -> None:
    rows = of_readings(result)
    assert [row.name for row in rows.having("bound")] == ["oracle"]
    assert [row.name for row in rows.having("result") if row.is_saved] == ["blend"]
    assert headline(result.summary) == "blend"
    right = {name: result.correct(name) for name in ("blend", "zero_shot")}
    blend = next(row for row in rows.rows if row.name == "blend")
    assert blend.tests["zero-shot"][0].difference == pytest.approx(right["blend"].mean() - right["zero_shot"].mean())
    assert rows.low <= min(row.real.low for row in rows.rows if row.real) < rows.top


def test_a_comparison_names_each_seeds_number(runs: Runs) -> None:
    table = read_json(runs.comparison / "table.json")
    arms = [
        Arm(row["arm"], row["reading"], tuple(Result.read(runs.comparison / run) for run in row["runs"].values()))
        for row in table["rows"]
    ]
    rows = of_comparison(table, arms)
    for arm, row in zip(arms, rows.rows, strict=True):
        assert row.seeds == [result.correct(arm.reading).mean() for result in arm.results]
        assert row.real is not None
        assert np.mean(row.seeds) == pytest.approx(row.real.mean)


def test_the_map_is_kept_and_can_be_drawn_again(
    runs: Runs, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEN2REAL_CACHE", str(tmp_path / "cache"))
    plane = result.plane()
    assert {name: tuple(value.shape) for name, value in plane.items()} == {
        "generated.zero_shot": (3, 2), "generated.tuned": (3, 2), "real.zero_shot": (12, 2), "real.tuned": (12, 2),
        "generated.rows": (3,), "real.rows": (12,), "explained": (2,),
    }  # fmt: skip
    assert [title for title, _ in maps(plane)] == ["before tuning", "after tuning"]
    shutil.copytree(runs.run, tmp_path / "old")
    (tmp_path / "old" / "map.safetensors").unlink()
    old = Result.read(tmp_path / "old")
    again, why = plane_again(old, read_json(old.folder / "recipe.json"))
    assert why == ""
    assert {name: len(value) for name, value in again.items() if name.endswith("tuned")} == {
        "generated.tuned": 12, "real.tuned": 12,
    }  # fmt: skip
    moved = (again["real.tuned"] - again["real.zero_shot"]).abs().max()
    assert 0 < moved < 2
    none, why = plane_again(old, {"data": {}, "encoder": {"name": "nowhere/at-all", "revision": None}})
    assert not none
    assert why.startswith("the run kept none, and it could not be drawn again:")


def test_pictures_are_shown_only_where_they_are_the_ones_measured(result: Result, runs: Runs, tmp_path: Path) -> None:
    recipe = read_json(runs.run / "recipe.json")
    found = find_pictures(result, recipe)
    assert found.missing == []
    assert found.measured == ImageSet.read(runs.real).paths
    assert {index: len(paths) for index, paths in found.generated.items()} == {0: 4, 1: 4, 2: 4}
    other = ImageSet.read(runs.real).select(range(11))
    moved = ImageSet.write(
        tmp_path, [{**row, "path": str(other.root / row["path"])} for row in other.rows()], other.classes
    )
    changed = find_pictures(result, {"data": {"evaluation": str(moved.root), "generated": [{"path": "gone"}]}})
    assert changed.measured is None
    assert len(changed.missing) == 2
    assert "gone" in changed.missing[0]
    assert "not what it was" in changed.missing[1]


def test_a_report_without_pictures_says_why(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.run, tmp_path / "run")
    recipe = read_json(tmp_path / "run" / "recipe.json")
    recipe["data"] |= {"generated": [{"path": "gone"}], "evaluation": None}
    write_json(tmp_path / "run" / "recipe.json", recipe)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "Pictures of gone are not shown: gone does not exist." in page
    assert 'id="pictures"' not in page
    assert 'id="results"' in page


def test_several_runs_and_what_is_refused(runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(runs.run, tmp_path / "other")
    page = write_report([runs.run, tmp_path / "other"], tmp_path / "both.html").read_text(encoding="utf-8")
    assert "against run" in page
    assert "+0.0" in page
    with pytest.raises(RecipeError, match="is a comparison, which has a report of its own"):
        write_report([runs.run, runs.comparison])
    with pytest.raises(RecipeError, match="the run has not ended"):
        write_report(tmp_path)
    with pytest.raises(RecipeError, match="at least one run"):
        write_report([])


def test_the_model_card_tells_the_same(result: Result) -> None:
    card = (result.folder / "model" / "README.md").read_text(encoding="utf-8")
    assert verdict(result.summary, result.answers) in card
    assert markdown(result.summary, result.answers) in card
    for line in lines(result.summary, result.answers):
        assert line.real is not None
        assert plain_text(line.real.percent()) in card
    assert "**trained on**: generated, 12 pictures; drawn by tiny/diffusion; 3 prompts; seeds 101–112" in card
    assert "## Limitations" in card
    assert SCRIPT not in card.partition("## Made by")[0]


def test_a_set_is_described(runs: Runs, tmp_path: Path) -> None:
    told = describe(ImageSet.read(runs.generated))
    assert (told["rows"], told["kept"], told["dropped"]) == (12, 12, {})
    assert told["seeds"] == {"lowest": 101, "highest": 112, "different": 12}
    assert told["prompts"] == {"different": 3, "examples": [f"a photo of {name}" for name in NAMES]}
    assert (told["generators"], told["guidance"], told["steps"]) == ({"tiny/diffusion": 12}, [7.5], [4])
    rows = [
        {"id": str(row), "path": "x", "kept": row > 2, "rules": [["leaked"], ["blank", "leaked"], ["leaked"], []][row]}
        for row in range(4)
    ]
    dropped = describe(ImageSet.write(tmp_path, rows, []))["dropped"]
    assert dropped == {"leaked": 2, "blank, leaked": 1}


def test_thumbnails_stop_at_the_budget(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.effect_noise((300, 200), 50 + number).save(path)
    paths[1].write_bytes(b"not a picture")
    one = Thumbnails(budget=10**6).of(paths[0])
    assert one is not None
    assert (one.width, one.height) == (160, 107)
    few = Thumbnails(budget=int(2.5 * len(one.uri)))
    few.prepare(paths)
    assert [few.of(path) is not None for path in paths] == [True, False, True, False, False]
    assert (few.left_out, few.unreadable) == (2, [paths[1]])
    assert few.spent <= few.budget


def test_a_comparison_measures_the_gap_at_its_first_seed_and_tells_it(runs: Runs) -> None:
    table = read_json(runs.comparison / "table.json")
    for row in table["rows"]:
        first, second = (Result.read(runs.comparison / row["runs"][seed]).summary["gap"] for seed in ("0", "1"))
        assert set(first) == {"zero_shot", "tuned"}
        assert second == {}
    page = write_report(runs.comparison).read_text(encoding="utf-8")
    assert "told apart" in page
