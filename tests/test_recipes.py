"""The recipes that come with gen2real: what they say at their top, and that each runs a step."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gen2real.comparison import MeasuredRow, MeasuredTable, compare
from gen2real.config import dump, load_recipe
from gen2real.errors import RecipeError
from gen2real.files import read_json
from gen2real.generation import GenerateConfig, generate
from gen2real.imagesets import ImageSet
from gen2real.imagesets.interleaved import Interleaved, Turn, write_interleaved
from gen2real.imagesets.questions import write_questions
from gen2real.methods import CONFIGS, run
from gen2real.methods.measured import Measured
from gen2real.methods.result import Result
from gen2real.methods.settings import CompareConfig
from gen2real.models.adapters import add_lora
from gen2real.models.aligned import is_aligned, save_aligned
from gen2real.models.captioner_folder import is_captioner
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.multimodal import load_multimodal
from gen2real.recipe import read_recipe
from tiny import tiny_clip, tiny_gpt2, tiny_stable_diffusion
from tiny_multimodal import tiny_llava
from tiny_sets import COLOURS, colour_set

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
COMPARISONS = [path for path in RECIPES if path.parent.name == "compare"]
COMPARED = {
    path: read_recipe(path.parent / read_recipe(path).values["recipe"]).values["method"] for path in COMPARISONS
}
GENERATIONS = [path for path in RECIPES if path.parent.name == "generate"]
TRAININGS = [path for path in RECIPES if path not in (*COMPARISONS, *GENERATIONS)]
METHOD = {path: read_recipe(path).values["method"] for path in TRAININGS}
CLASSIFIERS = [path for path in TRAININGS if METHOD[path] in ("regft", "flyp")]
CAPTIONERS = [path for path in TRAININGS if METHOD[path] == "captioning"]
MULTIMODAL = [path for path in TRAININGS if METHOD[path] == "multimodal"]
ALIGNMENTS = [path for path in TRAININGS if METHOD[path] == "gmail"]
JOINT = [path for path in TRAININGS if METHOD[path] == "unidiff"]
SUGARS = [path for path in TRAININGS if METHOD[path] == "sugar"]
CIRCLES = [path for path in COMPARISONS if path.stem.endswith("-circle")]
COMPARED = {path: METHOD[(path.parent / read_recipe(path).values["recipe"]).resolve()] for path in COMPARISONS}


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@dataclass(frozen=True)
class World:
    """Tiny stand-ins for what a user brings."""

    root: Path
    generator: Path

    @property
    def changes(self) -> dict[str, Any]:
        return {
            "encoder.name": str(self.root / "clip"),
            "prompts.templates": "simple",
            "data.generated": f"[{self.root / 'generated'}]",
            "data.evaluation": str(self.root / "real"),
            "training.batch_size": 8,
            "training.steps": 1,
        }

    @property
    def pairs(self) -> dict[str, Any]:
        """The same for what learns from pairs; half of the evaluation set's captions are long."""
        paired = {"data.generated": f"[{self.root / 'generated' / 'paired.parquet'}]", "data.real": self.root / "real"}
        changes = {**self.changes, **paired, "data.evaluation": self.root / "captioned" / "long.parquet"}
        del changes["prompts.templates"]
        return changes


def with_pairs(root: Path) -> None:
    """Generated pictures that name real partners, and pictures with a long caption beside a short one."""
    generated, real = ImageSet.read(root / "generated"), ImageSet.read(root / "real")
    rows = [{**row, "pair_id": real.ids[place % len(real)]} for place, row in enumerate(generated.rows())]
    ImageSet.write(root / "generated", rows, generated.classes, name="paired.parquet")
    captioned = colour_set(root / "captioned", origin="real", per_class=2, seed=2)
    rows = [{**row, "captions": [*row["captions"], f"{row['captions'][0]}. It is plain."]} for row in captioned.rows()]
    ImageSet.write(root / "captioned", rows, captioned.classes, name="long.parquet")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("recipes")
    tiny_clip(root / "clip")
    tiny_clip(root / "scorer", seed=1)
    tiny_gpt2(root / "gpt2", positions=128)
    colour_set(root / "generated")
    colour_set(root / "real", origin="real", per_class=3)
    colour_set(root / "shots", origin="real", per_class=2, seed=1)
    with_pairs(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEN2REAL_CACHE", str(root / "cache"))
        yield World(root, tiny_stable_diffusion(root / "sd"))


def test_there_are_recipes() -> None:
    wanted = {"regft/regft", "regft/faithful", "regft/head", "flyp/flyp", "compare/regft", "generate/names"}
    wanted |= {
        f"gmail/{name}"
        for name in ("align", "algorithm-1", "regft", "no-alignment", "long-captions", "transductive", "siglip")
    }
    assert wanted <= {*map(named, RECIPES)}


def header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:end])


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_its_top_says_command_hardware_time_and_result(path: Path) -> None:
    said = header(path)
    for word in ("Command:", "Hardware:", "Time:", "Expected:"):
        assert re.search(rf"^{word} +\S", said, re.MULTILINE), f"{path} does not say {word}"
    verb = path.parent.name if path in (*COMPARISONS, *GENERATIONS) else "train"
    assert f"gen2real {verb} {path.relative_to(ROOT).as_posix()}" in said


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_its_command_asks_for_what_the_recipe_leaves_open(path: Path) -> None:
    said = header(path)
    given = re.findall(r"--set (\S+?)='?(\[?[\w.,-]+\]?)'?(?:\s|$)", said)
    types = {**CONFIGS, "compare": CompareConfig, "generate": GenerateConfig}
    config: Any = load_recipe(path, types, [f"{key}={value}" for key, value in given])
    if path in JOINT:
        assert config.data.pictures
        if "pictures" not in read_recipe(path).values["data"]:
            with pytest.raises(RecipeError, match=r"data\.pictures: missing"):
                load_recipe(path, types)
    elif path in SUGARS:
        assert config.data.train
        if "train" not in read_recipe(path).values["data"]:
            with pytest.raises(RecipeError, match=r"data\.train: missing"):
                load_recipe(path, types)
    elif path in TRAININGS and getattr(config.data, "train_on", None) == "real":
        assert config.data.real
    elif path in TRAININGS:
        assert config.data.generated
        with pytest.raises(RecipeError, match=r"data\.generated: .*at least one image set"):
            load_recipe(path, types)


@pytest.mark.parametrize("path", ALIGNMENTS, ids=named)
def test_it_aligns_a_step(world: World, tmp_path: Path, path: Path) -> None:
    changes = {**world.pairs, "output": tmp_path / "run"}
    config = load_recipe(path, CONFIGS, [f"{key}={value}" for key, value in changes.items()])
    result = run(config, quiet=True)
    assert isinstance(result, Measured)
    assert result.summary["cost"]["updates"] == 1
    assert {"baseline", "f_r", "f_g"} <= {name.removeprefix("transductive_") for name in result.readings}
    prefix = "long_" if path.stem == "long-captions" else ""
    assert f"{prefix}image_to_text_recall@1" in result.measures(result.headline)
    assert {"before", "after"} <= set(result.summary["alignment"])
    assert is_aligned(tmp_path / "run")


def aligned(world: World) -> Path:
    """An aligned encoder to start from."""
    encoder = load_dual_encoder(world.root / "clip")
    save_aligned(world.root / "aligned", encoder, add_lora(copy.deepcopy(encoder.vision), rank=1, alpha=1), made_by={})
    return world.root / "aligned"


@pytest.mark.parametrize("path", CAPTIONERS, ids=named)
def test_it_captions_after_a_step(world: World, tmp_path: Path, path: Path) -> None:
    changes = {
        **world.pairs,
        "decoder.name": world.root / "gpt2",
        "output": tmp_path / "run",
        "training.epochs": "null",
        "decoding.max_tokens": 8,
    }
    config = load_recipe(path, CONFIGS, [f"{key}={value}" for key, value in changes.items()])
    result = run(config, quiet=True)
    assert isinstance(result, Measured)
    assert result.summary["cost"]["updates"] == 1
    assert {"cider", "bleu4", "rouge_l"} <= set(result.measures("f_r"))
    assert is_captioner(tmp_path / "run")


@pytest.mark.parametrize("path", MULTIMODAL, ids=named)
def test_it_answers_after_a_step(world: World, tmp_path: Path, path: Path) -> None:
    changes = {
        **{key: value for key, value in world.changes.items() if key.startswith("data.")},
        "model.name": tiny_llava(tmp_path / "llava", world.root / "clip"),
        "aligned": aligned(world),
        "output": tmp_path / "run",
        "training.steps": 1,
        "decoding.max_tokens": 4,
    }
    config = load_recipe(path, CONFIGS, [f"{key}={value}" for key, value in changes.items()])
    result = run(config, quiet=True)
    assert isinstance(result, Measured)
    assert list(result.readings) == ["baseline", "f_r", "f_g"]
    assert "cider" in result.measures("f_r")
    assert load_multimodal(tmp_path / "run").made_by["recipe"]["method"] == "multimodal"


def taught_and_asked(world: World, root: Path) -> dict[str, Any]:
    """What a user brings for Sugar: samples, a model, teachers, and pictures to find."""
    learnt, clip = ImageSet.read(world.root / "generated"), world.root / "clip"
    samples = [
        Interleaved(name, (Turn((picture, f" {captions[0]}. It is plain.")),))
        for name, picture, captions in zip(learnt.ids, learnt.paths, learnt.captions, strict=True)
    ]
    write_interleaved(root / "samples.jsonl", samples)
    return {
        "model.name": tiny_llava(root / "llava", clip),
        "data.train": f"[{root / 'samples.jsonl'}]",
        "data.max_length": "null",
        "teachers": f"{{joint: {clip}}}",
        "evaluation": f"{{found: {{task: retrieval, path: {world.root / 'real'}}}}}",
        "head.first_updates": 0,
        "training.steps": 1,
        "training.batch_size": 4,
    }


@pytest.mark.parametrize("path", SUGARS, ids=named)
def test_it_answers_and_embeds_after_a_step(world: World, tmp_path: Path, path: Path) -> None:
    changes = {**taught_and_asked(world, tmp_path), "output": tmp_path / "run"}
    if "rag" in read_recipe(path).values:
        changes["rag"] = "{}"
    result = run(load_recipe(path, CONFIGS, [f"{key}={value}" for key, value in changes.items()]), quiet=True)
    assert isinstance(result, Measured)
    assert result.summary["cost"]["updates"] == 1
    assert list(result.readings) == ["base", "tuned"]
    assert "text_to_image_recall@1" in result.measures("tuned")
    tuned = load_multimodal(tmp_path / "run")
    assert tuned.head is not None
    assert tuned.made_by["recipe"]["method"] == "sugar"


@pytest.mark.parametrize("path", CLASSIFIERS, ids=named)
def test_it_runs_a_step(world: World, tmp_path: Path, path: Path) -> None:
    changes = {**world.changes, "output": str(tmp_path / "run")}
    values = read_recipe(path).values
    if values["encoder"].get("init"):
        changes["encoder.init"] = str(aligned(world))
        del changes["encoder.name"]
    if values["data"].get("real"):
        changes["data.real.path"] = str(world.root / "shots")
    if values.get("head_first"):
        changes["head_first.epochs"] = 1
    config = load_recipe(path, CONFIGS, [f"{key}={value}" for key, value in changes.items()])
    result = run(config, quiet=True)
    assert isinstance(result, Result)
    assert result.summary["cost"]["updates"] >= 1
    assert {"zero_shot", "tuned", "blend"} <= set(result.readings)
    assert "real" in result.readings["tuned"]
    assert (tmp_path / "run" / "model" / "gen2real.json").exists()


@pytest.mark.parametrize("path", GENERATIONS, ids=named)
def test_it_draws(world: World, tmp_path: Path, path: Path) -> None:
    source = tmp_path / ("names.txt" if path.stem != "captions" else "captions.jsonl")
    source.write_text("cat\ndog\n" if path.stem != "captions" else '{"caption": "a cat"}\n')
    per_class = {} if path.stem == "captions" else {"per_class": 1}
    small = {"name": str(world.generator), "steps": 1, "width": 32, "height": 32}
    changes = {f"generators.0.{key}": value for key, value in small.items()} | per_class
    changes |= {"source": source, "output": tmp_path / "set", "device": "cpu"}
    config = load_recipe(path, {"generate": GenerateConfig}, [f"{key}={value}" for key, value in changes.items()])
    assert isinstance(config, GenerateConfig)
    made = generate(config, quiet=True)
    assert made is not None
    assert len(made) == len(source.read_text().splitlines())


def tuned_together(world: World) -> dict[str, Any]:
    """What a user brings for UniDiff, and as little as shows that a recipe runs."""
    return {
        "models.clip": world.root / "clip",
        "models.generator": world.generator,
        "data.pictures": world.root / "real",
        "data.evaluation": world.root / "shots",
        "data.general": "null",
        "data.holdout": 0,
        "data.views": 1,
        "drawing": f"{{prompts: [a], pictures: 2, sampled_prompts: 0, steps: 1, scorer: {world.root / 'scorer'}}}",
        "training": "{steps: 1, batch_size: 4}",
        "synthesis.pictures": "null",
    }


@pytest.mark.parametrize("path", JOINT, ids=named)
def test_it_tunes_both_models_for_a_step(world: World, tmp_path: Path, path: Path) -> None:
    changes = {**tuned_together(world), "output": tmp_path / "run"}
    result = run(load_recipe(path, CONFIGS, [f"{key}={value}" for key, value in changes.items()]), quiet=True)
    assert isinstance(result, Measured)
    assert result.summary["cost"]["updates"] == 1
    assert list(result.readings) == ["original", "tuned"]
    assert {"image_to_text_recall@1", "kernel_distance"} <= set(result.measures("tuned"))
    assert (tmp_path / "run" / "model" / "config.json").exists()
    assert (tmp_path / "run" / "generator" / "model_index.json").exists()


@pytest.mark.parametrize("path", [path for path in COMPARISONS if COMPARED[path] == "unidiff"], ids=named)
def test_it_compares_losses(world: World, tmp_path: Path, path: Path) -> None:
    # The originals are looked at once for all arms.
    changes = {f"set.{key}": value for key, value in tuned_together(world).items()}
    changes |= {"output": tmp_path, "seeds": "[0]"}
    config = load_recipe(path, {"compare": CompareConfig}, [f"{key}={value}" for key, value in changes.items()])
    assert isinstance(config, CompareConfig)
    rows = rows_of(config, path)
    told = {arm: read_json(tmp_path / row.runs[0] / "result.json") for arm, row in rows.items()}
    assert {one["cost"]["updates"] for one in told.values()} == {1}, "arms are compared at equal steps"
    recipes = {arm: read_json(tmp_path / row.runs[0] / "recipe.json") for arm, row in rows.items()}
    forms = {arm: one["consistency"]["form"] for arm, one in recipes.items() if one["consistency"]["weight"]}
    assert set(forms.values()) == {"features", "relational", "decoded"}
    assert {one["consistency"]["direction"] for one in recipes.values()} == {
        "both", "clip_to_diffusion", "diffusion_to_clip",
    }  # fmt: skip
    assert set(config.against) == {"ITC", "IS", "ITC + IS"}
    assert rows["original"].runs == rows["features"].runs
    assert (rows["original"].reading, rows["features"].reading) == ("original", "tuned")


@pytest.mark.parametrize("path", [path for path in COMPARISONS if COMPARED[path] == "sugar"], ids=named)
def test_it_compares_the_parts_of_sugar(
    world: World, tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is looked up lies where the recipe says, seen from here.
    monkeypatch.chdir(tmp_path)
    known = tmp_path / "runs" / "kit" / "sets" / "home-known" / "questions.jsonl"
    pictures = ImageSet.read(world.root / "real").paths
    for file, picture in ((known, pictures[0]), (tmp_path / "asked.jsonl", pictures[-1])):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_questions(file, [{"image": str(picture), "question": "what colour?", "answer": "red"}])
    changes = {key: own for key, own in taught_and_asked(world, tmp_path).items() if not key.startswith("head.")} | {
        "evaluation": f"{{questions: {{task: questions, path: {tmp_path / 'asked.jsonl'}}}}}",
        "decoding.max_tokens": 2,
        "head": "{width: 8, dim: 8, whiten: true, first_updates: 2, samples: 4}",
    }
    small = load_recipe(
        path.parent / read_recipe(path).values["recipe"], CONFIGS, [f"{key}={value}" for key, value in changes.items()]
    )
    (tmp_path / "small.yaml").write_text(dump(small))
    overrides = [f"recipe={tmp_path / 'small.yaml'}", f"output={tmp_path / 'compared'}", "seeds=[0]"]
    config = load_recipe(path, {"compare": CompareConfig}, overrides)
    assert isinstance(config, CompareConfig)
    rows = rows_of(config, path)
    recipes = {arm: read_json(tmp_path / "compared" / row.runs[0] / "recipe.json") for arm, row in rows.items()}
    assert {one["training"]["steps"] for one in recipes.values()} == {1}, "arms are compared at equal steps"
    by_sugar = {arm for arm, row in rows.items() if row.runs == rows["Sugar"].runs}
    assert {rows[arm].reading for arm in by_sugar} == {"base", "tuned", "own_1", "own_3", "clip_1", "clip_3"}
    controls = {
        "α = 0": ("discriminative", "weight", 0),
        "head alone": ("discriminative", "reach", "head"),
        "InfoNCE": ("discriminative", "form", "infonce"),
        "last image token": ("discriminative", "image_readout", "last"),
        "mean of slices": ("kernel", "alignment", "mean"),
        "one encoder": ("kernel", "local", "joint"),
    }
    assert {arm for arm in rows if arm not in by_sugar} == set(controls)
    for arm, (section, key, value) in controls.items():
        assert [own for own in recipes if recipes[own][section][key] == value] == [arm]
    # What was written can be run again.
    again = load_recipe(tmp_path / "compared" / "recipe.yaml", {"compare": CompareConfig})
    assert isinstance(again, CompareConfig)
    assert again.arms == config.arms


@pytest.mark.parametrize("path", CIRCLES, ids=named)
def test_it_goes_round(world: World, tmp_path: Path, path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{name}\n" for name in COLOURS))
    joint = {**tuned_together(world), "data.evaluation": "null"}
    drawn = {"source": names, "per_class": 2, "generators.0.steps": 1, "dtype": "float32"}
    drawn |= {"generators.0.name": world.generator}
    taught = {key: world.changes[key] for key in ("encoder.name", "data.evaluation", "training.steps")}
    steps = {"drawn", "drawn by the tuned", "drawn by the tuned, decoded"}
    parts = {"joint": joint, "joint, decoded": joint, **dict.fromkeys(steps, drawn)}
    config = load_comparison(path)
    changes = {f"arms.{arm}.set.{key}": value for arm in config.arms for key, value in parts.get(arm, taught).items()}
    overrides = [f"{key}={value}" for key, value in changes.items()] + [f"output={tmp_path / 'out'}", "seeds=[0]"]
    table = compare(load_recipe(path, {"compare": CompareConfig}, overrides), quiet=True)  # type: ignore[arg-type]
    assert isinstance(table, MeasuredTable)
    rows = {row.arm: row for row in table.rows}
    assert set(config.arms) - set(rows) == steps
    assert not rows["joint"].measures
    recipes = {arm: read_json(tmp_path / "out" / row.runs[0] / "recipe.json") for arm, row in rows.items()}
    joint_run, decoded_run = (str(tmp_path / "out" / rows[arm].runs[0]) for arm in ("joint", "joint, decoded"))
    begun = {arm: one.get("encoder", {}).get("name") for arm, one in recipes.items()}
    tuned, decoded = ({arm for arm, name in begun.items() if name == run} for run in (joint_run, decoded_run))
    assert tuned == {"tuned CLIP", "tuned CLIP, zero-shot", "whole circle"}
    assert decoded == {"tuned CLIP, decoded", "whole circle, decoded"}
    learnt = {arm: one["data"]["generated"][0]["path"] for arm, one in recipes.items() if "data" in one and
              "generated" in one["data"]}  # fmt: skip
    assert learnt["whole circle"] == learnt["tuned generator"] != learnt["untuned circle"] == learnt["tuned CLIP"]
    by = {arm: ImageSet.read(learnt[arm]).table.column("generator")[0].as_py() for arm in learnt}
    assert (by["untuned circle"], by["whole circle"]) == (str(world.generator), joint_run)
    assert by["whole circle, decoded"] == decoded_run
    assert set(rows["whole circle"].tests) == {"zero-shot", "untuned circle"}


@pytest.mark.parametrize("path", [path for path in COMPARISONS if COMPARED[path] == "gmail"], ids=named)
def test_it_compares_alignments(world: World, tmp_path: Path, path: Path) -> None:
    changes = {f"set.{key}": value for key, value in world.pairs.items()} | {"output": tmp_path, "seeds": "[0]"}
    if "sizes" in read_recipe(path).values:
        changes["sizes"] = "[4, 9]"
    config = load_recipe(path, {"compare": CompareConfig}, [f"{key}={value}" for key, value in changes.items()])
    assert isinstance(config, CompareConfig)
    assert len(load_comparison(path).seeds) >= 5
    assert config.against == ("baseline", "no alignment")
    table = compare(config, quiet=True)
    assert isinstance(table, MeasuredTable)
    assert list(dict.fromkeys(row.of for row in table.rows)) == list(config.arms)
    assert set(table.measures) == {"top1", "image_to_text_recall@1", "text_to_image_recall@1"}
    for row in table.rows:
        assert "baseline" in row.tests or row.arm == "baseline"
        spent = {read_json(tmp_path / run / "result.json")["cost"]["updates"] for run in row.runs.values()}
        assert spent == {1}, "arms are compared at equal steps"
    rows = {row.arm: row for row in table.rows}
    if config.sizes:
        assert {(point.arm, point.size) for point in table.scaling} == {
            (arm, size) for arm in ("no alignment", "aligned") for size in (4, 9)
        }
    else:
        assert rows["aligned, one tower"].runs == rows["aligned"].runs == rows["baseline"].runs
        assert {arm: row.reading for arm, row in rows.items() if row.reading != "f_r"} == {
            "baseline": "baseline", "no alignment, one tower": "f_g", "aligned, one tower": "f_g",
            "equation 1 alone": "f_g",
        }  # fmt: skip


@pytest.mark.parametrize("path", [path for path in COMPARISONS if COMPARED[path] == "captioning"], ids=named)
def test_it_compares_captioners(world: World, tmp_path: Path, path: Path) -> None:
    changes = {f"set.{key}": value for key, value in world.pairs.items()} | {"output": tmp_path, "seeds": "[0]"}
    changes |= {"arms.none.set.decoder.name": world.root / "gpt2", "arms.none.set.data.real": world.root / "shots"}
    captioners = [arm for arm in load_comparison(path).arms if arm != "alignment"]
    changes |= {f"arms.{arm}.set.decoding.max_tokens": 8 for arm in captioners}
    config = load_recipe(path, {"compare": CompareConfig}, [f"{key}={value}" for key, value in changes.items()])
    assert isinstance(config, CompareConfig)
    assert len(load_comparison(path).seeds) >= 5
    table = compare(config, quiet=True)
    assert isinstance(table, MeasuredTable)
    assert {"none", "generated", "generated + GMAIL", "real", "real + GMAIL"} <= {row.arm for row in table.rows}
    runs = {row.arm: read_json(tmp_path / row.runs[0] / "result.json") for row in table.rows}
    assert runs["generated + GMAIL"]["stage"]["reading"] == "a"
    assert runs["real + GMAIL"]["pictures"]["real"] == len(ImageSet.read(world.root / "real"))
    assert runs["real"]["pictures"]["generated"] == 0
    assert set(table.measures) == {"cider", "bleu4", "rouge_l"}
    assert {row.arm: set(row.tests) for row in table.rows if row.arm != "alignment"} == {
        arm: {"none", "generated"} - {arm} for arm in captioners
    }


def rows_of(config: CompareConfig, path: Path) -> dict[str, MeasuredRow]:
    """A row for every arm of the recipe that `config` is a small form of; the recipe itself has seeds enough."""
    assert len(load_comparison(path).seeds) >= 5
    table = compare(config, quiet=True)
    assert isinstance(table, MeasuredTable)
    rows = {row.arm: row for row in table.rows}
    assert list(rows) == list(config.arms)
    return rows


def load_comparison(path: Path) -> CompareConfig:
    config = load_recipe(path, {"compare": CompareConfig})
    assert isinstance(config, CompareConfig)
    return config


@pytest.mark.parametrize(
    "path", [path for path in COMPARISONS if COMPARED[path] == "regft" and path not in CIRCLES], ids=named
)
def test_it_compares_every_arm(world: World, tmp_path: Path, path: Path) -> None:
    changes = {f"set.{key}": value for key, value in world.changes.items()} | {"output": str(tmp_path), "seeds": "[0]"}
    config = load_recipe(path, {"compare": CompareConfig}, [f"{key}={value}" for key, value in changes.items()])
    assert isinstance(config, CompareConfig)
    table = compare(config, quiet=True)
    assert table is not None
    assert [row.arm for row in table.rows] == list(config.arms)
    assert {"zero-shot", "plain FT"} <= set(config.against)
    for row in table.rows:
        assert set(row.tests) == set(config.against) - {row.arm}


def test_the_comparison_has_every_baseline() -> None:
    config = load_recipe(ROOT / "recipes" / "compare" / "regft.yaml", {"compare": CompareConfig})
    assert isinstance(config, CompareConfig)
    assert len(config.seeds) >= 5
    for arm in (
        "zero-shot", "plain FT", "linear probe", "LP-FT", "FLYP", "FLYP, positives", "soft targets", "VICReg's K",
        "output ensemble", "uniform soup", "greedy soup",
    ):  # fmt: skip
        assert arm in config.arms, arm
