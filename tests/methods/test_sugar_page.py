"""docs/sugar.md says what the code does: its commands and recipes are read, its tables worked out again."""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from gen2real.cli import app
from gen2real.config import load_recipe
from gen2real.evaluation.tasks import TASKS
from gen2real.imagesets.importers.benchmarks import BENCHMARKS
from gen2real.imagesets.interleaved import read_interleaved
from gen2real.methods import CONFIGS
from gen2real.methods.sugar.settings import SugarConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sugar.md").read_text(encoding="utf-8")
KIT = ROOT / "recipes" / "sugar" / "kit.yaml"
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("|")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def inline() -> list[str]:
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))


TYPED = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("gen2real ")]
NAMED = [one for one in inline() if re.fullmatch(r"gen2real \w+ .*--out \S+", one) and "NAME" not in one]


@pytest.mark.parametrize("command", [*TYPED, *NAMED])
def test_every_command_is_one(command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    app.parse_args(words, exit_on_error=False, print_error=False)


def test_there_are_commands() -> None:
    assert len(TYPED) >= 7
    assert len(NAMED) == 5


def sugar(*overrides: str) -> SugarConfig:
    found = load_recipe(KIT, CONFIGS, list(overrides))
    assert isinstance(found, SugarConfig)
    return found


def test_every_setting_of_the_page_is_one() -> None:
    plain = sugar()
    settings = [one for one in inline() if re.fullmatch(r"(discriminative|kernel)\.\w+=\w+", one)]
    assert len(settings) == 7
    assert all(sugar(one) != plain for one in settings)
    for name, value in re.findall(r"`((?:discriminative|kernel|data)\.\w+): (\w+)`", PAGE):
        assert sugar(f"{name}={value}") is not None
    (rag,) = blocks("yaml")
    assert list(sugar(f"rag={yaml.safe_load(rag)['rag']}").rag) == ["own", "clip"]


def test_defaults_are_those_of_the_code() -> None:
    fields = SugarConfig.model_fields
    kernel, part = fields["kernel"].default, fields["discriminative"].default
    assert (kernel.bandwidth, part.weight, part.readouts) == (1.0, 1.0, 4)
    assert (kernel.normalize, part.scale) == ("paths", "mean")
    llava = load_recipe(ROOT / "recipes" / "sugar" / "llava.yaml", CONFIGS, ["data.train=[sft.jsonl]"])
    assert isinstance(llava, SugarConfig)
    said = (llava.training.batch_size, llava.training.epochs, llava.data.max_length, llava.optimizer.weight_decay)
    assert said == (128, 1, 2048, 0)


def test_samples_of_the_page_are_read(tmp_path: Path) -> None:
    (block,) = blocks("json")
    (tmp_path / "samples.jsonl").write_text(block, encoding="utf-8")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    found = read_interleaved(tmp_path / "samples.jsonl")
    assert [(len(one.turns), one.is_document) for one in found] == [(1, True), (1, False), (2, False)]


def test_the_tables_of_tasks_and_benchmarks_are_whole() -> None:
    named = [re.findall(r"`([\w-]+)`", row[0]) for row in ROWS]
    assert {name for own in named for name in own} >= {*TASKS, *BENCHMARKS}
    layouts = {name: row[1] for own, row in zip(named, ROWS, strict=True) for name in own if len(row) == 2}
    for name, benchmark in BENCHMARKS.items():
        file = benchmark.layout.format(split=benchmark.split).split()[0].strip(",")
        assert file in layouts[name] or file in ("the", "a", "DEMON's"), name


def test_the_table_of_normalisations_is_what_its_lines_print() -> None:
    code = next(block for block in blocks("python") if "global_alignment_kernel" in block)
    printed = StringIO()
    with redirect_stdout(printed):
        exec(compile(code, "docs/sugar.md", "exec"), {})
    found: dict[str, list[list[float]]] = {}
    for line in printed.getvalue().splitlines():
        n, m, *values = line.split()
        found.setdefault(f"{n} and {m}", []).append([float(value) for value in values])
    said: dict[str, Any] = {row[0]: row[1:] for row in ROWS if re.fullmatch(r"\d and \d", row[0])}
    assert set(said) == set(found)
    for name, (alike, unlike) in found.items():
        written = [f"{alike[k]:.{d}f}, {unlike[k]:.{d}f}" for k, d in enumerate((2, 2, 1))]
        assert [cell.strip("*") for cell in said[name]] == written
