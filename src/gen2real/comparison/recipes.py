"""From a comparison's arms to recipes: each one checked, in a folder named by its content, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gen2real.comparison.plan import Place, Plan, leaves
from gen2real.config import load_recipe, nearest, to_json
from gen2real.errors import Gen2RealError, RecipeError
from gen2real.files import digest, sha256_of
from gen2real.generation.settings import GenerateConfig
from gen2real.imagesets import ImageSet
from gen2real.imagesets.named_pictures import named_pictures
from gen2real.methods import CONFIGS
from gen2real.methods.settings import ClassificationConfig
from gen2real.methods.soup import check_ingredients
from gen2real.recipe import read_recipe

BLEND = "blend"
"""The reading that counts of a classifier's run, where its arm does not say."""

TRANSDUCTIVE = {"centring": "transductive", "batch_norm": "transductive_batch_norm"}
"""Whose statistics are the unlabelled real pictures' → how the readings that use them begin."""


def make_recipes(plan: Plan) -> dict[Place, Any]:
    """The recipe of each row and seed that is trained, every one after those it starts from.

    Raises: RecipeError for an arm that does not fit, naming it.
    """
    contents = Contents()
    kept = plan.started_from()
    recipes: dict[Place, Any] = {}
    for row in plan.order:
        arm = plan.arms[row]
        for seed in plan.seeds(row) if arm.soup is None else ():
            starts = {key: recipes[other, seed].output for key, other in arm.starts.items()}
            try:
                recipe = _recipe(plan, row, seed, starts, contents, save=row in kept)
                if isinstance(recipe, ClassificationConfig):
                    _check_reading(arm.reading or BLEND, recipe)
                elif isinstance(recipe, GenerateConfig):
                    _check_is_a_step(plan, row)
            except Gen2RealError as error:
                raise RecipeError(f"arm {row}: {error}") from error
            recipes[row, seed] = recipe
    for row, arm in plan.arms.items():
        for ingredients in plan.ingredients(row).values() if arm.soup is not None else ():
            assert arm.soup is not None
            try:
                check_ingredients({f"arm {of}": recipes[of, seed] for of, seed in ingredients}, arm.soup.kind)
                _check_reading(arm.reading or BLEND, recipes[ingredients[0]])
            except Gen2RealError as error:
                raise RecipeError(f"arm {row}: {error}") from error
    _check_one_evaluation(plan, recipes)
    return recipes


def evaluation_of(recipe: Any) -> Path | None:
    """The set that a recipe measures on, if it says one."""
    found: Path | None = getattr(getattr(recipe, "data", None), "evaluation", None)
    return found


class Contents:
    """What lies behind the paths of recipes, each looked at once: a set made anew under its old name is another one.

    An image set keeps its pictures' hashes in its manifest. A JSON Lines file does not: the pictures that it names are
    read here, each once for a whole comparison, which is less than any of its runs does when it checks them.
    """

    def __init__(self) -> None:
        self._known: dict[Path, Any] = {}
        self._pictures: dict[Path, str] = {}

    def of(self, recipe: Any, but: Mapping[str, Path]) -> list[Any]:
        """Of every path in `recipe`, in its order, except the runs of this comparison that it starts from.

        Raises: ImageSetError for an image set of its `data` that is not there.
        """
        runs = set(but.values())
        if isinstance(recipe, GenerateConfig):
            # Names and captions in a file, or the captions of an image set.
            source = [] if recipe.source in runs else [recipe.source]
            return [self._of_data(path) if path.is_dir() else _hash_of(path) for path in source]
        found = [self._of_data(path) for path in _paths(recipe.data) if path not in runs]
        others = [path for name in type(recipe).model_fields if name not in ("data", "output")
                  for path in _paths(getattr(recipe, name)) if path not in runs]  # fmt: skip
        return found + [self._of_file(path) for path in others]

    def _of_data(self, path: Path) -> Any:
        if path not in self._known:
            if not path.is_dir() and path.suffix not in ("", ".parquet"):
                return self._of_file(path)
            kept = ImageSet.read(path).kept()
            pairs = kept.table.column("pair_id").to_pylist()
            # A fingerprint is of pictures and labels; texts and partners (by id) are learnt from too.
            self._known[path] = [kept.fingerprint, digest(kept.ids, kept.captions, pairs)]
        return self._known[path]

    def _of_file(self, path: Path) -> Any:
        """`_hash_of` a path; of a JSON Lines file with the hashes of the pictures that it names, in their order."""
        if path not in self._known:
            of_file: Any = _hash_of(path)
            if of_file is not None and path.suffix == ".jsonl":
                hashes = [self._of_picture(picture) for picture in named_pictures(path)]
                of_file = [of_file, digest(hashes)] if hashes else of_file
            self._known[path] = of_file
        return self._known[path]

    def _of_picture(self, path: Path) -> str:
        if path not in self._pictures:
            self._pictures[path] = sha256_of(path)
        return self._pictures[path]


def _hash_of(path: Path) -> str | None:
    """A file's hash; a run's, a model's or a set's that stands for the folder; None for what is not there."""
    inside = [path, path / "result.json", path / "gen2real.json", path / "manifest.parquet"]
    return next((sha256_of(one) for one in inside if one.is_file()), None)


def _recipe(plan: Plan, row: str, seed: int, starts: Mapping[str, Path], contents: Contents, *, save: bool) -> Any:
    """A row's recipe for one seed, in a folder named by its content, so that equal trainings are one."""
    config, arm = plan.config, plan.arms[row]
    path = arm.recipe or config.recipe
    assert path is not None
    types = {method: config for method, config in CONFIGS.items() if method != "soup"}
    changed = {**leaves(config.set), **leaves(arm.set)}
    method = changed.get("method", read_recipe(path).values.get("method"))
    known = types[method].model_fields if method in types else {}
    # One seed tells how far the sets are apart; the others would repeat it.
    fixed = {"output": str(config.output), "save_model": save, "gap": seed == plan.seeds(row)[0]}
    overrides = {key: value for key, value in fixed.items() if key in known} | changed | {"seed": seed}
    for key, run in starts.items():
        if key == "encoder.init":
            # The recipe is also that of arms which start from the encoder it names.
            overrides |= {"encoder.name": None, "encoder.revision": None}
        overrides[key] = str(run)
    recipe: Any = load_recipe(path, types, [f"{key}={json.dumps(value)}" for key, value in overrides.items()])
    # A run that this one starts from is in its settings by path, which ends in that run's own key.
    content = {key: value for key, value in to_json(recipe).items() if key != "output"}
    key = digest(content, contents.of(recipe, starts))
    return recipe.model_copy(update={"output": config.output / "runs" / key[:16]})


def _paths(value: Any) -> Iterator[Path]:
    """Every path in a part of a config."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _paths(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _paths(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _paths(inner)


def _check_reading(reading: str, recipe: ClassificationConfig) -> None:
    known = ["zero_shot", "tuned", "blend", "output_ensemble"]
    if recipe.data.held_out is not None or recipe.data.holdout > 0:
        known.insert(3, "blend_generated")
    if recipe.data.evaluation is not None:
        for prefix in TRANSDUCTIVE.values() if recipe.transductive else ():
            known += [f"{prefix}_{name}" for name in ("zero_shot", "tuned", "blend")]
        known.append("oracle")
    alphas = sorted({0.0, 1.0, recipe.ensemble.alpha, *recipe.ensemble.sweep})
    if reading not in [*known, *(f"alpha={alpha:g}" for alpha in alphas)]:
        near = nearest(reading, known)
        raise RecipeError(
            f"reading: given {reading!r}; expected one of {', '.join(known)}, or alpha=… with one of "
            f"{', '.join(f'{alpha:g}' for alpha in alphas)}" + (f"; did you mean {near}?" if near else "")
        )


def _check_is_a_step(plan: Plan, row: str) -> None:
    """A generation is measured by nothing: it is there for the arms that take its pictures."""
    name = plan.rows[row].arm
    if plan.arms[row].reading is not None:
        raise RecipeError("a run of method: generate has no readings; leave reading out")
    if name in plan.config.against:
        raise RecipeError("it draws pictures and has no numbers that others could be tested against; see against")
    if not any(row in other.starts.values() for other in plan.arms.values()):
        raise RecipeError(
            f"it draws pictures that no arm takes; give the arm that learns from them init: {{data.generated: {name}}}"
        )


def _check_one_evaluation(plan: Plan, recipes: Mapping[Place, Any]) -> None:
    """One set for all arms; one that others start from may be measured elsewhere, and is then compared with none."""
    starts = {other for arm in plan.arms.values() for other in arm.starts.values()}
    measured = {
        found: row
        for (row, _), recipe in recipes.items()
        if row not in starts and (found := evaluation_of(recipe)) is not None
    }
    if len(measured) > 1:
        listed = "".join(f"\n  {row}: {path}" for path, row in measured.items())
        raise RecipeError(f"arms are tested picture by picture, so data.evaluation must be one set for all:{listed}")
