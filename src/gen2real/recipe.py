"""A recipe as it was written: plain values, the line of each, its base, and the overrides laid over it.

Scalars are those of YAML 1.2: `1e-4` is a number; on, off, yes, no, dates and 1:30 are text; 010 is ten.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from gen2real.errors import RecipeError

KeyPath = tuple[str | int, ...]


@dataclass
class Recipe:
    """Plain values, where each of them was written, and the faults found so far.

    `origins` holds file and line of a key, `folders` the folder of the file that holds it (overrides have none).
    """

    source: str
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    folders: dict[KeyPath, Path] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def where(self, path: KeyPath) -> str:
        """File and line of a key or, where it was not written, of the section it belongs to."""
        return next((self.origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.origins), self.source)

    def overlay(self, over: Recipe) -> None:
        """Lays another recipe over this one: sections merge, anything else is replaced."""
        self._merge(self.values, over.values, ())
        self.origins |= over.origins
        self.folders |= over.folders
        self.faults += over.faults

    def override(self, text: str) -> None:
        """Applies one `a.b=value`; the value is YAML and replaces what was there."""
        source = f"--set {text}"
        name, equals, written = text.partition("=")
        parts = name.strip().split(".")
        if not equals or not all(parts):
            self.faults.append(f"{source}: given {text!r}; expected key=value, as in optimizer.lr=3e-5")
            return
        inner = Recipe(source)
        value = _read_text(written, inner, None)
        if inner.faults:
            self.faults += inner.faults
            return
        here: Any = self.values
        path: KeyPath = ()
        for index, part in enumerate(parts):
            key: str | int = part
            if isinstance(here, list):
                if not part.isdecimal() or int(part) >= len(here):
                    self.faults.append(f"{source}: {dotted(path)}: given place {part!r}; expected {_places(here)}")
                    return
                key = int(part)
            path = (*path, key)
            if index == len(parts) - 1:
                self._replace(path, source)
                here[key] = value
            elif not isinstance(_within(here, key), dict | list):
                self._replace(path, source)
                here[key] = {}
            here = here[key]

    def _merge(self, under: dict[str, Any], over: dict[str, Any], path: KeyPath) -> None:
        for key, value in over.items():
            if isinstance(value, dict) and isinstance(under.get(key), dict):
                self._merge(under[key], value, (*path, key))
            else:
                self._forget((*path, key))
                under[key] = value

    def _replace(self, path: KeyPath, source: str) -> None:
        self._forget(path)
        self.origins[path] = source

    def _forget(self, path: KeyPath) -> None:
        self.origins = {key: value for key, value in self.origins.items() if key[: len(path)] != path}
        self.folders = {key: value for key, value in self.folders.items() if key[: len(path)] != path}


def read_recipe(path: Path) -> Recipe:
    """A recipe file laid over its `base`, that over its own, and so on.

    Raises: RecipeError for what is no recipe at all; the faults of a whole YAML file are listed in the result.
    """
    return _read_file(path, ())


def to_yaml(value: Any) -> str:
    """JSON-like values as YAML that `read_recipe` reads back as they were."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `word`: a typo away, or of the same words or initials; else None."""
    plain = {candidate: _plain(candidate) for candidate in candidates}
    wanted = _plain(word)
    likeness = {key: difflib.SequenceMatcher(None, wanted, text).ratio() for key, text in plain.items()}
    best = max(likeness, key=lambda key: likeness[key], default=None)
    if best is not None and likeness[best] >= 0.6:
        return best
    words = set(wanted.split("_"))
    for key, text in plain.items():
        others = set(text.split("_"))
        if others <= words or words <= others or wanted in (text, _initials(text)) or text == _initials(wanted):
            return key
    return None


def did_you_mean(near: str | None) -> str:
    """The end of an error message that names the nearest valid spelling, if there is one."""
    return f"; did you mean {near}?" if near else ""


def dotted(path: KeyPath) -> str:
    """A key path as a person writes it: `data.generated.0.weight`."""
    return ".".join(map(str, path))


def shown(value: Any) -> str:
    """A value as an error message shows it: short."""
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def recipe_error(title: str, faults: list[str]) -> RecipeError:
    """The exception that lists all of `faults`."""
    if len(faults) == 1:
        return RecipeError(faults[0])
    return RecipeError(f"{title} has {len(faults)} faults:\n" + "\n".join(f"  {fault}" for fault in faults))


def _plain(word: str) -> str:
    return word.casefold().replace("-", "_").strip("_")


def _initials(text: str) -> str:
    return "".join(part[:1] for part in text.split("_")) if "_" in text else text


def _within(values: Any, key: str | int) -> Any:
    return values.get(key) if isinstance(values, dict) else values[key]


def _places(values: list[Any]) -> str:
    return f"0 to {len(values) - 1}" if values else "none, for the list is empty: set it whole"


_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    for _letter in _first:
        _rule = (f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"))
        _RESOLVERS.setdefault(_letter.strip("\0"), []).append(_rule)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _RESOLVERS


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    return int(text, 0) if text.startswith(("0x", "0o")) else int(text)


def _real(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(re.sub(r"\.(?=[in])", "", str(node.value).casefold()))


_Loader.add_constructor("tag:yaml.org,2002:int", _whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _real)


def _read_file(path: Path, chain: tuple[Path, ...]) -> Recipe:
    here = path.resolve()
    if here in chain:
        circle = " → ".join(link.name for link in (*chain[chain.index(here) :], here))
        raise RecipeError(f"the recipes are based on each other in a circle: {circle}")
    if path.is_dir():
        found = ", ".join(sorted(file.name for file in path.glob("*.y*ml"))) or "none"
        raise RecipeError(f"{path} is a folder; expected a recipe file. Recipes in it: {found}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        near = nearest(path.name, sorted(file.name for file in path.parent.glob("*.y*ml")))
        raise RecipeError(f"{path}: no such recipe{did_you_mean(near and str(path.with_name(near)))}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as a recipe ({error}); expected a YAML file in UTF-8") from error
    recipe = Recipe(str(path))
    values = _read_text(text, recipe, path.parent)
    if values is None and recipe.faults:
        raise recipe_error(str(path), recipe.faults)
    if not isinstance(values, dict) or not values:
        given = f"given {shown(values)}" if values else "the file is empty"
        raise RecipeError(f"{path}: {given}; expected keys and values, beginning with `method: …`")
    recipe.values = values
    if "base" not in values:
        return recipe
    base, where = values.pop("base"), recipe.where(("base",))
    if not isinstance(base, str):
        raise RecipeError(f"{where}: base: given {shown(base)}; expected the name of another recipe file")
    try:
        whole = _read_file(path.parent / Path(base).expanduser(), (*chain, here))
    except RecipeError as error:
        raise RecipeError(f"{where}: base: {error}") from error
    whole.overlay(recipe)
    whole.source = str(path)
    return whole


def _read_text(text: str, recipe: Recipe, folder: Path | None) -> Any:
    """The value of a YAML text; faults and origins go into `recipe`. Without a `folder` the text is an override."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, recipe, folder, (), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark and folder is not None else ""
        recipe.faults.append(f"{recipe.source}{at}: not valid YAML: {error.problem or error.context}")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        recipe.faults.append(f"{recipe.source}: not valid YAML: {' '.join(str(error).split())}")
    return None


def _value(
    loader: _Loader,
    node: yaml.Node,
    recipe: Recipe,
    folder: Path | None,
    path: KeyPath,
    parents: tuple[yaml.Node, ...],
) -> Any:
    """The value of one node and, in `recipe`, where it and everything within it was written."""
    if any(node is parent for parent in parents):
        raise ComposerError(None, None, "an alias that contains itself", node.start_mark)
    parents = (*parents, node)
    if folder is not None:
        recipe.folders[path] = folder
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ComposerError(None, None, "a key must be a word", key_node.start_mark)
            key, line = str(key_node.value), key_node.start_mark.line + 1
            inner = (*path, key)
            where = recipe.source if folder is None else f"{recipe.source}:{line}"
            if key in lines:
                recipe.faults.append(
                    f"{where}: {dotted(inner)}: given twice, the first time in line {lines[key]}; keep one"
                )
            lines.setdefault(key, line)
            recipe.origins[inner] = where
            values[key] = _value(loader, value_node, recipe, folder, inner, parents)
        return values
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        for index, item in enumerate(node.value):
            line = item.start_mark.line + 1
            recipe.origins[(*path, index)] = recipe.source if folder is None else f"{recipe.source}:{line}"
        return [_value(loader, item, recipe, folder, (*path, n), parents) for n, item in enumerate(node.value)]
    return loader.construct_object(node, deep=True)
