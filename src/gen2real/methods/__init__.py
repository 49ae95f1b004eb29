"""One file a system. `METHODS` maps the word in a recipe to where its config and `run` are."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from gen2real.config import Config

METHODS = {
    "regft": ("gen2real.methods.regft", "RegFTConfig"),
    "flyp": ("gen2real.methods.flyp", "FLYPConfig"),
    "soup": ("gen2real.methods.soup", "SoupConfig"),
}


def config_type(method: str) -> type[Config]:
    """The config class of a method by its word in a recipe."""
    module, name = METHODS[method]
    found: type[Config] = getattr(import_module(module), name)
    return found


def run(config: Any, *, quiet: bool = False) -> Any:
    """Runs any method's config. Returns its result; None on the processes other than the first."""
    module, _ = METHODS[config.method]
    return import_module(module).run(config, quiet=quiet)
