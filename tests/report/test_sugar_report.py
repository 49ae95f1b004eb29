"""Reports of Sugar: every task under every reading, by place and category, what was looked up, labels, both losses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opened import WIDTHS, opened
from sugar_worlds import PLACES, TASKS, UPDATES, recipe, sugar_run

from gen2real.evaluation.statistics import Interval, paired_bootstrap
from gen2real.files import write_json
from gen2real.methods.measured import Measured
from gen2real.methods.measured_findings import verdict
from gen2real.methods.measures import Measure
from gen2real.report import write_report
from gen2real.report.curves import joint_curves
from gen2real.report.labels import labels_of
from gen2real.report.measured_report import _columns, measured_comparison, measured_runs
from gen2real.report.measured_rows import MeasuredArm, of_readings
from gen2real.report.tasks import TaskTable, Told, lookups_of, tasks_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    return sugar_run(tmp_path_factory.mktemp("sugar") / "run")


@pytest.fixture(scope="module")
def tables(run: Measured) -> dict[str, TaskTable]:
    found = tasks_of(_columns([MeasuredArm("run", "tuned", (run,))]))
    return {table.name: table for table in found}


def _rows(table: TaskTable) -> dict[str, tuple[str, list[Told | None]]]:
    return {name: (chance, list(cells)) for name, chance, cells in table.rows}


def _told(run: Measured, reading: str, key: str) -> Told:
    measure, own = Measure(key), Interval(**run.readings[reading]["measures"][key])
    return Told(measure.value(own.mean), measure.ends(own))


def test_only_tasks_with_something_to_tell_have_a_table(tables: dict[str, TaskTable]) -> None:
    assert list(tables) == [name for name in TASKS if name not in ("questions", "found")]
    assert {tuple(table.columns) for table in tables.values()} == {("base", "tuned")}


def test_places_are_told_with_their_spread_and_drawn(run: Measured, tables: dict[str, TaskTable]) -> None:
    table = tables["position"]
    rows = _rows(table)
    assert list(rows) == [*(f"relevant pair at place {k + 1}" for k in range(PLACES)), "best place less the worst"]
    for place in range(PLACES):
        cells = [_told(run, reading, f"position_accuracy_at_{place + 1}") for reading in ("base", "tuned")]
        assert rows[f"relevant pair at place {place + 1}"] == ("", cells)
    assert rows["best place less the worst"][1] == [Told("12.5\u00a0pp", "by chance 8.0, p = 0.03")] * 2
    assert table.chart is not None
    assert [(line.name, len(line.dots)) for line in table.chart.lines] == [("base", PLACES), ("tuned", PLACES)]
    assert all(line.band for line in table.chart.lines)
    assert not [one.name for one in tables.values() if one.chart is not None and one is not table]


def test_categories_controls_and_chance_stand_beside(run: Measured, tables: dict[str, TaskTable]) -> None:
    twins = _rows(tables["winoground"])
    assert [chance for chance, _ in twins.values()] == ["by chance 25.0\u00a0%"] * 2 + ["by chance 16.7\u00a0%"] + [
        "by chance 25.0\u00a0%"
    ] * 2 + ["by chance 16.7\u00a0%"]
    assert twins["group score"][1] == [_told(run, reading, "winoground_group") for reading in ("base", "tuned")]
    pope = _rows(tables["pope"])
    assert {"precision", "recall", "share of yes", "pictures whose questions are all right"} < set(pope)
    assert pope["answers that say neither yes nor no"] == ("", [Told("3 of 24")] * 2)
    assert [name for name in pope if name.startswith("adversarial")] == ["adversarial: accuracy", "adversarial: F1"]
    choices = _rows(tables["choices"])
    assert {name: chance for name, (chance, _) in choices.items()} == {
        "answers that name no option": "", "a swap": "by chance 25.0\u00a0%",
        "not a swap": "by chance 50.0\u00a0%",
    }  # fmt: skip
    assert set(_rows(tables["changes"])) == {"reference alone: R@1"}
    assert _rows(tables["stories"]) == {"median rank, story": ("", [Told("7", "of 99")] * 2)}


def test_one_task_alone_has_measures_without_its_name(run: Measured) -> None:
    readings = {}
    for name in ("base", "tuned"):
        own = run.readings[name]
        measures = {
            key.removeprefix("position_"): value
            for key, value in own["measures"].items()
            if key.startswith("position_")
        }
        readings[name] = {"details": {"position": own["details"]["position"], "notes": []}, "measures": measures}
    alone = type("Run", (), {"readings": readings})
    (table,) = tasks_of(_columns([type("Arm", (), {"first": alone})()]))
    assert len(table.rows) == PLACES + 1
    assert table.chart is not None


def test_a_lookup_is_tested_against_the_plain_model_too(run: Measured) -> None:
    tables = {table.measure.key: table for table in of_readings(run).every}
    asked = tables["questions_accuracy"]
    assert asked.against == ["base", "tuned"]
    rows = {row.name: row for row in asked.rows}
    assert [set(rows[name].tests) for name in ("base", "tuned", "own 1", "clip 1")] == [
        set(), {"base"}, {"base", "tuned"}, {"base", "tuned"},
    ]  # fmt: skip
    for name in ("own_1", "clip_1"):
        values = [run.values(reading, "questions_accuracy") for reading in (name, "tuned")]
        assert rows[name.replace("_", " ")].tests["tuned"][0] == paired_bootstrap(*values, resamples=2000)
    assert tables["pope_accuracy"].against == ["base"]
    found = lookups_of(_columns([MeasuredArm("run", "tuned", (run,))]))
    assert [(name, task, own["found"]) for name, task, own in found] == [
        ("own 1", "questions", 0.75), ("clip 1", "questions", 0.75),
    ]  # fmt: skip


def test_both_losses_their_gradients_and_their_cosine(run: Measured, tmp_path: Path) -> None:
    found = joint_curves(run.folder)
    assert found is not None
    assert [name for name, _ in found.losses] == ["next tokens (L_g)", "alike and unlike (L_d)"]
    ((group, _),) = found.conflict
    (agreement,) = found.agreements
    assert (group, agreement.pair, agreement.updates) == ("the adapters", "L_g and α·L_d", UPDATES)
    assert [agreement.against, agreement.mean] == pytest.approx([0.25, 0.05])
    assert found.lengths is not None
    assert [line.name for line in found.lengths.lines] == ["L_g", "α·L_d"]
    assert "L_g from 1 to 1; α·L_d from 0.25 to 0.25" in found.lengths.summary
    # Plain tuning logs L_g alone, which is the loss: the usual curve says it.
    rows = [{"stage": "sugar", "step": step, "loss": 1.0, "L_g": 1.0} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert joint_curves(tmp_path) is None


def test_labels_are_told_as_the_recipe_has_them(run: Measured, tmp_path: Path) -> None:
    found = labels_of(run.folder, run.summary)
    assert found is not None
    facts = dict(found.facts)
    assert facts["pictures against sentences"] == "clip"
    assert facts["pictures among each other"].startswith("dino ")
    assert facts["sentences among each other"] == "clip, its text tower"
    assert facts["prefixes"] == "global alignment kernel, δ = 0.5, the mean over alignments"
    assert (
        facts["to begin with"]
        == "whitened states and 2,000 updates of the head alone, from the states of 1,000 samples"
    )
    assert found.branches[1] == ("picture and text", 1.625, 0.125)
    assert found.calibrated_to == (1.0, 0.2)

    def told(**changes: Any) -> Any:
        write_json(tmp_path / "recipe.json", recipe(**changes))
        return labels_of(tmp_path, {"method": "sugar"})

    assert told(weight=0.0) is None
    assert labels_of(tmp_path / "nowhere", {"method": "sugar"}) is None
    assert dict(told(local="joint").facts)["pictures among each other"] == "clip"
    assert "mean cosine" in dict(told(alignment="mean").facts)["prefixes"]
    assert told().calibrated_to is None


def test_samples_are_the_first_of_every_task(run: Measured) -> None:
    samples = measured_runs([run.folder])["samples"]
    assert len(samples) == 24
    assert [len(one.shown) for one in samples] == [1] * 12 + [6] * 12
    assert [one.further for one in samples] == [0] * 12 + [2] * 12
    assert list(samples[0].texts) == ["base, clip 1", "tuned", "own 1"]


def test_arms_stand_side_by_side(run: Measured) -> None:
    """Two arms of one run: the tuned model, and the same with what it looked up."""
    rows: list[dict[str, Any]] = []
    for arm, reading in (("Sugar", "tuned"), ("looked up", "own_1")):
        measures = {key: {"interval": own, "against": {}} for key, own in run.readings[reading]["measures"].items()}
        rows.append({"arm": arm, "size": None, "reading": reading, "seeds": 1, "measures": measures, "note": "",
                     "runs": {"0": run.folder.name}})  # fmt: skip
    facts = measured_comparison(run.folder.parent, {"against": [], "rows": rows})
    assert "each measured on 24 items." in facts["lead"][0]
    assert {table.name: table.columns for table in facts["tasks"]}["pope"] == ["Sugar"]
    assert [(name, task) for name, task, _ in facts["lookups"]] == [("looked up", "questions")]
    assert facts["labels"] is None
    assert [panel["joint"] is not None for panel in facts["panels"]] == [True, True]


def test_what_did_not_change_is_told_of_items(run: Measured) -> None:
    values = {**run.all_values, "tuned/pope_accuracy": run.values("base", "pope_accuracy")}
    assert "Item by item the same: accuracy, pope " in verdict(run.summary, values)
    assert "icture by picture" not in verdict(run.summary, values)


@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_and_says_everything_once(browser: Any, run: Measured, width: int) -> None:
    with opened(browser, write_report(run.folder), width=width, scheme="dark" if width < 400 else "light") as found:
        for details in found.page.query_selector_all("summary"):
            details.click()
        assert found.faults() == []
        assert min(found.contrasts().values()) >= 4.5
        assert found.page.locator("main script, main b").count() == 0
        leading = found.page.get_by_role("region", name="Leading measures")
        assert leading.locator("thead th").all_inner_texts()[1:3] == ["base", "tuned headline"]
        assert leading.locator("tbody tr").count() == 9
        assert found.page.locator("#tasks table").count() == 6 + 1
        assert found.page.locator("#labels tbody tr").count() == 2
        assert found.page.locator("#losses svg.chart").count() == 4
        assert "real pictures" not in found.page.inner_text("main")
        assert "lines" in found.page.inner_text("#provenance")
    assert found.said == []
    assert found.asked == []
