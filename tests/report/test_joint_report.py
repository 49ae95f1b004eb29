"""Reports of two models trained together: what collapsed, what was drawn, which losses fought; and what is better."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joint_worlds import ARMS, EVERY, MEASURES, UPDATES, joint_run, panel_at
from measured_worlds import MeasuredRuns
from odd_worlds import SCRIPT
from opened import WIDTHS, opened

from gen2real.evaluation.statistics import Interval, PairedTest
from gen2real.files import read_json, write_json
from gen2real.imagesets import ImageSet
from gen2real.methods.measured import Measured
from gen2real.methods.measured_findings import markdown
from gen2real.methods.measures import Measure
from gen2real.report import write_report
from gen2real.report.collapse import Told, collapse_of, ends_of_arms
from gen2real.report.curves import joint_curves, loss_curve
from gen2real.report.drawn import drawn_of
from gen2real.report.further import counts, further
from gen2real.report.measured_report import _figures, measured_comparison
from gen2real.report.measured_rows import MeasuredRow, MeasureTable, Tables, of_comparison, of_readings
from gen2real.report.thumbnails import Thumbnails


@pytest.fixture(scope="module")
def pages(measured: MeasuredRuns) -> dict[str, Path]:
    return {name: write_report(getattr(measured, name)) for name in ("joint", "joints", "aligned")}


def _ends(line: str) -> list[list[float]]:
    return [[float(number) for number in point.split(",")] for point in line.split()]


def test_the_panel_is_told_as_it_was_measured(measured: MeasuredRuns) -> None:
    found = collapse_of(Measured.read(measured.joint).summary)
    assert found is not None
    rows = {row.name: row for row in found.rows}
    assert found.of == "64 pictures, 60 different texts"
    assert list(rows)[:2] == ["effective rank of pictures", "effective rank of captions"]
    rank = rows["effective rank of pictures"]
    assert (rank.before, rank.after) == (Told("24.5"), Told("12.2"))
    assert rows["uniformity of pictures"].before == Told("−2.500")
    assert rows["top-1, general"].after == Told("40.0\u00a0%", "[30.0, 50.0]")
    assert "median rank" not in rows
    assert all(row.meaning for row in found.rows)


def test_the_panels_chart_has_a_point_an_end_and_one_each_time_between(measured: MeasuredRuns) -> None:
    found = collapse_of(Measured.read(measured.joint).summary)
    assert found is not None
    chart = next(row.chart for row in found.rows if row.name == "top-1, general")
    assert chart is not None
    (line,) = chart.lines
    told = [told for _, _, told in line.dots]
    assert len(told) == UPDATES // EVERY + 1
    assert told[0] == "update 0: 50.0\u00a0%"
    assert told[-1] == f"update {UPDATES}: 40.0\u00a0%"
    places = _ends(line.line)
    assert np.diff([x for x, _ in places]) == pytest.approx((chart.right - chart.left) / 10, abs=0.11)
    assert places[0][1] < places[-1][1]  # down is less
    assert line.band


def test_a_panel_that_is_not_there_is_not_told(measured: MeasuredRuns) -> None:
    summary = Measured.read(measured.joint).summary
    assert collapse_of({**summary, "collapse": None}) is None
    assert collapse_of(Measured.read(measured.aligned).summary) is None
    only_after = collapse_of({**summary, "collapse": {"after": {"modality_gap": 0.5}}})
    assert only_after is not None
    (row,) = only_after.rows
    assert (row.before, row.after, row.chart) == (None, Told("0.500"), None)
    assert ends_of_arms([("one", [{"collapse": {}}])]) is None


def test_arms_are_told_by_the_mean_and_the_ends_of_their_seeds() -> None:
    seeds = [{"collapse": {"before": panel_at(0, 0), "after": panel_at(1, fall)}} for fall in (0.2, 0.4)]
    found = ends_of_arms([("first", seeds), ("without", [{}]), ("second", seeds[:1])])
    assert found is not None
    assert [name for name, _ in found.rows] == ["before training", "first", "second"]
    place = [name for name, _ in found.names].index("effective rank of pictures")
    assert [cells[place] for _, cells in found.rows] == [
        Told("24.5"), Told("17.1", "[14.7, 19.6]"), Told("19.6"),
    ]  # fmt: skip


def test_losses_are_drawn_apart_and_cosines_counted(measured: MeasuredRuns) -> None:
    found = joint_curves(measured.joint)
    assert found is not None
    assert [name for name, _ in found.losses] == [
        "contrastive (ITC)", "synthesis (IS)", "reciprocal consistency (RSC)",
    ]  # fmt: skip
    assert len(_ends(found.losses[0][1].lines[0].line)) == UPDATES // 10
    assert [group for group, _ in found.conflict] == ["the text encoder", "the denoiser"]
    (text, _) = (chart for _, chart in found.conflict)
    assert [line.name for line in text.lines] == ["ITC and IS", "ITC and RSC"]
    assert any(tick.label == "0" for tick in text.y_ticks)
    first = found.agreements[0]
    assert (first.group, first.pair, first.updates) == ("the text encoder", "ITC and IS", UPDATES // 10)
    # Two of five are −0.1, the others 0.2.
    assert [first.against, first.mean] == pytest.approx([0.4, 0.08])
    assert found.together == 1
    assert joint_curves(measured.aligned) is None
    whole = loss_curve(measured.joint)
    assert whole is not None
    assert [line.name for line in whole.lines] == ["loss, heads", "loss, joint"]


def test_many_updates_are_drawn_by_their_means(tmp_path: Path) -> None:
    lines = [f'{{"stage": "joint", "step": {step}, "loss": 1, "itc": {step % 3}}}\n' for step in range(1, 181)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"stage": "joint", "st')
    found = joint_curves(tmp_path)
    assert found is not None
    assert found.together == 3
    heights = {y for _, y in _ends(found.losses[0][1].lines[0].line)}
    assert len(heights) == 1  # of 0, 1, 2 the mean is 1, whatever comes first
    assert not found.conflict


def test_only_pictures_of_the_run_are_put_into_a_page(measured: MeasuredRuns) -> None:
    runs = [("one", measured.joint, Measured.read(measured.joint).summary)]
    found = drawn_of(runs, Thumbnails(budget=10**6))
    assert found is not None
    assert [len(row.after) for row in found.rows] == [1] * 6
    assert [row.after[0].thumb is not None for row in found.rows if row.after[0]] == [True] * 4 + [False] * 2
    assert all(row.before.thumb is not None for row in found.rows)
    assert [row.seed for row in found.rows] == [str(90 + number) for number in range(6)]
    assert drawn_of([("one", measured.aligned, Measured.read(measured.aligned).summary)], Thumbnails(budget=1)) is None


def test_arms_draw_side_by_side(measured: MeasuredRuns) -> None:
    summary = Measured.read(measured.joint).summary
    fewer = {**summary, "drawn": summary["drawn"][:2]}
    found = drawn_of(
        [("one", measured.joint, fewer), ("none", measured.joint, {}), ("two", measured.joint, summary)],
        Thumbnails(budget=10**6),
    )
    assert found is not None
    assert found.arms == ["one", "two"]
    assert [one is not None for one in found.rows[0].after] == [True, True]
    assert [one is not None for one in found.rows[2].after] == [False, True]


def test_an_arm_of_the_model_as_it_was_has_no_training_under_its_name(measured: MeasuredRuns, tmp_path: Path) -> None:
    table = read_json(measured.joints / "table.json")
    untrained = {**table["rows"][0], "arm": "as it was", "reading": "original"}
    table["rows"] = [untrained, *table["rows"][:2]]
    facts = measured_comparison(measured.joints, table)
    assert facts["drawn"].arms == list(ARMS[:2])
    assert [name for name, _ in facts["ends"].rows] == ["before training", *ARMS[:2]]
    assert [panel["collapse"] is None for panel in facts["panels"]] == [True, False, False]
    assert [panel["joint"] is None for panel in facts["panels"]] == [True, False, False]


def _test(difference: float, spread: float = 0.01) -> PairedTest:
    return PairedTest(difference, difference - spread, difference + spread, 0.001, 9, 1, 0.95)


def test_lower_is_better_where_it_is() -> None:
    distance, recall = (
        MeasureTable(Measure(key), [], [], 0, 1) for key in ("kernel_distance", "text_to_image_recall@1")
    )
    assert [one.weighed((_test(-0.1), 0.001)) for one in (distance, recall)] == ["better", "worse"]
    assert [one.weighed((_test(0.1), 0.001)) for one in (distance, recall)] == ["worse", "better"]
    assert distance.weighed((_test(0.1, 0.2), 0.001)) == ""
    assert distance.weighed((_test(0.1), 0.3)) == ""  # by its p-value after correction
    assert [distance.end(value) for value in (0.01, 0.015, 0.0, 0.1)] == ["1", "1.5", "0", "10"]
    assert distance.measure.ends(Interval(0.1, -0.678, 1.0, 9, 0.95)) == "[−67.8, 100.0]"
    assert [recall.end(value) for value in (0.0, 0.8, 1.0)] == ["0\u00a0%", "80\u00a0%", "100\u00a0%"]


def test_small_measures_have_a_scale_of_their_own(measured: MeasuredRuns) -> None:
    tables = {table.measure.key: table for table in of_readings(Measured.read(measured.joint)).every}
    assert set(tables) == set(MEASURES)
    distance = tables["kernel_distance"]
    ends = [end for row in distance.rows if row.interval for end in (row.interval.low, row.interval.high)]
    assert distance.low <= min(ends) < max(ends) <= distance.top < 0.05
    assert tables["text_to_image_recall@1"].top >= 0.1


def test_the_page_and_the_card_say_what_is_better(measured: MeasuredRuns, pages: dict[str, Path]) -> None:
    result = Measured.read(measured.joint)
    page, card = pages["joint"].read_text(encoding="utf-8"), markdown(result.summary, result.all_values)
    for told in (page, card):
        assert "Kernel distance, where lower is better, is" in told
    assert "kernel distance: lower is better" in page
    assert "kernel distance ↓" in card
    assert "Of measures with ↓ lower is better." in card
    assert "Of measures with ↓ lower is better." in page
    tuned = next(row for row in of_readings(result).leading[-1].rows if row.is_headline)
    (test, _) = tuned.tests["original"]
    assert test.high < 0
    drop = Measure("kernel_distance").change(test).partition(" [")[0]
    assert drop.startswith("−")
    shown = page.partition("kernel distance: lower is better")[2]
    assert re.search(rf'{drop} <span class="interval">[^<]*</span><small>[^<]*<span class="better">better', shown)


def test_a_distance_is_always_among_the_figures() -> None:
    row = MeasuredRow("tuned", "", "result", Interval(0.5, 0.4, 0.6, 9, 0.95), {}, is_headline=True)
    keys = ["image_to_text_recall@1", "text_to_image_recall@1", "top1", "accuracy", "kernel_distance"]
    tables = [MeasureTable(Measure(key), [row], [], 0, 1) for key in keys]

    def told(leading: list[MeasureTable]) -> list[str]:
        return [one["name"].partition(",")[0] for one in _figures(Tables(leading, leading, "reading", False))]

    recalls = ["R@1 picture → text", "R@1 text → picture", "top-1"]
    assert told(tables) == [*recalls, "kernel distance ↓"]
    assert told(tables[:4]) == [*recalls, "accuracy"]
    assert told(tables[-2:]) == ["accuracy", "kernel distance ↓"]


def test_what_has_no_interval_is_told_apart() -> None:
    fine = {"retrieval": {"image_to_text": {"gallery": 9, "median_rank": 2.5}, "text_to_image": {"gallery": 5}}}
    drawn = {"synthesis": {"fid": {"distance": 12.345}, "cmmd": None, "pictures": 4, "dimension": 8}, "notes": ["x"]}
    assert further([{**fine, **drawn}, {}]) == [("median rank picture → text", ["2.5", "–"]), ("FID", ["12.3", "–"])]
    classes = {"classification": {"pictures": 7, "classes": 3}}
    assert counts({**fine, **drawn, **classes}) == (
        "5 pictures and 9 texts (retrieval), 4 pictures (synthesis), 7 pictures and 3 classes (classification)"
    )


def test_a_comparison_marks_what_is_better_by_its_corrected_p_value(measured: MeasuredRuns) -> None:
    table = read_json(measured.joints / "table.json")
    distance = next(one for one in of_comparison(table, {}).every if one.measure.key == "kernel_distance")
    assert distance.against == list(ARMS[:2])
    last = distance.rows[-1].tests[ARMS[0]]
    assert last[0].difference < 0
    assert distance.weighed(last) == "better"
    assert distance.weighed((last[0], 0.2)) == ""


def test_old_runs_have_none_of_these_sections(pages: dict[str, Path]) -> None:
    page = pages["aligned"].read_text(encoding="utf-8")
    assert not [name for name in ("collapse", "drawn", "losses") if f'id="{name}"' in page]
    assert 'id="training"' in page


def test_a_run_that_kept_only_the_half_is_told_as_far_as_it_goes(measured: MeasuredRuns, tmp_path: Path) -> None:
    run = joint_run(tmp_path / "run", ImageSet.read(measured.real))
    summary = {key: own for key, own in run.summary.items() if key != "drawn"}
    write_json(run.folder / "result.json", {**summary, "collapse": {"before": {"modality_gap": 0.5}, "after": {}}})
    (run.folder / "metrics.jsonl").unlink()
    page = write_report(run.folder).read_text(encoding="utf-8")
    assert 'id="collapse"' in page
    assert not [name for name in ("drawn", "losses", "training") if f'id="{name}"' in page]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("of", ["joint", "joints"])
def test_it_opens_and_all_twelve_measures_are_legible(
    browser: Any, pages: dict[str, Path], of: str, width: int
) -> None:
    with opened(browser, pages[of], width=width, scheme="dark" if width < 400 else "light") as found:
        for details in found.page.query_selector_all("summary"):
            details.click()
        assert found.faults() == []
        assert min(found.contrasts().values()) >= 4.5
        assert found.page.locator("main script, main b").count() == 0
        assert found.page.locator(".trio svg.chart").count() > 0
        table = found.page.get_by_role("region", name="Every measure")
        assert table.locator("tbody tr").count() == len(MEASURES)
        # Whichever way it is moved, the first column says which line it is.
        table.evaluate("(one) => { one.scrollLeft = 10000; }")
        first, box = table.locator("tbody th").first.bounding_box(), table.bounding_box()
        assert first["x"] == pytest.approx(box["x"], abs=1)
        assert first["width"] < 0.5 * box["width"]
    assert found.said == []
    assert found.asked == []


def test_each_group_of_buttons_shows_its_own_panels(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["joints"]) as found:
        shown = {name: found.page.locator(f"#{name} .panel:not([hidden])") for name in ("collapse", "losses")}
        assert [one.count() for one in shown.values()] == [1, 1]
        found.page.locator("#collapse").get_by_role("button", name="IS only").click()
        assert shown["collapse"].get_attribute("aria-label") == "IS only"
        assert shown["losses"].get_attribute("aria-label") == ARMS[-1]
        assert found.page.locator("#drawn img").count() == 4 * (1 + len(ARMS)) + 2
        assert SCRIPT in found.page.inner_text("#drawn")
