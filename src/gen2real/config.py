"""Recipes: one YAML file is one run, complete and typed. Load it, override it, validate it, print it.

A method's settings are a subclass of `Config` with `method: Literal["name"] = "name"` among its fields. A recipe is
that config in YAML; `base: other.yaml` at its top lays the recipe over another one. Faults are reported all at once,
each with file and line, the whole key, what was given, what was expected and the nearest valid spelling.
"""

from __future__ import annotations

import copy
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo

from gen2real.recipe import KeyPath, Recipe, did_you_mean, dotted, nearest, read_recipe, recipe_error, shown, to_yaml

__all__ = [
    "Config",
    "RecipeName",
    "RecipePath",
    "differing_keys",
    "dump",
    "load_recipe",
    "nearest",
    "parse_config",
    "to_json",
]

ConfigType = TypeVar("ConfigType", bound="Config")


class Config(BaseModel):
    """Settings: frozen, complete, and without room for a key nobody reads."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, protected_namespaces=()
    )


def _beside_the_recipe(value: Path, info: ValidationInfo) -> Path:
    value = value.expanduser()
    folders = (info.context or {}).get("folders", {}).get(str(value), ())
    return next((_plain(folder / value) for folder in folders if (folder / value).exists()), value)


def _plain(path: Path) -> Path:
    """Without `..`, and relative to the working directory if in it: however a recipe was named, the same run."""
    absolute, here = Path(os.path.abspath(path)), Path.cwd()
    return absolute.relative_to(here) if absolute.is_relative_to(here) else absolute


def _folder_or_name(value: str, info: ValidationInfo) -> str:
    found = _beside_the_recipe(Path(value), info)
    return str(found) if found.exists() else value


RecipeName = Annotated[str, AfterValidator(_folder_or_name)]
"""A folder, found as a `RecipePath` is, or where there is none a name that means something elsewhere, as on the hub."""

RecipePath = Annotated[Path, AfterValidator(_beside_the_recipe)]
"""A path to something that exists: relative to the folder of the recipe that names it if it is there, else to the
working directory. What a run writes is a plain `Path`."""


def _paths_within(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, dict):
        return {key: _paths_within(own, info) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_paths_within(own, info) for own in value]
    return _folder_or_name(value, info) if isinstance(value, str) and value.startswith(("./", "../")) else value


RecipeValues = Annotated[dict[str, Any], AfterValidator(_paths_within)]
"""Values for another recipe, dotted key → value. A text in them that begins with ./ or ../ is a `RecipePath`."""


def load_recipe(path: str | Path, config_types: Mapping[str, type[Config]], overrides: Sequence[str] = ()) -> Config:
    """The settings of a recipe file: its base, the file itself, then `overrides` ("optimizer.lr=3e-5"), validated.

    The value of an override is YAML and replaces what was there; a number in its key is a place in a list
    ("data.generated.0.weight=2").

    Raises: RecipeError listing every fault.
    """
    recipe = read_recipe(Path(path))
    for override in overrides:
        recipe.override(override)
    method, methods = recipe.values.get("method"), sorted(config_types)
    if not isinstance(method, str) or method not in config_types:
        given = f"given {shown(method)}; expected" if "method" in recipe.values else "missing; expected"
        near = nearest(method, methods) if isinstance(method, str) else None
        if "method" not in recipe.values and (key := nearest("method", map(str, recipe.values))):
            given = f"missing (is {key} meant for it?); expected"
        fault = f"{recipe.where(('method',))}: method: {given} one of {', '.join(methods)}{did_you_mean(near)}"
        raise recipe_error(str(path), [*recipe.faults, fault])
    config_type = config_types[method]
    if "method" not in config_type.model_fields:
        del recipe.values["method"]
    return _validate(config_type, recipe, f"{path} (method {method})")


def parse_config(config_type: type[ConfigType], values: Mapping[str, Any], *, source: str) -> ConfigType:
    """The settings that plain values describe; `source` says in errors where they came from.

    Raises: RecipeError listing every fault.
    """
    return _validate(config_type, Recipe(source, values=copy.deepcopy(dict(values))), source)


def dump(config: Config) -> str:
    """The whole of `config` as YAML that loads back to an equal one."""
    return to_yaml(to_json(config))


def to_json(config: Config) -> dict[str, Any]:
    """The whole of `config` as JSON-like values: paths are strings, tuples are lists."""
    return config.model_dump(mode="json")


def differing_keys(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`key: old → new` for every leaf that differs between two nested mappings."""
    changes = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes += differing_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            changes.append(f"{prefix}{key}: {old!r} → {new!r}")
    return changes


def _validate(config_type: type[ConfigType], recipe: Recipe, title: str) -> ConfigType:
    """Validates; each unknown key is taken for the sibling it resembles, so that one typo hides no other fault."""
    values, faults = copy.deepcopy(recipe.values), list(recipe.faults)
    context = {"folders": _folders(recipe)}
    renamed: dict[KeyPath, str] = {}

    def fault(path: KeyPath, message: str) -> None:
        path = tuple(renamed.get(path[: index + 1], part) for index, part in enumerate(path))
        faults.append(f"{recipe.where(path)}: {dotted(path) + ': ' if path else ''}{message}")

    while True:
        try:
            config = config_type.model_validate(values, context=context)
        except ValidationError as error:
            errors = [(_path_of(one, values), one) for one in error.errors(include_url=False)]
        else:
            break
        unknown = {path for path, one in errors if one["type"] == "extra_forbidden"}
        unknown = {path for path in unknown if path[-1] not in _keys(config_type, path[:-1])}
        for path in sorted(unknown, key=str):
            near = _nearest_key(config_type, path)
            fault(path, f"unknown key{did_you_mean(dotted(near) if near else None)}")
            section = _at(values, path[:-1])
            value = section.pop(path[-1])
            if near and near[:-1] == path[:-1] and near[-1] not in section:
                section[near[-1]] = value
                renamed[near] = str(path[-1])
        if not unknown:
            for path in dict.fromkeys(path for path, _ in errors):
                fault(path, _explained(config_type, path, [one for at, one in errors if at == path]))
            break
    # pydantic would take true for the number 1.
    for path in _truths(values):
        if _counts_only(_kinds(config_type, path)):
            fault(path, f"given {shown(_at(values, path))}; expected a number")
    if faults:
        raise recipe_error(title, faults)
    return config


def _explained(config_type: type[Config], path: KeyPath, errors: Sequence[Any]) -> str:
    """What was given and what was expected, for all errors at one key (a union has one for each member)."""
    if any(one["type"] == "missing" for one in errors):
        return "missing; it has no default"
    if all(one["type"] == "extra_forbidden" for one in errors):
        return f"unknown key here, in a section of the kind {errors[0]['loc'][-2]}"
    expected: list[str] = []
    allowed: list[str] = []
    said: list[str] = []
    given = errors[0]["input"]
    for one in errors:
        context = one.get("ctx", {})
        match one["type"]:
            case "value_error" | "assertion_error":
                said.append(str(context["error"]))
                continue
            case "literal_error" | "enum":
                message = context["expected"]
                allowed += re.findall(r"'([^']*)'", message)
            case "union_tag_invalid":
                message, name = context["expected_tags"], context["discriminator"].strip("'")
                given = context["tag"]
                message = f"for its key {name} one of {message}"
                allowed += re.findall(r"'([^']*)'", context["expected_tags"])
            case "model_type" | "model_attributes_type":
                message = f"a section with the keys {', '.join(_keys(config_type, path))}"
            case "path_type":
                message = "a path"
            case _:
                message = one["msg"].removeprefix("Input should be ").split(", unable")[0]
                message = re.sub(r"\ba valid (?=[aeiou])", "an ", message).replace("a valid ", "a ")
        if message not in expected:
            expected.append(message)
    near = nearest(given, allowed) if isinstance(given, str) else None
    if expected:
        said.insert(0, f"expected {', or '.join(expected)}")
    if not isinstance(given, dict) or not _keys(config_type, path):
        said.insert(0, f"given {shown(given)}")
    return "; ".join(said) + did_you_mean(near and repr(near))


def _path_of(error: Any, values: Any) -> KeyPath:
    """The key path of an error; pydantic's locations also name the members of unions, which are no keys."""
    path: list[str | int] = []
    for index, part in enumerate(error["loc"]):
        if (isinstance(values, dict) and part in values) or (isinstance(values, list) and part in range(len(values))):
            path.append(part)
            values = values[part]
        elif error["type"] == "missing" and index == len(error["loc"]) - 1:
            path.append(part)
    return tuple(path)


def _nearest_key(config_type: type[Config], path: KeyPath) -> KeyPath | None:
    """The valid key a wrong one stands for: the same name in another section, a sibling, or one like it anywhere."""
    name = str(path[-1])
    everywhere = list(_key_paths(config_type, path[:-1]))
    same = [other for other in everywhere if other[-1] == name]
    if same:
        return min(same, key=len)
    sibling = nearest(name, _keys(config_type, path[:-1]))
    if sibling:
        return (*path[:-1], sibling)
    near = nearest(name, [str(other[-1]) for other in everywhere])
    return min((other for other in everywhere if other[-1] == near), key=len, default=None)


def _key_paths(config_type: type[Config], beside: KeyPath, at: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key of a config; a list is entered at the place `beside` names, else at its first."""
    if len(at) > 8:
        return
    for key in _keys(config_type, at):
        path = (*at, key)
        yield path
        yield from _key_paths(config_type, beside, path)
        place = beside[len(path)] if len(beside) > len(path) and beside[: len(path)] == path else 0
        if isinstance(place, int) and _keys(config_type, (*path, place)):
            yield from _key_paths(config_type, beside, (*path, place))


def _keys(config_type: type[Config], path: KeyPath) -> list[str]:
    """The keys that are valid in the section at `path`; none where it is no section."""
    sections = [kind for kind in _kinds(config_type, path) if _is_section(kind)]
    return list(dict.fromkeys(name for kind in sections for name in kind.model_fields))


def _kinds(config_type: type[Config], path: KeyPath) -> list[Any]:
    """The types a value at `path` may have."""
    places: list[Any] = [config_type]
    for part in path:
        places = [inner for place in places for inner in _inside(place, part)]
    return [kind for place in places for kind in _alternatives(place)]


def _inside(annotation: Any, part: str | int) -> Iterator[Any]:
    """The types that may stand at one key or place of a type."""
    for kind in _alternatives(annotation):
        arguments = [argument for argument in get_args(kind) if argument is not Ellipsis]
        container = get_origin(kind)
        if _is_section(kind):
            if part in kind.model_fields:
                yield kind.model_fields[part].annotation
        elif isinstance(container, type) and issubclass(container, Mapping):
            yield from arguments[1:]
        elif isinstance(container, type) and isinstance(part, int):
            yield from arguments


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The members of a union, without what annotates them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member)
    else:
        yield annotation


def _truths(values: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Where true or false was written."""
    if isinstance(values, bool):
        yield path
    elif isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _truths(value, (*path, key))


def _counts_only(kinds: Sequence[Any]) -> bool:
    """Whether these types take numbers but neither true nor false."""
    truth = any(kind is bool or isinstance(one, bool) for kind in kinds for one in (*get_args(kind), None))
    return not truth and any(kind in (int, float) for kind in kinds)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _folders(recipe: Recipe) -> dict[str, list[Path]]:
    """Which folders each text of the recipe was written in; an override is read from the working directory."""
    found: dict[str, list[Path]] = {}
    for path, folder in recipe.folders.items():
        value = _at(recipe.values, path)
        if isinstance(value, str) and value:
            found.setdefault(str(Path(value).expanduser()), []).append(folder)
    return found


def _at(values: Any, path: KeyPath) -> Any:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else values[part]
    return values
