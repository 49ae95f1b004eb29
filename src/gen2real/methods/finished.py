"""What is done with models that are finished: measured on a set, blended, and the gap between two sets seen by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.classification import Classification, classification_metrics
from gen2real.evaluation.features import FeatureCache, cached_views
from gen2real.evaluation.gap import GapReport, measure_gap
from gen2real.evaluation.retrieval import Retrieval, caption_positives, retrieval_metrics
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ClassName, ImageSet
from gen2real.imagesets.slugs import unique_slugs
from gen2real.methods.captioned import with_captions
from gen2real.methods.classification_data import Labels, matching_classes, set_labels
from gen2real.models.aligned import Branch, is_aligned, load_aligned
from gen2real.models.captioner_folder import is_captioner
from gen2real.models.classifier import TextInitialisedClassifier, text_head
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder, refuse_to_replace
from gen2real.models.folder import LoadedClassifier, is_model_folder, load_classifier, save_classifier
from gen2real.models.image_encoder import load_image_encoder
from gen2real.models.multimodal import is_multimodal
from gen2real.models.weights import interpolate
from gen2real.prompts import prompts_for


def open_classifier(
    model: str | Path,
    class_names: Sequence[str],
    *,
    templates: str | Sequence[str] | None = None,
    file: Path | None = None,
    through: Branch = "f_r",
) -> LoadedClassifier:
    """A classifier's model folder, or any dual encoder with a zero-shot head for `class_names`.

    Args:
        templates, file: prompts of a zero-shot head (`gen2real.prompts.prompts_for`); None: the templates "simple".
        through: which of an aligned encoder's image towers pictures go through (`open_towers`).

    Raises: ModelError where it does not load, or where it has a head already and prompts for one are given.
    """
    if is_model_folder(model):
        if through != "f_r":
            raise ModelError(f"{model} is a classifier, which has one image tower: leave --through {through} out.")
        if templates is not None or file is not None:
            raise ModelError(
                f"{model} is a classifier with a head of its own; templates and prompts are for zero-shot. Leave them "
                "out, or give the encoder that the classifier was made from."
            )
        return load_classifier(model)
    encoder, vision = open_towers(model, through)
    templates = "simple" if templates is None else templates
    weight = text_head(encoder, prompts_for(class_names, templates=templates, file=file))
    classifier = TextInitialisedClassifier(vision, weight).eval()
    return LoadedClassifier(encoder, classifier, list(class_names), {"zero_shot": True, "templates": templates})


def open_towers(model: str | Path, through: Branch = "f_r") -> tuple[DualEncoder, nn.Module]:
    """A dual encoder in evaluation mode, and the image tower that pictures go through, [N 3 S S] → [N D].

    Args:
        through: f_r: the encoder's own tower. f_g: an aligned encoder's tower for generated pictures. projection: f_r
            and then its projection for real pictures.

    Raises: ModelError where it does not load, or where it is not aligned and another tower than f_r is asked for.
    """
    if through == "f_r":
        encoder = load_dual_encoder(model)
        return encoder, encoder.vision
    if not is_aligned(model):
        raise ModelError(
            f"{model} has one image tower for all pictures: leave --through {through} out, or give a run of "
            "method: gmail, or its model folder."
        )
    aligned = load_aligned(model)
    return aligned.encoder, aligned.tower(through)


def evaluate_model(
    model: str | Path,
    image_set: ImageSet,
    *,
    templates: str | Sequence[str] | None = None,
    file: Path | None = None,
    through: Branch = "f_r",
    on_unreadable: str = "error",
) -> Classification:
    """Top-1, top-5, per class, calibration and confusions of a model on a labelled set.

    Args:
        model: a classifier's model folder, whose classes must include the set's; or a dual encoder by hub name or
            folder, measured zero-shot on the set's class names with `templates` or the CuPL `file`.
        through: which of an aligned encoder's image towers pictures go through (`open_towers`).

    Raises: ModelError; ImageSetError for classes the model does not know and for pictures without a label.
    """
    if not image_set.classes:
        raise ImageSetError(
            f"{image_set.manifest} has no classes to tell apart. Import it from a folder per class or with a label "
            "column; by captions it is measured with --task retrieval (`evaluate_retrieval`)."
        )
    loaded = open_classifier(model, image_set.class_names, templates=templates, file=file, through=through)
    logits, labels = _answers(loaded, image_set, on_unreadable)
    return classification_metrics(logits, torch.from_numpy(labels), loaded.class_names)


Task = Literal["classification", "retrieval", "captioning", "questions"]


def task_of(image_set: ImageSet, model: str | Path | None = None, *, asked: bool = False) -> Task:
    """What is measured unless told otherwise.

    questions: where there are any (`asked`). captioning: by a captioner, or by a multimodal model in a folder; a hub
    name is not looked up. Else the set decides: retrieval if it has captions and no label at all.
    """
    if asked:
        return "questions"
    if model is not None and (is_captioner(model) or is_multimodal(model)):
        return "captioning"
    captioned = any(image_set.captions) and not (image_set.labels >= 0).any()
    return "retrieval" if captioned else "classification"


@dataclass(frozen=True, eq=False)
class Searchable:
    """A set's captioned pictures and distinct captions, as an encoder sees them.

    image: [N D] and text: [M D], un-normalised, of the N pictures of `pictures` and of `texts`. positives: int64 [P 2]
        (`caption_positives`).
    """

    encoder: DualEncoder
    pictures: ImageSet
    image: Tensor
    texts: Sequence[str]
    text: Tensor
    positives: Tensor


def searchable(
    model: str | Path, image_set: ImageSet, *, through: Branch = "f_r", on_unreadable: str = "error"
) -> Searchable:
    """What retrieval searches; arguments and errors are those of `evaluate_retrieval`."""
    captioned = with_captions(image_set, "retrieval searches by them")
    encoder, vision = open_towers(model, through)
    pictures = Pictures(captioned, encoder.preprocess, on_unreadable=on_unreadable)  # type: ignore[arg-type]
    texts, positives = caption_positives(pictures.image_set.captions)
    if not texts:
        raise ImageSetError(f"{image_set.manifest} has no picture with a caption that can be read.")
    image = cached_views(vision, pictures, views=1, seed=0, cache=FeatureCache())[0]
    with torch.no_grad():
        text = encoder.encode_text(texts).float().cpu()
    return Searchable(encoder, pictures.image_set, image, texts, text, positives)


def evaluate_retrieval(
    model: str | Path, image_set: ImageSet, *, through: Branch = "f_r", on_unreadable: str = "error"
) -> Retrieval:
    """Recall at 1, 5 and 10 and median rank between a set's pictures and their captions, in both directions.

    Args:
        model: a dual encoder by hub name or folder. A classifier's model folder is one too: its tuned image tower
            with the text tower it came with; the head takes no part.
        image_set: with captions, one or several a picture. Equal captions are one text (`caption_positives`).
            Pictures without a caption are left out with a warning: whether a text is theirs as well is not known.
        through: which of an aligned encoder's image towers pictures go through (`open_towers`).

    Raises: ModelError; ImageSetError where no picture has a caption; UnreadablePictures.
    """
    found = searchable(model, image_set, through=through, on_unreadable=on_unreadable)
    return retrieval_metrics(found.image, found.text, found.positives)


@dataclass(frozen=True)
class Blend:
    """A weight-space ensemble that was written. `sweep` holds (alpha, accuracy) on the set that was given, if any."""

    folder: Path
    alpha: float
    sweep: tuple[tuple[float, Classification], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        sweep = [{"alpha": alpha, **found.to_json()} for alpha, found in self.sweep]
        return {"version": 1, "folder": str(self.folder), "alpha": self.alpha, "sweep": sweep}


def blend_models(
    original: str | Path,
    tuned: str | Path,
    out: str | Path,
    *,
    alpha: float = 0.5,
    evaluation: ImageSet | None = None,
    sweep: Sequence[float] = (),
) -> Blend:
    """θ(α) = (1−α)·θ_original + α·θ_tuned over every key, head and bias included, written as a model folder.

    Args:
        original: a classifier's folder; or the dual encoder the tuning began from, whose zero-shot head is made again
            with the prompts that the tuned model's gen2real.json names.
        evaluation, sweep: measures these alphas on a labelled set. They are shown, not chosen from.

    Raises: ModelError where the two do not fit, for an alpha outside [0, 1], and where `out` holds something that is
        not a model; all of it before anything is measured.
    """
    sweep = sweep if evaluation is not None else ()
    if outside := [value for value in (alpha, *sweep) if not 0 <= value <= 1]:
        raise ModelError(f"alpha is {outside[0]:g}; it lies between 0 (original) and 1 (tuned).")
    refuse_to_replace(Path(out))
    end = load_classifier(tuned)
    if is_model_folder(original):
        other = load_classifier(original)
        if other.class_names != end.class_names:
            raise ModelError(
                f"{original} and {tuned} have other classes, or the same in another order: {other.class_names[:5]} … "
                f"and {end.class_names[:5]} … Blend models of one class list."
            )
        start = other.classifier
    else:
        encoder = load_dual_encoder(original)
        if encoder.embedding_dim != end.encoder.embedding_dim:
            raise ModelError(
                f"{original} has embeddings of {encoder.embedding_dim} dimensions and {tuned} of "
                f"{end.encoder.embedding_dim}; give the encoder that the tuning began from."
            )
        prompts = end.made_by.get("recipe", {}).get("prompts", {"templates": "simple", "file": None})
        file = None if prompts["file"] is None else Path(prompts["file"])
        weight = text_head(encoder, prompts_for(end.class_names, templates=prompts["templates"], file=file))
        start = TextInitialisedClassifier(encoder.vision, weight, feature_mean=end.classifier.feature_mean)
    theta_0 = {name: value.clone() for name, value in start.state_dict().items()}
    theta_1 = {name: value.clone() for name, value in end.classifier.state_dict().items()}
    try:
        interpolate(theta_0, theta_1, 0)
    except ValueError as error:
        raise ModelError(f"{original} and {tuned} cannot be blended: {error}") from error

    def at(value: float) -> LoadedClassifier:
        end.classifier.load_state_dict(interpolate(theta_0, theta_1, value))
        return end

    found = []
    for value in sweep:
        assert evaluation is not None
        logits, labels = _answers(at(value), evaluation, "error")
        found.append((float(value), classification_metrics(logits, torch.from_numpy(labels), end.class_names)))
    at(alpha)
    made_by = {**end.made_by, "blend": {"original": str(original), "tuned": str(tuned), "alpha": alpha}}
    save_classifier(out, end.encoder, end.classifier, end.class_names, made_by=made_by)
    return Blend(Path(out), alpha, tuple(found))


def gap_between(generated: ImageSet, real: ImageSet, *, encoder: str | Path, on_unreadable: str = "error") -> GapReport:
    """How far a generated set and a real one are apart in an encoder's eyes; class by class where both have labels.

    Args:
        encoder: a dual encoder, or an image encoder without texts (`load_image_encoder`).

    Raises: ModelError; ImageSetError.
    """
    loaded = load_image_encoder(encoder)
    features, labels = [], []
    for one in (generated, real):
        pictures = Pictures(one.kept(), loaded.preprocess, on_unreadable=on_unreadable)  # type: ignore[arg-type]
        features.append(cached_views(loaded.vision, pictures, views=1, seed=0, cache=FeatureCache())[0])
        labels.append(_in_common(pictures.image_set, generated))
    both = all((found >= 0).any() for found in labels)
    return measure_gap(
        features[0],
        features[1],
        generated_labels=labels[0] if both else None,
        real_labels=labels[1] if both else None,
    )


def _answers(loaded: LoadedClassifier, image_set: ImageSet, on_unreadable: str) -> tuple[Tensor, Labels]:
    names = loaded.class_names
    classes = [ClassName(label, name) for label, name in zip(unique_slugs(names), names, strict=True)]
    pictures = Pictures(
        image_set.kept(),
        loaded.encoder.preprocess,
        on_unreadable=on_unreadable,  # type: ignore[arg-type]
    )
    if not len(pictures):
        raise ImageSetError(f"{image_set.manifest} has no pictures that are kept; there is nothing to measure.")
    labels = set_labels(pictures.image_set, classes)
    features = cached_views(loaded.classifier.vision, pictures, views=1, seed=0, cache=FeatureCache())[0]
    with torch.no_grad():
        return loaded.classifier.classify_features(features), labels


def _in_common(one: ImageSet, reference: ImageSet) -> Labels:
    """Labels of `one` as indices into the reference's classes, -1 where it has no such class."""
    place = matching_classes(one.classes, reference.classes)
    lookup = np.array([*(place.get(known.label, -1) for known in one.classes), -1], dtype=np.int64)
    found: Labels = lookup[one.labels]
    return found
