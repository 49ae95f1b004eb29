"""From class names to prompts: templates by name, templates of the user's own, CuPL and CaFo prompt files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gen2real.errors import ImageSetError, RecipeError

_DATA: dict[str, Any] = json.loads(
    resources.files("gen2real").joinpath("prompt_templates.json").read_text(encoding="utf-8")
)

TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: tuple(templates) for name, templates in _DATA["zero_shot"].items()}
)
"""Zero-shot templates: "imagenet-80" (Radford et al. 2021), "simple", and the eleven datasets' own (CoOp)."""

GENERATION_TEMPLATES: Mapping[str, str] = MappingProxyType(dict(_DATA["generation"]))
"""What RegFT's generator is asked for, by dataset. dtd and stanford_cars differ from the zero-shot templates."""

CAPTION_PROMPTS = (
    "Describe the image briefly.",
    "What is shown in this image? Answer in one sentence.",
    "Write a short caption for this image.",
    "Give a brief description of the image.",
)
"""Ways to ask a multimodal model for a caption (ours); the first one is asked in evaluation."""


def prompts_for(
    class_names: Sequence[str], *, templates: str | Sequence[str] = "simple", file: Path | None = None
) -> list[list[str]]:
    """The prompts of each class, in the order of `class_names`.

    An underscore in a name becomes a space, as in CLIP's own class lists. A name may hold braces, quotes or slashes,
    and two classes may share a name: they share prompts.

    Args:
        templates: a name of `TEMPLATES`, or templates with {} where the class name goes.
        file: a JSON {class name: [prompts]}, as CuPL and CaFo publish; `templates` is not used then. Names are compared
            without regard to case, underscores and repeated spaces.

    Raises: RecipeError for an unknown template name, a template without {}, a file of another form, and classes that
        are not in the file, with their nearest keys.
    """
    if isinstance(class_names, str):
        raise RecipeError(f"class_names is a list of names; got the string {class_names!r}. Write [{class_names!r}].")
    if file is not None:
        return _from_file(class_names, file)
    chosen = _named(templates) if isinstance(templates, str) else _checked(templates)
    return [[template.replace("{}", name.replace("_", " ")) for template in chosen] for name in class_names]


def read_class_names(path: Path) -> list[str]:
    """Class names from a text file: UTF-8, one a line; blank lines and lines that begin with # are skipped.

    Raises: ImageSetError where the file is missing, is not UTF-8, or names no class.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageSetError(f"the class names in {path} cannot be read: {error}. Give a UTF-8 text file.") from error
    lines = [line.strip() for line in text.split("\n")]
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise ImageSetError(f"{path} names no class. Write one class name a line; lines that begin with # are skipped.")
    return names


def _named(name: str) -> tuple[str, ...]:
    if name in TEMPLATES:
        return TEMPLATES[name]
    if "{}" in name:
        return (name,)
    nearest = get_close_matches(name, TEMPLATES, n=1, cutoff=0.4)
    hint = f' Did you mean "{nearest[0]}"?' if nearest else ""
    raise RecipeError(
        f'there are no templates named "{name}".{hint} The names are: {", ".join(sorted(TEMPLATES))}; '
        'or give your own, for example ["a photo of a {}."].'
    )


def _checked(templates: Sequence[str]) -> tuple[str, ...]:
    if not templates:
        raise RecipeError('templates is empty; give at least one, for example ["a photo of a {}."].')
    for template in templates:
        if "{}" not in template:
            raise RecipeError(
                f"the template {template!r} has no {{}} for the class name, so every class would get the same prompt; "
                'write for example "a photo of a {}."'
            )
    return tuple(templates)


def _from_file(class_names: Sequence[str], file: Path) -> list[list[str]]:
    prompts = _read_prompts(file)
    key_of = {_plain(key): key for key in reversed(prompts)}
    missing = [name for name in dict.fromkeys(class_names) if name not in prompts and _plain(name) not in key_of]
    if missing:
        lines = [f"  {name!r}; nearest: {_nearest(name, key_of) or 'none'}" for name in missing[:20]]
        more = [f"  … and {len(missing) - 20} more"] if len(missing) > 20 else []
        raise RecipeError(
            f"{file} has no prompts for {len(missing)} of {len(set(class_names))} classes:\n"
            + "\n".join([*lines, *more])
            + "\nRename the classes, or add them to the file."
        )
    return [list(prompts[name if name in prompts else key_of[_plain(name)]]) for name in class_names]


def _read_prompts(file: Path) -> dict[str, list[str]]:
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"the prompt file {file} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise RecipeError(f"the prompt file {file} must hold one JSON object {{class name: [prompts]}}.")
    for name, prompts in found.items():
        is_list = isinstance(prompts, list) and all(isinstance(prompt, str) and prompt.strip() for prompt in prompts)
        if not is_list or not prompts:
            raise RecipeError(f"in {file}, the class {name!r} needs a list of prompts that are not empty.")
    return found


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _nearest(name: str, key_of: Mapping[str, str]) -> str:
    return ", ".join(repr(key_of[match]) for match in get_close_matches(_plain(name), key_of, n=3, cutoff=0.5))
