"""Model soups: the mean of several tuned classifiers' weights.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", arXiv 2203.05482. `uniform` is the mean of all ingredients. `greedy` sorts them by accuracy on held-out
generated pictures and keeps one only if the mean with it is at least as good there. The zero-shot classifier may be an
ingredient too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gen2real.config import Config, parse_config
from gen2real.errors import RecipeError
from gen2real.evaluation.features import encode_pictures
from gen2real.files import read_json
from gen2real.methods.classification_data import ClassificationData
from gen2real.methods.classification_run import copied_state
from gen2real.methods.conclusion import conclude
from gen2real.methods.readings import measure
from gen2real.methods.regft import zero_shot_classifier
from gen2real.methods.result import Result
from gen2real.methods.settings import FLYPConfig, RegFTConfig, SoupConfig
from gen2real.methods.start import start_of
from gen2real.models.classifier import TextInitialisedClassifier
from gen2real.models.weights import greedy_soup, interpolate, uniform_soup
from gen2real.training.run_folder import RunFolder


def run(config: SoupConfig, *, quiet: bool = False) -> Result:
    """Mixes, measures (the soup is `tuned`, its blend with zero-shot is `blend`) and saves.

    Raises: RecipeError where the runs are unfinished, of different encoders or data, or where a greedy soup has no
        held-out generated pictures to choose on.
    """
    if (config.output / "result.json").exists():
        return Result.read(RunFolder(config.output, config).path)
    results = [Result.read(path) for path in config.runs]
    recipes = {str(path): _recipe(path) for path in config.runs}
    check_ingredients(recipes, config.kind)
    first = recipes[str(config.runs[0])]
    assert isinstance(first, RegFTConfig)
    folder = RunFolder(config.output, config)

    encoder, shift = start_of(first.encoder)
    data = ClassificationData(first.data, encoder.preprocess, seed=first.seed, shift=shift)
    classifier = zero_shot_classifier(encoder, data, first.prompts, centering=first.centering)
    original = copied_state(classifier.state_dict())
    states = [{**original, **result.changed_weights()} for result in results]
    if config.include_zero_shot:
        states.append(original)

    chosen = list(range(len(states)))
    if config.kind == "uniform":
        soup = uniform_soup(states)
    else:
        soup, chosen = greedy_soup(states, lambda state: _held_out_accuracy(classifier, state, data))

    def classifier_at(alpha: float) -> TextInitialisedClassifier:
        classifier.load_state_dict(interpolate(original, soup, alpha))
        return classifier.eval()

    frozen = all(torch.equal(soup[name], value) for name, value in original.items() if name.startswith("vision."))
    readings = measure(
        classifier_at, data, first.ensemble, frozen_encoder=frozen, transductive=first.transductive, with_gap=False
    )
    names = [str(path) for path in config.runs] + ["zero-shot"] * config.include_zero_shot
    readings.summary["soup"] = {"kind": config.kind, "ingredients": names, "chosen": [names[place] for place in chosen]}
    return conclude(
        folder,
        first.model_copy(update={"output": config.output, "save_model": config.save_model}),
        encoder=encoder,
        data=data,
        readings=readings,
        reports=[],
        saved=classifier_at(readings.saved_alpha) if config.save_model else None,
        changed={name: value for name, value in soup.items() if not torch.equal(value, original[name])},
    )


@torch.no_grad()
def _held_out_accuracy(
    classifier: TextInitialisedClassifier, state: dict[str, Tensor], data: ClassificationData
) -> float:
    if not data.held_out:
        raise RecipeError(_NOTHING_HELD_OUT)
    classifier.load_state_dict(state)
    right = count = 0
    for part in data.held_out:
        features = encode_pictures(part.tower(classifier.vision), part.pictures)
        answers = classifier.classify_features(features).argmax(dim=1)
        right += int((answers.numpy() == part.labels).sum())
        count += len(part.labels)
    return right / count


def _recipe(run_folder: Path) -> Config:
    values: dict[str, Any] = read_json(run_folder / "recipe.json")
    types: dict[str, type[Config]] = {"regft": RegFTConfig, "flyp": FLYPConfig, "soup": SoupConfig}
    return parse_config(types[values["method"]], values, source=str(run_folder / "recipe.json"))


def check_ingredients(recipes: Mapping[str, Config], kind: Literal["uniform", "greedy"]) -> None:
    """Whether runs of these recipes can be one soup; their names are for the message.

    Raises: RecipeError where they cannot.
    """
    first: RegFTConfig | None = None
    for name, recipe in recipes.items():
        if not isinstance(recipe, RegFTConfig):
            method = getattr(recipe, "method", None)
            raise RecipeError(f"{name} is of method {method!r}; a soup takes runs of 'regft'.")
        if first is None:
            first = recipe
        _require_same_ground(first, recipe, name)
    assert first is not None
    if kind == "greedy" and first.data.held_out is None and first.data.holdout == 0:
        raise RecipeError(_NOTHING_HELD_OUT)


def _require_same_ground(first: RegFTConfig, other: RegFTConfig, name: str) -> None:
    for key in ("encoder", "prompts", "centering"):
        if getattr(first, key) != getattr(other, key):
            raise RecipeError(f"{name} differs from the first run in {key}; a soup needs one starting point for all.")
    for key in ("generated", "class_names", "holdout", "held_out", "evaluation"):
        if getattr(first.data, key) != getattr(other.data, key):
            raise RecipeError(
                f"{name} differs from the first run in data.{key}; a soup needs the same pictures for all."
            )


_NOTHING_HELD_OUT = (
    "a greedy soup is chosen on held-out generated pictures, and these runs hold none out. "
    "Set data.holdout=0.1 or data.held_out in their recipe, or take kind: uniform."
)
