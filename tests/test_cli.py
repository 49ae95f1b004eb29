"""The commands as a person types them: what they print, where they write, and what they say to a mistake."""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import gen2real
from commands import Done, gen2real_, program
from gen2real import cli, cli_import
from gen2real.methods.classification_data import SealedSet
from tiny import tiny_clip
from tiny_sets import COLOURS, colour_set

SOURCE = Path(gen2real.__file__).parent

IMPORTS = ["--json", "--on-unreadable", "--origin", "--out", "--pictures"]
COMMANDS = {
    "answer MODEL QUESTIONS": ["--json", "--limit", "--max-tokens", "--out"],
    "blend ORIGINAL TUNED": ["--alpha", "--evaluation", "--json", "--out", "--sweep"],
    "compare RECIPES": ["--against", "--json", "--output", "--seeds", "--set"],
    "curate IMAGE_SET": [
        "--duplicates", "--empty-classes", "--encoder", "--evaluation", "--json", "--keep-margin",
        "--keep-real-likeness", "--keep-similarity", "--min-margin", "--min-similarity", "--name", "--real", "--safety",
        "--set", "--trained-encoder", "--unsafe-labels",
    ],
    "doctor": ["--json"],
    "evaluate MODEL IMAGE_SET": [
        "--candidates", "--guidance", "--json", "--limit", "--on-unreadable", "--pictures", "--prompts", "--questions",
        "--rag", "--rag-count", "--rag-retriever", "--rag-template", "--rag-threshold", "--rerank", "--scorer",
        "--steps", "--task", "--templates", "--through", "--trials", "--weight",
    ],
    "export IMAGE_SET OUT": ["--json", "--shard-size"],
    "gap GENERATED REAL": ["--encoder", "--json", "--on-unreadable"],
    "generate SOURCE": [
        "--batch-size", "--device", "--dry-run", "--dtype", "--format", "--generator", "--guidance", "--json",
        "--negative-prompt", "--out", "--per-caption", "--per-class", "--prompts", "--redraw", "--scheduler", "--seed",
        "--set", "--share", "--size", "--steps", "--templates",
    ],
    "import benchmark NAME SOURCE FOLDER": [
        "--distractors", "--instruction", "--json", "--on-fault", "--out", "--split",
    ],
    "import coco ANNOTATIONS FOLDER": [*IMPORTS, "--split"],
    "import coop DATASET ROOT": ["--json", "--on-unreadable", "--out", "--pictures", "--split"],
    "import huggingface SOURCE": [*IMPORTS, "--caption-column", "--image-column", "--label-column", "--split"],
    "import imagefolder SOURCE": [*IMPORTS, "--names", "--nested"],
    "import llava SOURCE FOLDER": ["--json", "--on-fault", "--out"],
    "import mmc4 SOURCE FOLDER": ["--json", "--min-similarity", "--on-fault", "--out", "--place"],
    "import pairs IMAGE_SET": ["--column", "--json", "--order", "--out", "--seed"],
    "import questions SOURCE": ["--json", "--out", "--seed", "--set", "--turns"],
    "import table SOURCE": [
        *IMPORTS, "--caption-column", "--label-column", "--names", "--path-column", "--root",
    ],
    "import vist ANNOTATIONS FOLDER": ["--json", "--on-fault", "--order", "--out"],
    "import webdataset SOURCE": ["--json", "--names", "--on-unreadable", "--origin", "--out"],
    "inspect IMAGE_SET": ["--json", "--out"],
    "kit DOMAIN": [
        "--captions", "--count", "--json", "--out", "--seed", "--split", "--stories", "--tasks", "--toys",
    ],
    "quickstart": ["--browse", "--json", "--out", "--per-class", "--photographs", "--seeds"],
    "report RUNS": ["--json", "--out"],
    "train RECIPE": ["--dry-run", "--json", "--set"],
}  # fmt: skip

RECIPE = """\
method: regft
output: run
tune: head
encoder: {name: clip}
prompts: {templates: ["a photo of {}"]}
data: {generated: [generated], evaluation: real, holdout: 0.2}
loss: {variance: 0, covariance: 0}
optimizer: {lr: 1e-3}
training: {steps: 2, batch_size: 8}
ensemble: {sweep: [0.3]}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory: an encoder, pictures in folders, a generated and a real set, a recipe."""
    root = tmp_path_factory.mktemp("cli")
    tiny_clip(root / "clip")
    colour_set(root / "generated")
    colour_set(root / "real", origin="real", per_class=4)
    (root / "head.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        patch.setenv("COLUMNS", "80")
        patch.chdir(root)
        yield root


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def surface(app: Any, words: str = "") -> dict[str, list[str]]:
    found = {}
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        whole = f"{words}{name}"
        if command.default_command is None:
            found |= surface(command, f"{whole} ")
            continue
        arguments = list(command.assemble_argument_collection(default_parameter=cli.app.default_parameter))
        options = sorted(name for one in arguments for name in one.names if name.startswith("--"))
        places = [name for one in arguments for name in one.names if not name.startswith("-")]
        found[" ".join([whole, *places])] = options
    return found


def test_the_commands_and_their_options_are_locked() -> None:
    assert surface(cli.app) == {name: sorted(options) for name, options in COMMANDS.items()}


def test_every_command_speaks_json() -> None:
    assert all("--json" in options for options in surface(cli.app).values())


COMMAND_WORDS = [re.sub(r" ?[A-Z_]{2,}.*", "", name).split() for name in COMMANDS]


@pytest.mark.parametrize("words", [[], ["import"], *COMMAND_WORDS], ids=" ".join)
def test_help_fits_a_screen_and_says_what_it_does(words: list[str]) -> None:
    done = gen2real_(*words, "--help")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"Usage: {' '.join(['gen2real', *words])}")
    assert re.match(r"[A-Z].*[.,\w]$", lines[2].strip())
    assert "[default: False]" not in done.out
    assert "()" not in done.out


def test_help_names_every_command() -> None:
    said = gen2real_("--help").out
    for name in COMMANDS:
        assert re.search(rf"│ {name.split()[0]} +[A-Z]", said), name


def test_help_comes_at_once(place: Path) -> None:
    """Processor time, the best of five: other programs on the machine make the clock slow, not the command."""
    spent = []
    for words in (["--help"], ["train", "--help"], ["import", "imagefolder", "--help"]) * 2:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert program(*words, cwd=place).code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.3, spent


def test_version() -> None:
    assert gen2real_("--version").out.strip() == gen2real.__version__


def test_without_a_command_it_shows_what_there_is() -> None:
    assert gen2real_().out == gen2real_("--help").out


def test_every_command_that_a_message_tells_people_to_type_is_there() -> None:
    """Messages in the source name commands, options and recipe keys; each must exist."""
    words = {name.split()[0] for name in COMMANDS}
    options = {option for found in COMMANDS.values() for option in found}
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for command in re.findall(r"[`:] ?gen2real ([a-z]+)\b(?! is| knows| needs| reads| resizes)", text):
            assert command in words, f"{path}: gen2real {command}"
        # The kit's build is a program of its own.
        if path.name != "doctor.py" and path.parent.name != "build":
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
                assert option in {*options, "--help", "--version"}, f"{path}: {option}"


TYPO = """
import json, sys
from gen2real.cli import main
try:
    main()
finally:
    heavy = {"torch", "transformers", "pyarrow", "numpy", "accelerate", "peft"} & set(sys.modules)
    print("heavy:", sorted(heavy), file=sys.stderr)
"""


def test_a_typo_in_a_recipe_is_told_with_key_line_and_nearest_before_torch_is_loaded(place: Path) -> None:
    (place / "typo.yaml").write_text(RECIPE.replace("variance: 0, covariance", "varience: 0, covariance"))
    done = program("train", "typo.yaml", "--set", "optimizer.lrr=1", "--json", cwd=place, code=TYPO)
    assert done.code == 2
    assert done.value["error"] == "RecipeError"
    assert "typo.yaml:7: loss.varience: unknown key; did you mean loss.variance?" in done.value["message"]
    assert "--set optimizer.lrr=1: optimizer.lrr: unknown key; did you mean optimizer.lr?" in done.value["message"]
    assert "heavy: []" in done.err
    assert "Traceback" not in done.err


MISTAKES: list[tuple[str, str, str]] = [
    ("trian head.yaml", "UnknownCommandError", 'Did you mean "train"'),
    ("train head.yaml --dryrun", "UnknownOptionError", "Did you mean --dry-run"),
    ("train", "MissingArgumentError", "RECIPE"),
    ("train nowhere.yaml", "RecipeError", "nowhere.yaml"),
    ("train generated", "RecipeError", "generated"),
    ("train head.yaml --set method=regtf", "RecipeError", "did you mean regft"),
    ("train head.yaml --set data.generated=[]", "RecipeError", "at least one image set"),
    ("train head.yaml --set encoder.name=nowhere/clip", "ModelError", "nowhere/clip"),
    ("train cmp.yaml", "RecipeError", "Type: gen2real compare cmp.yaml"),
    ("train soup.yaml --dry-run", "RecipeError", "--dry-run estimates a training"),
    ("compare head.yaml", "RecipeError", "add --output"),
    ("compare head.yaml head.yaml --output out", "RecipeError", "same file name"),
    ("compare head.yaml --output out --seeds 0", "RecipeError", "seeds"),
    ("compare head.yaml --output out --against nobody", "RecipeError", "nobody"),
    ("compare head.yaml --output out --set nothing", "RecipeError", "expected key=value"),
    ("compare head.yaml --output out --set los.variance=1", "RecipeError", "did you mean loss"),
    ("blend clip clip --out out", "ModelError", "no classifier's model folder"),
    ("blend clip nowhere --out out --alpha 3", "ModelError", "alpha is 3"),
    ("blend clip nowhere --out out --alpha three", "CoercionError", "--alpha"),
    ("blend clip nowhere --out out --sweep 0 1", "Gen2RealError", "add --evaluation SET"),
    ("evaluate clip nowhere", "ImageSetError", "nowhere does not exist"),
    ("evaluate clip real --templates simpel", "RecipeError", "simple"),
    ("evaluate clip real --prompts nowhere.json", "", "nowhere.json"),
    ("evaluate clip real --task retrieval --templates simple", "Gen2RealError", "retrieval reads the captions"),
    ("evaluate clip real --task questions", "Gen2RealError", "add --questions FILE.jsonl"),
    ("evaluate clip real --task retrieval --questions q.jsonl", "Gen2RealError", "--questions is for --task questions"),
    ("evaluate clip real --through f_g", "ModelError", "one image tower for all pictures: leave --through f_g out"),
    ("evaluate clip real --task synthesis", "Gen2RealError", "add --scorer ENCODER"),
    ("evaluate clip real --task diffusion-classification --steps 2", "Gen2RealError", "--steps: for --task synthesis"),
    ("evaluate clip real --task diffusion-classification --through f_g", "Gen2RealError", "asks a generator"),
    ("evaluate clip real --task diffusion-classification", "ModelError", "no pipeline of diffusers"),
    ("evaluate clip real --task retrieval --steps 2", "Gen2RealError", "--steps: for --task synthesis"),
    ("evaluate clip real --task retrieval --pictures 2", "Gen2RealError", "--pictures: for --task synthesis"),
    ("evaluate clip real --rerank clip --pictures 0", "Gen2RealError", "at least 1"),
    ("evaluate clip real --rerank clip --candidates 1", "ModelError", "no order to change"),
    ("evaluate clip real --rerank clip --weight -1", "ModelError", "it is at least 0"),
    ("evaluate clip real --rerank clip", "ModelError", "no pipeline of diffusers"),
    ("evaluate clip real --rerank clip --task classification", "Gen2RealError", "this is classification"),
    ("evaluate clip real --task retrieval --trials 3", "Gen2RealError", "add --rerank GENERATOR"),
    ("evaluate clip real --scorer clip --pictures 1", "Gen2RealError", "at least 2"),
    ("evaluate clip real --scorer clip --through f_g", "Gen2RealError", "this draws pictures"),
    ("evaluate clip real --scorer nowhere", "ModelError", "nowhere"),
    ("evaluate clip real --scorer clip", "ModelError", "no model_index.json"),
    ("gap generated real --encoder nowhere", "ModelError", "nowhere"),
    (
        "generate nowhere.txt",
        "RecipeError",
        "and --out missing; for example: gen2real generate nowhere.txt",
    ),
    ("generate nowhere.txt --generator clip --out out", "ImageSetError", "nowhere.txt"),
    ("generate names.txt --generator clip --out out", "ModelError", "no model_index.json"),
    ("generate names.txt --generator clip --out real", "ImageSetError", "no unfinished generation"),
    ("generate names.txt --generator clip --out out --scheduler eular", "RecipeError", "did you mean euler"),
    ("generate names.txt --generator clip --out out --size 5x5x5", "RecipeError", "as 768x512"),
    ("generate names.txt --generator clip --out out --set sead=1", "RecipeError", "did you mean seed"),
    ("generate names.txt --generator clip --out out --share 4/4", "RecipeError", "PLACE/COUNT"),
    ("generate draw.yaml --steps 2", "RecipeError", "--set generators.0.steps=2"),
    ("generate draw.yaml --set sead=2", "RecipeError", "did you mean seed"),
    ("generate real --redraw red-0", "RecipeError", "Add --out red-0.png"),
    ("generate real --redraw red-0 --out red.jpg", "RecipeError", "ends in .png or .webp"),
    ("generate real --redraw rde-0 --out red.png", "ImageSetError", "did you mean 'red-0'"),
    ("curate generated", "MissingArgumentError", "--encoder"),
    ("curate nowhere --encoder clip", "ImageSetError", "nowhere does not exist"),
    ("curate generated --encoder nowhere", "ModelError", "nowhere"),
    ("curate generated --encoder clip --keep-margin 2", "RecipeError", "keep_margin: given 2"),
    ("curate generated --encoder clip --keep-margni 0.5", "UnknownOptionError", "Did you mean --keep-margin"),
    ("curate generated --encoder clip --set duplicate_cosin=1", "RecipeError", "did you mean duplicate_cosine"),
    ("curate generated --encoder clip --name manifest.parquet", "RecipeError", "never rewritten"),
    ("curate generated --encoder clip --evaluation nowhere", "ImageSetError", "nowhere does not exist"),
    ("export nowhere tars", "ImageSetError", "nowhere"),
    ("import imagefoldr x --out y", "UnknownCommandError", 'Did you mean "imagefolder"'),
    ("import imagefolder x", "MissingArgumentError", "--out"),
    ("import imagefolder nowhere --out y", "ImageSetError", "nowhere"),
    ("import imagefolder generated --out y --nested leav", "CoercionError", 'Did you mean "leaf"'),
    ("import table nowhere.csv --out y", "ImageSetError", "nowhere.csv"),
    ("import coop oxford_pet . --out y", "ImageSetError", "oxford_pets"),
    ("import coco nowhere.json . --out y", "", "nowhere.json"),
    ("import webdataset nowhere --out y", "ImageSetError", "nowhere"),
]


@pytest.mark.parametrize(("words", "kind", "said"), MISTAKES, ids=[words for words, _, _ in MISTAKES])
def test_a_mistake_ends_with_its_message(place: Path, words: str, kind: str, said: str) -> None:
    (place / "cmp.yaml").write_text("method: compare\noutput: out\nrecipe: head.yaml\narms: {a: {}}\n")
    (place / "draw.yaml").write_text("method: generate\nsource: names.txt\noutput: out\ngenerators: [clip]\n")
    (place / "names.txt").write_text("cat\n")
    (place / "soup.yaml").write_text("method: soup\noutput: out\nruns: [run]\n")
    before = set(place.iterdir())
    done = gen2real_(*words.split(), "--json")
    assert done.code == 2
    assert set(done.value) == {"error", "message"}
    assert said in done.value["message"]
    assert kind in ("", done.value["error"])
    assert done.err == f"gen2real: {done.value['message']}\n"
    for new in set(place.iterdir()) - before:
        # A run's folder may have been opened; nothing of another one is lost, nor in the way.
        assert new.name == "run", new
        assert not (new / "metrics.jsonl").exists()
        shutil.rmtree(new)


def test_without_json_a_mistake_leaves_standard_output_empty() -> None:
    done = gen2real_("evaluate", "clip", "nowhere")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("gen2real: nowhere does not exist")


def test_the_system_speaks_in_a_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "locked/manifest.parquet")

    monkeypatch.setattr("gen2real.imagesets.importers.export_webdataset", denied)
    done = gen2real_("export", "real", "tars", "--json")
    assert done.code == 2
    assert done.value == {"error": "PermissionError", "message": "locked/manifest.parquet: Permission denied"}


def test_our_own_fault_shows_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("nothing")

    monkeypatch.setattr("gen2real.imagesets.importers.export_webdataset", broken)
    done = gen2real_("export", "real", "tars", "--json")
    assert done.code == 1
    assert done.value["error"] == "KeyError"
    assert "Traceback" in done.err
    assert "please report it" in done.err
    # A value that somebody else's code refused says too little without its place.
    monkeypatch.setattr("gen2real.imagesets.importers.export_webdataset", lambda *_, **__: int("x"))
    assert gen2real_("export", "real", "tars").code == 1


def test_a_full_device_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr("gen2real.methods.run", full)
    done = gen2real_("train", "head.yaml", "--json")
    assert done.code == 2
    assert done.value["message"].startswith("CUDA out of memory. Tried to allocate 2 GiB.\n")
    assert "--set training.accumulation=2" in done.value["message"]


@pytest.mark.parametrize(("words", "again"), [("train head.yaml", True), ("export real tars", False)])
def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, words: str, again: bool) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gen2real.methods.run", interrupted)
    monkeypatch.setattr("gen2real.imagesets.importers.export_webdataset", interrupted)
    done = gen2real_(*words.split(), "--json")
    assert (done.code, done.value["error"]) == (130, "Interrupted")
    assert ("goes on from the last checkpoint" in done.err) == again


def test_only_the_first_of_several_processes_prints_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    done = gen2real_("train", "nowhere.yaml", "--json")
    assert (done.code, done.out) == (2, "")
    assert "nowhere.yaml" in done.err


def test_warnings_are_sentences_on_standard_error(place: Path) -> None:
    source = folders(place / "with notes")
    (source / "red" / "notes.txt").write_text("not a picture")
    done = gen2real_("import", "imagefolder", source, "--out", "noted", "--json")
    assert done.value["pictures"] == 12
    assert done.err.startswith("gen2real: 1 file(s) that are no pictures passed over")
    assert ".py" not in done.err


def folders(root: Path) -> Path:
    """Pictures as people have them: a folder for each class."""
    for name in ("red", "green", "blue"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (40, 40), tuple(value - 9 * number for value in COLOURS[name])).save(
                root / name / f"{number}.png"
            )
    return root


def test_the_whole_chain(place: Path) -> None:
    folders(place / "pictures")
    done = gen2real_("import", "imagefolder", "pictures", "--out", "chain/set", "--origin", "generated", "--json")
    assert done.value == {"set": "chain/set", "pictures": 12, "labelled": 12, "classes": 3}

    train = ("train", "head.yaml", "--set", "data.generated=[chain/set]", "--set", "data.class_names=names.txt")
    (place / "names.txt").write_text("\n".join(COLOURS))
    train = (*train, "--set", "output=chain/run", "--json")
    done = gen2real_(*train)
    assert (done.code, done.err) == (0, "")
    first = done.value
    assert set(first) == {
        "output", "version", "method", "seed", "encoder", "generated_through", "name_only", "classes", "pictures",
        "generated_pictures_are", "readings", "sweep", "saved", "diversity", "gap", "cost", "data", "sets",
        "environment", "report",
    }  # fmt: skip
    assert first["output"] == "chain/run"
    assert first["report"] == "chain/run/report.html"
    assert "<!doctype html>" in (place / "chain" / "run" / "report.html").read_text()
    stamp = (place / "chain" / "run" / "result.json").stat().st_mtime_ns
    assert gen2real_(*train).value == first
    assert (place / "chain" / "run" / "result.json").stat().st_mtime_ns == stamp

    refused = gen2real_(*train, "--set", "optimizer.lr=1")
    assert refused.code == 2
    assert "optimizer.lr: 0.001 → 1.0" in refused.value["message"]
    assert "--set output=FOLDER" in refused.value["message"]

    measured = gen2real_("evaluate", "chain/run/model", "real", "--json").value
    assert measured["top1"] == first["readings"]["blend"]["real"]["top1"]
    assert set(measured) == {
        "count", "top1", "top5", "mean_per_class", "calibration_error", "negative_log_likelihood", "per_class",
        "confusions",
    }  # fmt: skip

    blend = ("blend", "clip", "chain/run/model", "--out", "chain/blend", "--alpha", "0.25")
    made = gen2real_(*blend, "--evaluation", "real", "--sweep", "0", "1", "--json").value
    assert set(made) == {"version", "folder", "alpha", "sweep"}
    assert [row["alpha"] for row in made["sweep"]] == [0, 1]
    assert gen2real_("evaluate", "chain/blend", "real", "--json").value["count"] == 16

    gap = gen2real_("gap", "chain/set", "real", "--encoder", "clip", "--json").value
    assert {"reading", "frechet", "two_sample", "kernel", "modality"} <= set(gap)

    compared = gen2real_("compare", "head.yaml", "--output", "chain/compare", "--seeds", "2", "--json").value
    assert [row["arm"] for row in compared["rows"]] == ["zero_shot", "head"]
    assert compared["against"] == ["zero_shot"]
    assert compared["report"] == "chain/compare/report.html"
    assert (place / "chain" / "compare" / "report.html").stat().st_size > 10_000

    written = gen2real_("report", "chain/run", "--out", "chain/again.html", "--json").value
    assert written == {"report": "chain/again.html"}
    assert (place / "chain" / "again.html").read_text() == (place / "chain" / "run" / "report.html").read_text()
    shown = gen2real_("inspect", "chain/set", "--json").value
    assert shown == {"gallery": "chain/set/gallery.html", "pictures": 12, "shown": 12}
    assert set(compared["rows"][1]["against"]) == {"zero_shot"}
    assert [row["seeds"] for row in compared["rows"]] == [2, 2]

    shards = gen2real_("export", "chain/set", "chain/tars", "--shard-size", "5", "--json").value["shards"]
    assert len(shards) == 3
    back = gen2real_("import", "webdataset", "chain/tars", "--out", "chain/back", "--json").value
    assert (back["pictures"], back["labelled"], back["classes"]) == (12, 12, 3)


def test_a_report_that_cannot_be_written_does_not_spoil_the_run(place: Path) -> None:
    (place / "spoilt" / "report.html").mkdir(parents=True)
    done = gen2real_("train", "head.yaml", "--set", "output=spoilt", "--json")
    assert done.code == 0
    assert done.value["report"] is None
    assert "the report was not written" in done.err
    assert "gen2real report spoilt" in done.err
    refused = gen2real_("report", "real")
    assert (refused.code, "the run has not ended" in refused.err) == (2, True)


def test_curated_and_trained_on(place: Path) -> None:
    colour_set(place / "curated" / "set", per_class=5)
    curate = ("curate", "curated/set", "--encoder", "clip", "--evaluation", "real", "--keep-margin", "0.6")
    curate = (*curate, "--set", "duplicate_cosine=1", "--set", "leak_cosine=1")
    done = gen2real_(*curate, "--json")
    assert (done.code, done.err) == (0, "")
    found = done.value
    assert (found["manifest"], found["pictures"], found["kept"]) == ("curated/set/curated.parquet", 20, 12)
    assert found["rules"] == {"margin": 8}
    assert set(found) == {
        "manifest", "version", "name", "pictures", "kept", "rules", "classes", "without_class", "thresholds",
        "duplicate_groups", "encoder", "scores", "drawings", "notes", "warnings", "seconds", "pictures_per_second",
        "config", "inputs",
    }  # fmt: skip
    said = gen2real_(*curate).out
    assert said.startswith("12 of 20 pictures are kept.\n       8  margin\nClasses that lost most: red (3 of 5)")
    assert "Note: it was not said which encoder will be trained" in said
    refused = gen2real_(*curate, "--real", "real")
    assert (refused.code, "--name curated-2.parquet" in refused.err) == (2, True)
    manifest = re.search(r"data\.generated='(\[.*\])'", said)
    assert manifest
    train = ("train", "head.yaml", "--set", f"data.generated={manifest[1]}", "--set", "output=curated/run", "--json")
    pictures = gen2real_(*train).value["pictures"]
    assert pictures["generated"] + pictures["held_out"] == 12


def test_a_typo_in_a_curation_is_told_before_torch_is_loaded(place: Path) -> None:
    done = program("curate", "generated", "--encoder", "clip", "--keep-margin", "2", cwd=place, code=TYPO)
    assert done.code == 2
    assert "heavy: []" in done.err


def test_people_read_lines(place: Path) -> None:
    done = gen2real_("train", "head.yaml", "--set", "output=lines/run")
    assert done.code == 0
    said = done.out.splitlines()
    assert [line.split()[0] for line in said[:3]] == ["zero_shot", "tuned", "blend"]
    assert re.search(r"alpha 0  top-1 on real \d+\.\d % \[\d+\.\d, \d+\.\d\]$", said[0])
    assert "oracle" in done.out
    assert "a bound, not a result" in done.out
    ends = ["the run: lines/run", "the model: lines/run/model", "the report: lines/run/report.html"]
    assert said[-3:] == ends
    assert "2/2 updates" in done.err

    done = gen2real_("compare", "head.yaml", "--output", "lines/compare", "--seeds", "1", "--set", "training.steps=1")
    assert done.err.startswith("[1/1] zero_shot, seed 0\n")
    heads, *rows, table, page = done.out.splitlines()
    assert heads.split("  ")[0] == "arm"
    assert [row.split()[0] for row in rows] == ["zero_shot", "head"]
    assert table == "lines/compare/table.md, table.csv and table.json hold the same."
    assert page == "the report: lines/compare/report.html"

    said = gen2real_("evaluate", "clip", "real").out
    assert re.search(r"^top-1 +\d+\.\d % \[", said, re.MULTILINE)
    assert re.search(r"^true +taken for +times", said, re.MULTILINE)
    said = gen2real_("gap", "generated", "real", "--encoder", "clip").out
    assert re.search(r"^CMMD +[\d.]+", said, re.MULTILINE)
    assert "classes furthest apart" in said
    said = gen2real_("blend", "clip", "lines/run/model", "--out", "lines/blend", "--evaluation", "real").out
    assert len(re.findall(r"^(0|0\.\d|1) +\d", said, re.MULTILINE)) == 11
    assert "oracle" in said
    assert said.splitlines()[-1] == "lines/blend: alpha 0.5"
    assert gen2real_("export", "real", "lines/tars").out == "lines/tars: 1 tar(s)\n"


def test_retrieval(place: Path) -> None:
    (place / "clip search").mkdir()
    for number, name in enumerate(COLOURS):
        Image.new("RGB", (40, 40), COLOURS[name]).save(place / "clip search" / f"{number}.png")
    table = [f'{number}.png,"a {name} square"\n' for number, name in enumerate(COLOURS)]
    (place / "captions.csv").write_text("".join(["path,caption\n", *table, '0.png,"like blood"\n']))
    words = ("captions.csv", "--root", "clip search", "--caption-column", "caption", "--out", "captioned", "--json")
    assert gen2real_("import", "table", *words).value["labelled"] == 0

    # No labels: nothing else is meant.
    done = gen2real_("evaluate", "clip", "captioned", "--json")
    assert (done.code, done.err) == (0, "")
    assert (done.value["image_to_text"]["queries"], done.value["image_to_text"]["gallery"]) == (4, 5)
    assert (done.value["text_to_image"]["queries"], done.value["text_to_image"]["gallery"]) == (5, 4)
    assert done.value["text_to_image"]["recall@5"]["mean"] == 1
    assert gen2real_("evaluate", "clip", "captioned", "--task", "retrieval", "--json").value == done.value
    refused = gen2real_("evaluate", "clip", "captioned", "--task", "classification", "--json")
    assert (refused.code, refused.value["error"]) == (2, "ImageSetError")
    assert "no classes to tell apart" in refused.value["message"]

    # Labels and captions: classification unless it is asked for. The 16 pictures have four captions.
    assert gen2real_("evaluate", "clip", "real", "--json").value["count"] == 16
    said = gen2real_("evaluate", "clip", "real", "--task", "retrieval").out.splitlines()
    assert re.fullmatch(r"measure +pictures → texts +texts → pictures *", said[0])
    assert re.fullmatch(r"recall@1 +\d+\.\d % \[.*\], chance 25\.0 % +\d+\.\d % \[.*\], chance 25\.0 % *", said[1])
    assert re.fullmatch(r"searched +16 among 4 +4 among 16 *", said[5])


def test_a_run_without_real_pictures_speaks_of_generated_ones() -> None:
    done = gen2real_(
        "train", "head.yaml", "--set", "output=named/run", "--set", "data.evaluation=null", "--set", "save_model=false"
    )
    assert "top-1 on generated (held out)" in done.out
    assert "on real" not in done.out
    assert "no model folder was asked for" in done.out


def test_a_comparison_recipe_takes_seeds_output_and_against(place: Path) -> None:
    (place / "both.yaml").write_text(
        "method: compare\noutput: both/a\nrecipe: head.yaml\nset: {training.steps: 1}\n"
        "arms: {zs: {reading: zero_shot}, tuned: {reading: tuned}}\n"
    )
    done = gen2real_("compare", "both.yaml", "--seeds", "1", "--output", "both/b", "--against", "zs", "--json")
    assert done.value["against"] == ["zs"]
    assert [row["seeds"] for row in done.value["rows"]] == [1, 1]
    assert (place / "both" / "b" / "table.csv").exists()
    assert not (place / "both" / "a").exists()


def test_a_dry_run_spends_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SealedSet, "open", None)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    done = gen2real_("train", "head.yaml", "--dry-run", "--set", "output=dry/run", "--json")
    assert done.code == 0
    assert done.value["pictures"] == 20
    assert done.value["updates"] == 2
    assert "20 pictures to train on, 4 held out" in gen2real_("train", "head.yaml", "--dry-run").out
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    from gen2real import doctor

    good = doctor.Check("Python", True, "3.12")
    bad = doctor.Check("memory", False, "0.1 of 8 GiB free", "close other programs")
    monkeypatch.setattr(doctor, "examine", lambda: [good])
    done = gen2real_("doctor", "--json")
    assert done.code == 0
    assert done.value == {"ok": True, "checks": [{"name": "Python", "ok": True, "found": "3.12", "mend": ""}]}
    monkeypatch.setattr(doctor, "examine", lambda: [good, bad])
    done = gen2real_("doctor")
    assert done.code == 1
    assert re.search(r"^ok +Python +3\.12", done.out, re.MULTILINE)
    assert re.search(r"^mend +memory", done.out, re.MULTILINE)
    assert done.out.endswith("memory: close other programs\n")
    assert gen2real_("doctor", "--json").value["ok"] is False


TORCHRUN = """
import sys
from torch.distributed.run import main
main(["--standalone", "--nproc-per-node", "2", "-m", "gen2real", *sys.argv[1:]])
"""


def test_under_torchrun_one_process_prints_one_object(place: Path) -> None:
    done = program("train", "head.yaml", "--set", "output=two processes", "--json", cwd=place, code=TORCHRUN)
    assert done.code == 0, done.err
    assert done.value["output"] == "two processes"
    assert done.value["cost"]["updates"] == 2
    assert "Traceback" not in done.err
    assert (place / "two processes" / "model" / "head.safetensors").exists()


def test_it_runs_as_a_module(place: Path) -> None:
    code = "import runpy, sys; runpy.run_module('gen2real', run_name='__main__')"
    assert program("--version", cwd=place, code=code) == Done(0, f"{gen2real.__version__}\n", "")


def test_output_that_nobody_reads_is_no_fault(place: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread:
        done = program("--help", cwd=place, stdout=unread)
    assert (done.code, done.err) == (1, "")


def test_imports_share_their_words() -> None:
    assert set(cli_import._LINKS) == {"copy", "link", "reference"}
