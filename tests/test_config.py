from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

from gen2real.config import (
    Config,
    RecipeName,
    RecipePath,
    RecipeValues,
    differing_keys,
    dump,
    load_recipe,
    nearest,
    parse_config,
    to_json,
)
from gen2real.errors import RecipeError


class Optimizer(Config):
    lr: float = 1e-5
    weight_decay: float = 0.1
    name: Literal["adamw", "sgd"] = "adamw"


class Pictures(Config):
    path: RecipePath
    weight: float = 1.0


class Crop(Config):
    kind: Literal["crop"] = "crop"
    scale: float = 0.5


class Pad(Config):
    kind: Literal["pad"] = "pad"
    margin: int = 0

    @model_validator(mode="after")
    def _margin_is_even(self) -> Pad:
        if self.margin % 2:
            raise ValueError("padding needs an even margin")
        return self


class Data(Config):
    generated: tuple[Pictures, ...] = ()
    size: int = 224
    fit: Annotated[Crop | Pad, Field(discriminator="kind")] = Crop()


class Recipe(Config):
    method: Literal["regft"] = "regft"
    out: Path
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    alpha: float | Literal["auto"] = 0.5
    note: str | None = None
    encoder: RecipeName = "hub/clip"
    resume: bool = True
    towers: dict[str, Optimizer] = Field(default_factory=dict)

    @field_validator("alpha")
    @classmethod
    def _between(cls, value: Any) -> Any:
        if value != "auto" and not 0 <= value <= 1:
            raise ValueError("it lies between 0 and 1, or is auto")
        return value


class Other(Config):
    method: Literal["gmail"] = "gmail"
    steps: int = 1


METHODS = {"regft": Recipe, "gmail": Other}


def write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> Any:
    return load_recipe(write(folder, "method: regft\nout: here\n" + text), METHODS, overrides)


def faults(folder: Path, text: str, *overrides: str) -> list[str]:
    """The lines of the error, without the folder."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(folder, text), METHODS, overrides)
    return [line.strip().replace(f"{folder}/", "") for line in str(caught.value).splitlines()]


def test_a_recipe_is_loaded_with_its_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "optimizer: {lr: 3e-5}\nalpha: auto\n")
    assert isinstance(config, Recipe)
    assert config == Recipe(out=Path("here"), optimizer=Optimizer(lr=3e-5), alpha="auto")


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load(tmp_path, "").alpha = 0.1


def test_every_fault_is_listed_and_a_misspelt_section_hides_none(tmp_path: Path) -> None:
    text = """\
method: regft
out: here
data:
  sise: 224
  generated:
  - {path: a, wieght: 2}
optimiser:
  lr_rate: 1e-4
  lr: fast
  name: adam
lr: 1e-4
note: 3
"""
    title, *listed = faults(tmp_path, text, "optimiser.weight_dacay=1", "alpha=2")
    assert title == "recipe.yaml (method regft) has 10 faults:"
    assert set(listed) == {
        "recipe.yaml:4: data.sise: unknown key; did you mean data.size?",
        "recipe.yaml:6: data.generated.0.wieght: unknown key; did you mean data.generated.0.weight?",
        "recipe.yaml:7: optimiser: unknown key; did you mean optimizer?",
        "--set optimiser.weight_dacay=1: optimiser.weight_dacay: unknown key; did you mean optimizer.weight_decay?",
        "recipe.yaml:8: optimiser.lr_rate: unknown key; did you mean optimizer.lr?",
        "recipe.yaml:10: optimiser.name: given 'adam'; expected 'adamw' or 'sgd'; did you mean 'adamw'?",
        "recipe.yaml:11: lr: unknown key; did you mean optimizer.lr?",
        "recipe.yaml:12: note: given 3; expected a string",
        "recipe.yaml:9: optimiser.lr: given 'fast'; expected a number",
        "--set alpha=2: alpha: given 2; it lies between 0 and 1, or is auto",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learning_rate: 1", "learning_rate: unknown key; did you mean optimizer.lr?"),
        ("zzz: 1", "zzz: unknown key"),
        ("Alpha: 0.1", "Alpha: unknown key; did you mean alpha?"),
        ("data: {fit: {kind: crap}}", "data.fit: given 'crap'; expected for its key kind one of 'crop', 'pad'"),
        ("data: {fit: {kind: pad, scale: 1}}", "data.fit.scale: unknown key here, in a section of the kind pad"),
        ("data: {fit: {kind: pad, margin: 3}}", "data.fit: padding needs an even margin"),
        ("alpha: autp", "alpha: given 'autp'; expected a number, or 'auto'; did you mean 'auto'?"),
        ("alpha: true", "alpha: given True; expected a number"),
        ("alpha: .nan", "alpha: given nan; expected a finite number, or 'auto'"),
        ("data: {size: 1.5}", "data.size: given 1.5; expected an integer, got a number with a fractional part"),
        ("optimizer:", "optimizer: given null; expected a section with the keys lr, weight_decay, name"),
        ("towers: {a: {lrr: 1}}", "towers.a.lrr: unknown key; did you mean towers.a.lr?"),
        ("data: {generated: [{weight: 1}]}", "data.generated.0.path: missing; it has no default"),
    ],
)
def test_one_fault_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    (only,) = faults(tmp_path, f"method: regft\nout: here\n{line}\n")
    assert only.startswith(f"recipe.yaml:3: {message}")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert faults(tmp_path, "method: regft\n") == ["recipe.yaml: out: missing; it has no default"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: regtf\n", "recipe.yaml:1: method: given 'regtf'; expected one of gmail, regft; did you mean regft?"),
        ("method: 3\n", "recipe.yaml:1: method: given 3; expected one of gmail, regft"),
        ("out: x\n", "recipe.yaml: method: missing; expected one of gmail, regft"),
        ("methd: regft\n", "recipe.yaml: method: missing (is methd meant for it?); expected one of gmail, regft"),
        ("", "recipe.yaml: the file is empty; expected keys and values, beginning with `method: …`"),
        ("# nothing\n", "recipe.yaml: the file is empty; expected keys and values, beginning with `method: …`"),
        ("- 1\n", "recipe.yaml: given [1]; expected keys and values, beginning with `method: …`"),
        ("a: [1\n", "recipe.yaml:2:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: !!python/name:os.system x\n", "recipe.yaml:1:4: not valid YAML: could not determine a constructor"),
        ("a: &a [*a]\n", "recipe.yaml:1:4: not valid YAML: an alias that contains itself"),
        ("? [a]\n: 1\n", "recipe.yaml:1:3: not valid YAML: a key must be a word"),
        ("a: \x00\n", "recipe.yaml: not valid YAML: unacceptable character"),
        ("a: 1\n---\nb: 2\n", "recipe.yaml:2:1: not valid YAML: but found another document"),
    ],
)
def test_what_is_no_recipe_is_told_why(tmp_path: Path, text: str, message: str) -> None:
    assert faults(tmp_path, text)[0].startswith(message)


def test_a_key_given_twice_is_a_fault(tmp_path: Path) -> None:
    found = faults(tmp_path, "method: regft\nout: a\nnote: x\nout: b\n")
    assert found == ["recipe.yaml:4: out: given twice, the first time in line 2; keep one"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, "method: gmail\n", "gmail.yaml")
    with pytest.raises(RecipeError, match=r"gmial\.yaml: no such recipe; did you mean .*gmail\.yaml\?"):
        load_recipe(tmp_path / "gmial.yaml", METHODS)
    with pytest.raises(RecipeError, match=r"is a folder; expected a recipe file\. Recipes in it: gmail\.yaml"):
        load_recipe(tmp_path, METHODS)
    (tmp_path / "latin.yaml").write_bytes(b"note: caf\xe9\n")
    with pytest.raises(RecipeError, match="expected a YAML file in UTF-8"):
        load_recipe(tmp_path / "latin.yaml", METHODS)
    (tmp_path / "marked.yaml").write_bytes(b"\xef\xbb\xbfmethod: gmail\n")
    assert load_recipe(tmp_path / "marked.yaml", METHODS) == Other()


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-4", 1e-4),
        ("1E+2", 100.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-2", -2.0),
        ("010", 10.0),
        ("0x10", 16.0),
        ("0o10", 8.0),
    ],
)
def test_numbers_are_those_of_yaml_1_2(tmp_path: Path, written: str, value: float) -> None:
    assert load(tmp_path, f"optimizer: {{lr: {written}}}\n").optimizer.lr == value


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "2024-01-01", "1:30", "1_000"])
def test_words_stay_words(tmp_path: Path, word: str) -> None:
    assert load(tmp_path, f"note: {word}\n").note == word


@pytest.mark.parametrize(("word", "value"), [("yes", True), ("off", False), ("true", True), ("False", False)])
def test_a_switch_takes_words(tmp_path: Path, word: str, value: bool) -> None:
    assert load(tmp_path, f"resume: {word}\n").resume is value


def test_overrides(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "data: {generated: [{path: a}, {path: b}]}\nnote: x\n",
        "optimizer.lr=3e-5",
        "data.generated.1.weight=2",
        "data.fit={kind: pad, margin: 4}",
        'towers={"text": {"lr": 1}}',
        "towers.image.lr=2",
        "note=a=b",
        "out=",
        "out=there",
    )
    assert config.optimizer.lr == 3e-5
    assert [one.weight for one in config.data.generated] == [1, 2]
    assert config.data.fit == Pad(margin=4)
    assert {name: one.lr for name, one in config.towers.items()} == {"text": 1, "image": 2}
    assert config.note == "a=b"
    assert config.out == Path("there")


def test_an_override_replaces_a_section(tmp_path: Path) -> None:
    assert load(tmp_path, "optimizer: {lr: 1, name: sgd}\n", "optimizer={lr: 2}").optimizer == Optimizer(lr=2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("alpha", "--set alpha: given 'alpha'; expected key=value, as in optimizer.lr=3e-5"),
        ("data..size=1", "--set data..size=1: given 'data..size=1'; expected key=value"),
        (
            "data.generated.2.weight=1",
            "--set data.generated.2.weight=1: data.generated: given place '2'; expected 0 to 0",
        ),
        ("data.generated.x=1", "--set data.generated.x=1: data.generated: given place 'x'; expected 0 to 0"),
        ("note=[1", "--set note=[1: not valid YAML"),
        ("alpha.x=1", "--set alpha.x=1: alpha: given {'x': 1}; expected"),
        ("optimizer.lr=fast", "--set optimizer.lr=fast: optimizer.lr: given 'fast'; expected a number"),
        ("optimzer.lr=1", "--set optimzer.lr=1: optimzer: unknown key; did you mean optimizer?"),
        (
            "method=gmial",
            "--set method=gmial: method: given 'gmial'; expected one of gmail, regft; did you mean gmail?",
        ),
    ],
)
def test_a_fault_in_an_override_names_the_override(tmp_path: Path, override: str, message: str) -> None:
    text = "method: regft\nout: here\ndata: {generated: [{path: a}]}\n"
    assert faults(tmp_path, text, override)[0].startswith(message)


def test_an_override_takes_over_the_line_it_replaces(tmp_path: Path) -> None:
    text = "method: regft\nout: here\noptimizer:\n  lr: fast\n"
    assert load_recipe(write(tmp_path, text), METHODS, ["optimizer.lr=1"]).model_dump()["optimizer"]["lr"] == 1
    (only,) = faults(tmp_path, text, "optimizer={name: x}")
    assert only.startswith("--set optimizer={name: x}: optimizer.name: given 'x'")


def test_a_recipe_is_laid_over_its_base(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    write(tmp_path, "method: regft\nout: here\nnote: root\n", "common/root.yaml")
    middle = "base: root.yaml\noptimizer: {lr: 1, name: sgd}\ndata: {generated: [{path: a}, {path: b}]}\n"
    write(tmp_path, middle, "common/middle.yaml")
    path = write(tmp_path, "base: common/middle.yaml\noptimizer: {lr: 2}\ndata: {generated: [{path: c}]}\n")
    config = load_recipe(path, METHODS)
    assert isinstance(config, Recipe)
    assert config.note == "root"
    assert config.optimizer == Optimizer(lr=2, name="sgd")
    assert [one.path for one in config.data.generated] == [Path("c")]


def test_a_fault_in_a_base_names_the_base(tmp_path: Path) -> None:
    write(tmp_path, "method: regft\nout: here\nnot: 1\nalpha: x\n", "root.yaml")
    assert set(faults(tmp_path, "base: root.yaml\nalpha: 3\n")[1:]) == {
        "root.yaml:3: not: unknown key; did you mean note?",
        "root.yaml:3: not: given 1; expected a string",
        "recipe.yaml:2: alpha: given 3; it lies between 0 and 1, or is auto",
    }


def test_a_base_that_does_not_work(tmp_path: Path) -> None:
    write(tmp_path, "base: recipe.yaml\n", "other.yaml")
    circle = "based on each other in a circle: recipe.yaml → other.yaml → recipe.yaml"
    assert circle in faults(tmp_path, "base: other.yaml\n")[0]
    (missing,) = faults(tmp_path, "base: othr.yaml\n")
    assert missing == "recipe.yaml:1: base: othr.yaml: no such recipe; did you mean other.yaml?"
    assert faults(tmp_path, "base: [a]\n") == [
        "recipe.yaml:1: base: given ['a']; expected the name of another recipe file"
    ]


def test_paths_are_sought_beside_the_recipe_that_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "common" / "set").mkdir(parents=True)
    (tmp_path / "job" / "set").mkdir(parents=True)
    (tmp_path / "job" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "method: regft\nout: here\ndata: {generated: [{path: set}]}\n", "common/root.yaml")
    inherited = write(tmp_path, "base: ../common/root.yaml\n", "job/a.yaml")
    own = write(tmp_path, "base: ../common/root.yaml\ndata: {generated: [{path: set}, {path: gone}]}\n", "job/b.yaml")

    def paths(recipe: Path, *overrides: str) -> list[Path]:
        config = load_recipe(recipe, METHODS, overrides)
        assert isinstance(config, Recipe)
        assert config.out == Path("here"), "what is written is not sought beside the recipe"
        return [one.path for one in config.data.generated]

    assert [path.resolve() for path in paths(inherited)] == [tmp_path / "common" / "set"]
    assert paths(own) == paths(Path("common/../job/b.yaml")) == [Path("job/set"), Path("gone")]
    assert paths(own, "data.generated.0.path=set") == [Path("set"), Path("gone")]


def test_a_name_is_a_folder_where_there_is_one(tmp_path: Path) -> None:
    assert load(tmp_path, "encoder: towers\n").encoder == "towers"
    (tmp_path / "towers").mkdir()
    assert load(tmp_path, "encoder: towers\n").encoder == str(tmp_path / "towers")
    assert load(tmp_path, "").encoder == "hub/clip"


def test_a_home_folder_is_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(tmp_path, "data: {generated: [{path: ~/set}]}\n").data.generated[0].path == tmp_path / "set"


def test_the_dump_is_whole_and_loads_back(tmp_path: Path) -> None:
    config = Recipe(
        out=Path("a b"),
        data=Data(generated=(Pictures(path=Path("x"), weight=1e-7),), fit=Pad()),
        note="1e-4",
        towers={"on": Optimizer(lr=1e22), "010": Optimizer()},
    )
    text = dump(config)
    assert load_recipe(write(tmp_path, text), METHODS) == config
    assert set(to_json(config)) == set(Recipe.model_fields)
    assert to_json(config)["out"] == "a b"
    assert to_json(config)["data"]["generated"] == [{"path": "x", "weight": 1e-7}]


@pytest.mark.parametrize(
    "note", ["", "null", "true", "0o7", "on", "é ü 猫", "a: b", "#", "two\nlines", " x ", "1.5", "~", "-"]
)
def test_any_text_survives_the_dump(tmp_path: Path, note: str) -> None:
    config = Recipe(out=Path("x"), note=note)
    assert load_recipe(write(tmp_path, dump(config)), METHODS) == config


def test_plain_values_are_parsed_and_left_as_they_were() -> None:
    values = {"out": "x", "optimizer": {"lrr": 1}}
    with pytest.raises(RecipeError, match=r"^my call: optimizer\.lrr: unknown key; did you mean optimizer\.lr\?$"):
        parse_config(Recipe, values, source="my call")
    assert values == {"out": "x", "optimizer": {"lrr": 1}}
    assert parse_config(Recipe, {"out": Path("x"), "data": Data(size=3)}, source="my call").data.size == 3


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("lrr", "lr"),
        ("LR", "lr"),
        ("lr_rate", "lr"),
        ("learning_rate", "lr"),
        ("wd", "weight_decay"),
        ("weight-decay", "weight_decay"),
        ("weigth_decay", "weight_decay"),
        ("zebra", None),
        ("", None),
    ],
)
def test_nearest(word: str, near: str | None) -> None:
    assert nearest(word, ["epochs", "lr", "weight_decay"]) == near


def test_config_is_light_to_import() -> None:
    code = "import sys, gen2real.config; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "transformers", "pyarrow", "PIL", "rich"} & set(loaded)


def test_keys_of_one_side_only_differ_too() -> None:
    assert differing_keys({"a": {"b": 1}}, {"a": {"c": 2}}) == ["a.b: 1 → None", "a.c: None → 2"]
    assert differing_keys({"a": {"b": 1}}, {"a": {"b": 1}}) == []
    assert differing_keys({"a": None}, {"a": {"b": 1}}) == ["a: None → {'b': 1}"]


class Several(Config):
    method: Literal["several"] = "several"
    set: RecipeValues = Field(default_factory=dict)


def test_paths_in_values_for_another_recipe_are_those_that_look_like_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sets", "common/cat"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    text = "method: several\nset: {a: ../sets, b: {c: [./cat, ../gone, cat]}, d: 3}\n"
    config = load_recipe(write(tmp_path, text, "common/all.yaml"), {"several": Several})
    assert isinstance(config, Several)
    assert config.set == {"a": "sets", "b": {"c": ["common/cat", "../gone", "cat"]}, "d": 3}
