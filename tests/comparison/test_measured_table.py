"""The table of measures: every number worked out again from the values that the runs were given."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measured_runs import measured, plan_of

from gen2real.comparison import MeasuredRow, MeasuredTable, tabulate
from gen2real.comparison.measured_table import check_reading
from gen2real.comparison.plan import Plan
from gen2real.errors import RecipeError
from gen2real.evaluation.statistics import bootstrap_interval, holm, paired_bootstrap, seed_interval
from gen2real.methods.measured import Measured
from gen2real.methods.measures import Measure

I2T, T2I, FIVE = "image_to_text_recall@1", "text_to_image_recall@1", "text_to_image_recall@5"
ARMS: dict[str, Any] = {
    "baseline": {"reading": "baseline"},
    "unaligned": {"note": "the control"},
    "aligned": {},
    "aligned, f_g": {"reading": "f_g"},
}
PICTURES = 12


@dataclass(frozen=True)
class Found:
    """A table, and the values behind it: row → reading → measure → [S N]."""

    plan: Plan
    values: dict[str, dict[str, dict[str, np.ndarray]]]
    runs: dict[tuple[str, int], Measured]
    table: MeasuredTable

    @property
    def rows(self) -> dict[str, MeasuredRow]:
        return {row.arm: row for row in self.table.rows}


def found(folder: Path, arms: dict[str, Any], **more: Any) -> Found:
    plan = plan_of(folder, arms, **more)
    random = np.random.default_rng(5)
    values: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    runs = {}
    for number, row in enumerate(plan.arms):
        values[row] = {
            reading: {key: random.random((2, PICTURES)) + number / 9 for key in (FIVE, T2I, I2T)}
            for reading in ("baseline", "f_r", "f_g")
        }
        for seed in (0, 1):
            own = {reading: {key: of[seed] for key, of in one.items()} for reading, one in values[row].items()}
            runs[row, seed] = measured(folder / "runs" / f"{number}-{seed}", own, seconds=10.0 + seed)
    seconds = {place: run.summary["cost"]["training_seconds"] for place, run in runs.items()}
    table = tabulate(plan, runs, seconds, dict.fromkeys(plan.arms, Path("real")))
    assert isinstance(table, MeasuredTable)
    return Found(plan, values, runs, table)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return found(tmp_path_factory.mktemp("four"), ARMS, against=["baseline", "unaligned"])


def test_every_number_is_that_of_the_values(four: Found) -> None:
    assert list(four.rows) == list(ARMS)
    assert set(four.table.measures) == {I2T, T2I}  # recall@5 is no primary one
    for name, reading in [("baseline", "baseline"), ("unaligned", "f_r"), ("aligned", "f_r"), ("aligned, f_g", "f_g")]:
        row = four.rows[name]
        assert (row.reading, row.seeds, row.size, row.of, row.method) == (reading, 2, None, name, "gmail")
        assert row.seconds == 10.5
        for key in (I2T, T2I):
            values = four.values[name][reading][key]
            assert row.measures[key] == bootstrap_interval(values)
            assert row.measures[key].mean == pytest.approx(values.mean())
            assert row.over_seeds[key] == seed_interval(values.mean(axis=1))
    assert four.rows["unaligned"].note == "the control"
    assert four.rows["aligned"].runs == {0: "runs/2-0", 1: "runs/2-1"}


def test_measures_of_one_reading_may_be_of_different_pictures(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    counts = {I2T: 12, "kernel_distance": 7, "diversity": 3, "general_top1": 30}
    plan = plan_of(tmp_path, {"one": {}, "two": {}}, against=["one"], measures=list(counts))
    values = {
        (row, seed): {key: random.random(count) for key, count in counts.items()}
        for row in plan.arms
        for seed in (0, 1)
    }
    runs = {
        place: measured(tmp_path / "runs" / f"{place[0]}-{place[1]}", {"tuned": own}, headline="tuned")
        for place, own in values.items()
    }
    table = tabulate(plan, runs, dict.fromkeys(runs, 1.0), dict.fromkeys(plan.arms, Path("real")))
    assert isinstance(table, MeasuredTable)
    for key, count in counts.items():
        one, two = (np.stack([values[row, seed][key] for seed in (0, 1)]) for row in ("one", "two"))
        assert table.rows[1].measures[key] == bootstrap_interval(two)
        test, _ = table.rows[1].tests["one"][key]
        assert test == paired_bootstrap(two, one)
        assert test.count == count


def test_tests_are_paired_and_corrected_over_the_rows_measure_by_measure(four: Found) -> None:
    readings = {"baseline": "baseline", "unaligned": "f_r", "aligned": "f_r", "aligned, f_g": "f_g"}
    for reference in ("baseline", "unaligned"):
        others = [name for name in ARMS if name != reference]
        for key in (I2T, T2I):
            pairs = [
                paired_bootstrap(
                    four.values[name][readings[name]][key], four.values[reference][readings[reference]][key]
                )
                for name in others
            ]
            corrected = holm([test.p_value for test in pairs])
            told = [four.rows[name].tests[reference][key] for name in others]
            assert told == list(zip(pairs, corrected, strict=True))
        assert reference not in four.rows[reference].tests


def test_asked_for_measures_are_the_columns(four: Found, tmp_path: Path) -> None:
    asked = found(tmp_path / "asked", ARMS, measures=[FIVE])
    assert asked.table.measures == (FIVE,)
    assert set(asked.rows["aligned"].measures) == {FIVE}
    with pytest.raises(RecipeError, match=f"measures: given 'text_to_image_recall@2'.*did you mean {FIVE[:-1]}"):
        found(tmp_path / "unknown", ARMS, measures=["text_to_image_recall@2"])


def test_the_three_forms_say_the_same(four: Found) -> None:
    stored = json.loads(json.dumps(four.table.to_json(), allow_nan=False))
    assert set(stored) == {"version", "kind", "against", "measures", "rows"}
    assert stored["kind"] == "measures"
    assert set(stored["rows"][2]) == {
        "arm", "size", "method", "reading", "seeds", "measures", "training_seconds_a_seed", "note", "runs",
    }  # fmt: skip
    lines = list(csv.DictReader(four.table.comma_separated().splitlines()))
    for line, row in zip(lines, stored["rows"], strict=True):
        assert (line["arm"], line["size"], line["reading"]) == (row["arm"], "", row["reading"])
        for key in (I2T, T2I):
            own = row["measures"][key]
            assert float(line[key]) == own["interval"]["mean"]
            assert float(line[f"{key}_low"]) == own["interval"]["low"]
            tested = own["against"].get("baseline")
            expected = "" if tested is None else str(tested["p_value_holm"])
            assert line[f"{key}_p_holm_to_baseline"] == expected
    drawn = four.table.markdown().splitlines()
    assert len(drawn) == 2 + len(ARMS)
    heads, cells = four.table.cells(T2I)
    assert heads == ["arm", "seeds", Measure(T2I).name, "against baseline", "against unaligned"]
    test, corrected = four.rows["aligned"].tests["unaligned"][T2I]
    assert cells[2][4] == f"{100 * test.difference:+.1f} (p {corrected:.2g})".replace("-", "−")
    assert cells[0][3] == "–"


def test_sizes_are_tested_against_their_own_size_and_make_a_curve(tmp_path: Path) -> None:
    arms = {"baseline": {"reading": "baseline"}, "unaligned": {}, "aligned": {}}
    sized = found(tmp_path, arms, sizes=[8, 32], scaled=["unaligned", "aligned"], against=["baseline", "unaligned"])
    assert list(sized.rows) == ["baseline", "unaligned @ 8", "unaligned @ 32", "aligned @ 8", "aligned @ 32"]
    ours, theirs = (sized.values[f"{name} @ 32"]["f_r"][T2I] for name in ("aligned", "unaligned"))
    row = sized.rows["aligned @ 32"]
    assert row.tests["unaligned"][T2I][0] == paired_bootstrap(ours, theirs)
    zero = sized.values["baseline"]["baseline"][T2I]
    assert row.tests["baseline"][T2I][0] == paired_bootstrap(ours, zero)
    assert sized.rows["baseline"].tests == {}
    assert set(sized.rows["unaligned @ 8"].tests) == {"baseline"}
    # Two sizes of one arm: Holm over the two tests of a measure.
    raw = [sized.rows[f"aligned @ {size}"].tests["unaligned"][T2I] for size in (8, 32)]
    assert [corrected for _, corrected in raw] == holm([test.p_value for test, _ in raw])
    stored = sized.table.to_json()
    assert [(row["arm"], row["size"]) for row in stored["rows"]][2:4] == [("unaligned", 32), ("aligned", 8)]
    curve = [(one["arm"], one["size"]) for one in stored["scaling"] if one["measure"] == T2I]
    assert curve == [("unaligned", 8), ("unaligned", 32), ("aligned", 8), ("aligned", 32)]
    [point] = [one for one in stored["scaling"] if (one["arm"], one["size"], one["measure"]) == ("aligned", 32, T2I)]
    assert point["interval"] == bootstrap_interval(ours).to_json()


def test_arms_that_others_start_from_may_be_measured_elsewhere(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"align": {}, "a": {"init": "align"}, "b": {}}, against=["align", "b"], seeds=[0])
    random = np.random.default_rng(0)
    runs = {
        ("align", 0): measured(tmp_path / "align", {"f_r": {T2I: random.random(3)}}),
        ("a", 0): measured(tmp_path / "a", {"f_r": {T2I: random.random(5), "cider": random.random(5)}}),
        ("b", 0): measured(tmp_path / "b", {"f_r": {T2I: random.random(5), "cider": random.random(5)}}),
    }
    seconds = dict.fromkeys(runs, 1.0)
    table = tabulate(plan, runs, seconds, {"align": Path("web"), "a": Path("home"), "b": Path("home")})
    assert isinstance(table, MeasuredTable)
    rows = {row.arm: row for row in table.rows}
    assert table.measures == (T2I, "cider")
    assert rows["align"].measures == {}
    assert set(rows["a"].tests) == {"b"}
    assert rows["a"].over_seeds == {}
    assert table.cells("cider")[1][0] == ["align", "1", "–", "–", "–"]
    with pytest.raises(RecipeError, match=rf"{T2I} was measured on different numbers of them:\n  align: 3\n  a: 5"):
        tabulate(plan, runs, seconds, dict.fromkeys(("align", "a", "b"), Path("home")))


def test_without_an_evaluation_set_there_are_rows_and_no_numbers(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"a": {}}, seeds=[0])
    runs = {("a", 0): measured(tmp_path / "a", {"f_r": {}})}
    table = tabulate(plan, runs, {("a", 0): 1.0}, {"a": None})
    assert isinstance(table, MeasuredTable)
    assert (table.measures, table.rows[0].measures) == ((), {})
    assert table.cells() == (["arm", "seeds"], [["a", "1"]])


def test_a_reading_that_is_not_there_is_named(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"a": {"reading": "basline"}}, seeds=[0])
    run = measured(tmp_path / "a", {"baseline": {T2I: [0.0]}, "f_r": {T2I: [1.0]}})
    with pytest.raises(RecipeError, match=r"arm a: .*'basline'; .* has baseline, f_r; did you mean baseline\?"):
        check_reading(plan, "a", run)
