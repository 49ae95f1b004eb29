"""Whole comparisons of alignments with tiny encoders: arms that start from others, sizes, and the commands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import gen2real_
from gen2real import comparison
from gen2real.comparison import MeasuredTable, compare
from gen2real.config import load_recipe
from gen2real.evaluation.statistics import bootstrap_interval
from gen2real.files import read_json
from gen2real.imagesets import ImageSet
from gen2real.methods.measured import Measured
from gen2real.methods.result import Result
from gen2real.methods.settings import CompareConfig
from tiny import tiny_clip
from tiny_sets import colour_set

ALIGN = """\
method: gmail
output: run
encoder: {name: clip}
prompts: {templates: ["a photo of {}"]}
data: {generated: [generated], real: photos, evaluation: real, holdout: 0.2}
loss: align+text
text: {tower: lora}
optimizer: {lr: 1e-2}
schedule: {warmup_steps: 0}
training: {steps: 2, batch_size: 4}
"""
HEAD = """\
method: regft
output: unused
tune: head
encoder: {name: clip}
prompts: {templates: ["a photo of {}"]}
data: {generated: [generated], evaluation: real, holdout: 0}
loss: {variance: 0, covariance: 0}
optimizer: {lr: 1e-2}
training: {steps: 3, batch_size: 8}
ensemble: {sweep: [0.5]}
gap: false
"""
COMPARE = """\
method: compare
output: out
recipe: align.yaml
seeds: [0, 1]
against: [baseline]
arms:
  RegFT:        {recipe: head.yaml, init: aligned, reading: tuned}
  baseline:     {reading: baseline}
  no alignment: {set: {loss: text}}
  aligned:      {}
"""
T2I = "text_to_image_recall@1"


@dataclass(frozen=True)
class World:
    """A working folder with a comparison that was run there."""

    root: Path
    table: MeasuredTable

    @property
    def rows(self) -> dict[str, Any]:
        return {row.arm: row for row in self.table.rows}

    def folder(self, arm: str, seed: int) -> Path:
        return self.root / "out" / self.rows[arm].runs[seed]


def config(*changes: str) -> CompareConfig:
    found = load_recipe("compare.yaml", {"compare": CompareConfig}, changes)
    assert isinstance(found, CompareConfig)
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("measured")
    tiny_clip(root / "clip")
    colour_set(root / "photos", origin="real", per_class=3, seed=1)
    colour_set(root / "real", origin="real", per_class=3)
    drawn = colour_set(root / "unpaired", per_class=3)
    # Picture for picture the photographs' partners: both sets number a class's pictures alike.
    os.rename(root / "unpaired", root / "generated")
    (root / "generated" / "manifest.parquet").unlink()
    ImageSet.write(root / "generated", [{**row, "pair_id": row["id"]} for row in drawn.rows()], drawn.classes)
    for name, text in (("align", ALIGN), ("head", HEAD), ("compare", COMPARE)):
        (root / f"{name}.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        patch.chdir(root)
        table = compare(config(), quiet=True)
        assert isinstance(table, MeasuredTable)
        yield World(root, table)


def test_each_arm_is_read_as_it_says(world: World) -> None:
    assert list(world.rows) == ["RegFT", "baseline", "no alignment", "aligned"]
    assert set(world.table.measures) == {"top1", "image_to_text_recall@1", T2I}
    for name in ("baseline", "no alignment", "aligned"):
        row = world.rows[name]
        runs = [Measured.read(world.folder(name, seed)) for seed in (0, 1)]
        assert row.reading == ("baseline" if name == "baseline" else runs[0].headline)
        values = np.stack([run.values(row.reading, T2I) for run in runs])
        assert row.measures[T2I] == bootstrap_interval(values)
    right = np.stack([Result.read(world.folder("RegFT", seed)).correct("tuned") for seed in (0, 1)])
    assert world.rows["RegFT"].measures == {"top1": bootstrap_interval(right.astype(float))}
    assert set(world.rows["RegFT"].tests["baseline"]) == {"top1"}
    assert set(world.rows["aligned"].tests["baseline"]) == set(world.table.measures)


def test_runs_that_others_start_from_keep_their_model(world: World) -> None:
    # The baseline is a reading of the very same trainings.
    assert world.rows["baseline"].runs == world.rows["aligned"].runs
    for seed in (0, 1):
        assert (world.folder("aligned", seed) / "model" / "config.json").exists()
        assert not (world.folder("no alignment", seed) / "model").exists()
        told = read_json(world.folder("RegFT", seed) / "recipe.json")
        assert told["encoder"]["name"] is None
        assert Path(told["encoder"]["init"]).name == world.folder("aligned", seed).name


def test_finished_runs_are_read_and_a_changed_start_is_run_anew_with_what_follows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.parent.name for path in Path("out/runs").glob("*/result.json")}
    assert len(before) == 6
    again = compare(config(), quiet=True)
    assert again == world.table
    run, begun = comparison.run, []

    def counted(recipe: Any, **more: Any) -> Any:
        if not (recipe.output / "result.json").exists():
            begun.append((recipe.method, recipe.seed))
        return run(recipe, **more)

    monkeypatch.setattr(comparison, "run", counted)
    compare(config("seeds=[0]", "arms.aligned.set={optimizer.lr: 2e-2}"), quiet=True)
    # The baseline, until now a reading of the same training, is trained as it was and keeps no model.
    assert begun == [("gmail", 0), ("regft", 0), ("gmail", 0)]


@pytest.mark.usefixtures("world")
def test_sizes_are_one_command() -> None:
    arms = {"baseline": {"reading": "baseline"}, "no alignment": {"set": {"loss": "text"}}, "aligned": {}}
    done = gen2real_(
        "compare", "compare.yaml", "--seeds", "1", "--output", "sized", "--json", "--set", "sizes=[2, 5]",
        "--set", "scaled=[no alignment, aligned]", "--set", f"arms={arms}", "--set", f"measures=[{T2I}]",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    table = done.value
    assert [(row["arm"], row["size"]) for row in table["rows"]] == [
        ("baseline", None), ("no alignment", 2), ("no alignment", 5), ("aligned", 2), ("aligned", 5)
    ]  # fmt: skip
    for row in table["rows"][1:]:
        [folder] = row["runs"].values()
        told = read_json(Path("sized") / folder / "recipe.json")
        assert told["data"]["pictures"] == row["size"]
        assert {"arm": row["arm"], "size": row["size"], "measure": T2I,
                "interval": row["measures"][T2I]["interval"]} in table["scaling"]  # fmt: skip
    assert len(table["scaling"]) == 4


def test_the_table_is_told_measure_by_measure(world: World) -> None:
    said = gen2real_("compare", "compare.yaml").out
    assert len([line for line in said.splitlines() if line.startswith("arm ")]) == 3
    assert len([line for line in said.splitlines() if line.startswith("no alignment ")]) == 3
    assert "out/table.md, table.csv and table.json hold the same." in said
    assert "top-1" in said.splitlines()[0]
    assert world.rows["RegFT"].measures["top1"].percent()[:4] in said


@pytest.mark.usefixtures("world")
def test_a_run_is_told_as_readings_and_measures() -> None:
    words = ("train", "align.yaml", "--set", "output=told", "--set", "save_model=false")
    done = gen2real_(*words, "--json")
    assert done.value["kind"] == "measures"
    assert set(done.value["readings"]) == {"baseline", "f_r", "f_g"}
    lines = gen2real_(*words).out.splitlines()
    assert lines[0].startswith("measure ")
    found = {line.split("  ")[0]: line for line in lines}
    value = 100 * done.value["readings"]["f_r"]["measures"]["top1"]["mean"]
    assert f" {value:.1f}\xa0% [" in found["top-1"]
    assert any(line.startswith("Read as ") for line in lines)
    assert "the run: told" in lines
    assert "no model folder was asked for (save_model: false)" in lines


@pytest.mark.usefixtures("world")
def test_several_recipes_of_measured_methods_are_tested_against_the_first() -> None:
    Path("control.yaml").write_text("base: align.yaml\nloss: text\n")
    done = gen2real_("compare", "control.yaml", "align.yaml", "--seeds", "1", "--output", "two", "--json")
    assert (done.code, done.err) == (0, "")
    assert done.value["against"] == ["control"]
    assert [row["arm"] for row in done.value["rows"]] == ["control", "align"]
    assert set(done.value["rows"][1]["measures"][T2I]["against"]) == {"control"}
