"""Reports of measured runs: what they say, worked out again by hand, and how they look in a real browser."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from measured_worlds import MeasuredRuns, aligned_run
from odd_worlds import SCRIPT, Runs
from opened import WIDTHS, opened

from gen2real.errors import RecipeError
from gen2real.evaluation.statistics import Interval, paired_bootstrap
from gen2real.files import read_json
from gen2real.imagesets import ImageSet
from gen2real.methods.measured import Measured
from gen2real.methods.measured_findings import limitations, lines, markdown, verdict
from gen2real.methods.measures import Measure, leading
from gen2real.models.card import plain_text
from gen2real.report import write_report
from gen2real.report.charts import Point, Series, interval_chart, line_chart
from gen2real.report.measured_rows import MeasuredArm, of_comparison, of_readings, of_runs, scaling_curves
from gen2real.report.set_pictures import SetPictures
from gen2real.report.thumbnails import Thumbnails


@pytest.fixture(scope="module")
def pages(measured: MeasuredRuns) -> dict[str, Path]:
    return {name: write_report(getattr(measured, name)) for name in ("aligned", "captioner", "comparison")}


@pytest.mark.parametrize(
    ("key", "name", "written"),
    [
        ("image_to_text_recall@1", "R@1 picture → text", "41.3\u00a0%"),
        ("long_text_to_image_recall@10", "R@10 text → picture, long", "41.3\u00a0%"),
        ("cider", "CIDEr-D", "41.3"),
        ("top1", "top-1", "41.3\u00a0%"),
        ("some_thing", "some thing", "41.3\u00a0%"),
    ],
)
def test_measures_are_written_as_the_field_does(key: str, name: str, written: str) -> None:
    measure = Measure(key)
    assert (measure.name, measure.value(0.4132)) == (name, written)
    assert measure.interval(Interval(0.4132, 0.1, 0.5, 9, 0.95)) == f"{written} [10.0, 50.0]"


def test_recall_at_1_leads_both_ways() -> None:
    keys = ["image_to_text_recall@5", "text_to_image_recall@1", "image_to_text_recall@1", "top1"]
    assert leading(keys) == ["image_to_text_recall@1", "text_to_image_recall@1", "top1"]
    assert leading(["meteor", "spice"]) == ["meteor"]
    assert leading([]) == []


def test_each_reading_is_tested_against_the_baseline(measured: MeasuredRuns) -> None:
    result = Measured.read(measured.aligned)
    tables = of_readings(result)
    assert [table.measure.key for table in tables.leading] == ["image_to_text_recall@1", "text_to_image_recall@1"]
    assert len(tables.every) == 4
    key = "text_to_image_recall@1"
    rows = {row.name: row for row in tables.leading[1].rows}
    assert [name for name, row in rows.items() if row.is_headline] == ["f_r"]
    assert not rows["baseline"].tests
    for reading in ("f_r", "f_g"):
        expected = paired_bootstrap(result.values(reading, key), result.values("baseline", key), resamples=2000)
        assert rows[reading].tests["baseline"][0] == expected
    ends = [end for row in rows.values() if row.interval for end in (row.interval.low, row.interval.high)]
    assert tables.leading[1].low <= min(ends) < max(ends) <= tables.leading[1].top


def test_an_equal_reading_is_said_to_be_equal(measured: MeasuredRuns) -> None:
    result = Measured.read(measured.aligned)
    values = result.all_values | {
        f"f_r/{key}": result.values("baseline", key) for key in result.measures("baseline")
    }  # fmt: skip
    assert verdict(result.summary, values).count("picture by picture the two are equal") == 2
    assert "equal" not in verdict(result.summary, result.all_values)
    assert "difference" not in verdict(result.summary)


def test_the_card_tells_the_same_as_the_page(measured: MeasuredRuns, pages: dict[str, Path]) -> None:
    result = Measured.read(measured.aligned)
    card = markdown(result.summary, result.all_values)
    page = pages["aligned"].read_text(encoding="utf-8")
    for line in lines(result.summary, result.all_values):
        for key, interval in line.measures.items():
            assert plain_text(Measure(key).interval(interval)) in card
            assert Measure(key).value(interval.mean) in page
    assert "**f&#95;r**" in card
    assert SCRIPT not in card
    assert str(measured.real) not in card
    for told in limitations(result.summary):
        assert told in page


def test_only_runs_on_the_same_pictures_are_tested(measured: MeasuredRuns, tmp_path: Path) -> None:
    generated, real = ImageSet.read(measured.generated), ImageSet.read(measured.real)
    one, two = (MeasuredArm(name, "f_r", (Measured.read(measured.aligned),)) for name in ("one", "two"))
    tested = of_runs([one, two]).every[0].rows[1].tests["one"][0]
    assert (tested.difference, tested.p_value) == (0, 1)
    elsewhere = aligned_run(tmp_path / "other", generated, generated)
    assert not of_runs([one, MeasuredArm("other", "f_r", (elsewhere,))]).every[0].rows[1].tests
    assert real.fingerprint != generated.fingerprint


def test_a_comparison_has_a_dot_a_seed_and_a_curve(measured: MeasuredRuns) -> None:
    table = read_json(measured.comparison / "table.json")
    row = table["rows"][1]
    results = [Measured.read(measured.comparison / run) for run in row["runs"].values()]
    name = f"{row['arm']}, 500 pictures"
    shown = of_comparison(table, {name: MeasuredArm(name, "f_r", tuple(results))}).leading[0].rows[1]
    assert shown.name == name
    assert shown.seeds == [one.values("f_r", "image_to_text_recall@1").mean() for one in results]
    stored = row["measures"]["image_to_text_recall@1"]
    assert shown.interval == Interval(**stored["interval"])
    assert shown.tests["text only"][1] == stored["against"]["text only"]["p_value_holm"]
    curves = scaling_curves(table["scaling"])
    assert [measure.key for measure, _ in curves] == ["image_to_text_recall@1", "text_to_image_recall@1"]
    chart = curves[0][1]
    assert [tick.label for tick in chart.x_ticks] == ["500", "1,000", "4,000"]
    across = [tick.place for tick in chart.x_ticks]
    assert (across[1] - across[0]) / (across[2] - across[0]) == pytest.approx(math.log(2) / math.log(8), abs=1e-3)
    assert [len(line.dots) for line in chart.lines] == [3, 3]
    told = Measure("image_to_text_recall@1").interval(Interval(**stored["interval"]))
    assert chart.lines[1].dots[0][2] == f"500 pictures: {told}"


def test_long_tick_labels_have_room() -> None:
    points = [Point(0, 0.0725, 0.0725, 0.0725, "a"), Point(8, 0.083, 0.083, 0.083, "b")]
    chart = line_chart([Series("loss", "real", points)], x_label="update", y_label="loss", summary="")
    assert max(len(tick.label) for tick in chart.y_ticks) == 6
    assert chart.left == 46 + 2 * 7
    assert chart.lines[0].line.split()[0].startswith(f"{chart.left:g},")


def test_intervals_lie_where_their_numbers_are() -> None:
    drawn = interval_chart(
        [("before", [("a", "real", Interval(0.5, 0.0, 1.0, 9, 0.95))])], x_label="cosine", summary="told"
    )
    bar, ticks = drawn.bars[0], drawn.x_ticks
    assert (ticks[0].label, ticks[-1].label) == ("0", "1")
    assert (bar.x_low, bar.x_high) == (ticks[0].place, ticks[-1].place)
    assert bar.x == pytest.approx((bar.x_low + bar.x_high) / 2, abs=0.1)


def test_pictures_of_a_changed_set_are_not_shown(measured: MeasuredRuns, tmp_path: Path) -> None:
    summary = Measured.read(measured.aligned).summary
    thumbs, name = Thumbnails(budget=10**6), ImageSet.read(measured.real).ids[0]
    found = SetPictures(summary["sets"])
    assert found.shown("real", name, "a picture", thumbs).thumb is not None
    assert found.shown("real", "nobody", "a picture", thumbs).thumb is None
    assert found.missing == []
    changed = SetPictures([{**one, "fingerprint": "other"} for one in summary["sets"]])
    assert changed.shown("real", name, "a picture", thumbs).thumb is None
    assert [told.partition(" is not what it was")[1] for told in changed.missing] == [" is not what it was"] * 2
    gone = SetPictures([{**summary["sets"][0], "manifest": str(tmp_path / "gone")}])
    assert gone.of_set(str(tmp_path / "gone"), name, "a picture", thumbs).thumb is None
    assert "gone does not exist" in gone.missing[0]


def test_runs_of_two_sorts_are_refused(runs: Runs, measured: MeasuredRuns) -> None:
    with pytest.raises(RecipeError, match="they have no common column"):
        write_report([measured.aligned, runs.run])


def test_a_comparison_without_its_runs_tells_its_numbers(measured: MeasuredRuns, tmp_path: Path) -> None:
    shutil.copy(measured.comparison / "table.json", tmp_path)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "6 of 6 arms have no runs beside the table" in page
    assert 'id="scaling"' in page
    assert 'id="alignment"' not in page


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("of", ["aligned", "captioner", "comparison"])
def test_it_opens_and_nothing_overlaps(browser: Any, pages: dict[str, Path], of: str, width: int) -> None:
    with opened(browser, pages[of], width=width, scheme="dark" if width < 400 else "light") as found:
        assert found.faults() == []
        for details in found.page.query_selector_all("summary"):
            details.click()
        assert found.faults() == []
        assert min(found.contrasts().values()) >= 4.5
        assert found.page.locator("main script, main b").count() == 0
        unnamed = found.page.eval_on_selector_all("svg", "all => all.filter((one) => !one.ariaLabel).length")
        assert unnamed == 0
    assert found.said == []
    assert found.asked == []


def test_partners_and_samples_are_pictures(browser: Any, pages: dict[str, Path]) -> None:
    with opened(browser, pages["aligned"]) as found:
        assert found.page.locator(".triples img").count() == 12
        assert found.page.locator(".triples .missed img").count() == 1
        assert found.page.locator("#alignment svg.map").count() == 2
    with opened(browser, pages["captioner"]) as found:
        assert found.page.locator(".text img").count() == 3
        assert found.page.inner_text(".text .absent") == "real picture gone: not shown"
        assert f"a square {SCRIPT}" in found.page.inner_text("#samples")
    with opened(browser, pages["comparison"]) as found:
        panels = found.page.locator(".panel:not([hidden])")
        assert panels.count() == 1
        found.page.get_by_role("button", name="text only, 500 pictures").click()
        assert panels.get_attribute("aria-label") == "text only, 500 pictures"
