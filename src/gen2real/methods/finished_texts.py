"""What finished models say of pictures, scored: captions of captioners and multimodal models, answers to questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate import PartialState

from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.captioning import CaptionScores, caption_scores
from gen2real.evaluation.features import FeatureCache, cached_views
from gen2real.evaluation.questions import question_scores
from gen2real.evaluation.statistics import Interval, bootstrap_interval, group_values
from gen2real.imagesets.decoding import check_pictures
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.questions import PictureQuestion, read_questions
from gen2real.methods.captioned import with_captions
from gen2real.methods.captioning.settings import DecodingSettings as CaptionDecoding
from gen2real.methods.multimodal.settings import DecodingSettings
from gen2real.models.aligned import Branch
from gen2real.models.captioner_folder import is_captioner, load_captioner
from gen2real.models.multimodal import MultimodalModel, load_multimodal
from gen2real.prompts import CAPTION_PROMPTS


@dataclass(frozen=True, eq=False)
class Captioned:
    """What `evaluate_captioning` finds: what was said of each picture, and how well it fits the set's captions."""

    ids: Sequence[str]
    captions: Sequence[str]
    scores: CaptionScores

    def to_json(self) -> dict[str, Any]:
        """The scores' keys, and `captions`: a list of id and caption, in the set's order."""
        said = [{"id": name, "caption": caption} for name, caption in zip(self.ids, self.captions, strict=True)]
        return {**self.scores.to_json(), "captions": said}


@dataclass(frozen=True, eq=False)
class Answered:
    """What `evaluate_questions` finds. values: [Q], each answer's accuracy, 0 to 1."""

    questions: Sequence[PictureQuestion]
    answers: Sequence[str]
    values: npt.NDArray[np.float64]

    @property
    def pictures(self) -> int:
        """How many are asked about."""
        return len({one.picture for one in self.questions})

    @property
    def accuracy(self) -> Interval:
        """The mean over all questions; its interval is over pictures, whose questions stand or fall together."""
        place = {picture: row for row, picture in enumerate(dict.fromkeys(one.picture for one in self.questions))}
        return bootstrap_interval(group_values(self.values, [place[one.picture] for one in self.questions], len(place)))

    def to_json(self) -> dict[str, Any]:
        """Plain values, always with the same keys; `answers` in the file's order."""
        told = zip(self.questions, self.answers, self.values.tolist(), strict=True)
        return {
            "questions": len(self.questions),
            "pictures": self.pictures,
            "accuracy": self.accuracy.to_json(),
            "answers": [{"id": one.id, "answer": said, "accuracy": value} for one, said, value in told],
        }


def evaluate_captioning(
    model: str | Path, image_set: ImageSet, *, through: Branch = "f_r", on_unreadable: str = "error"
) -> Captioned:
    """Captions for a set's pictures, scored against the captions they have (`caption_scores`).

    Args:
        model: a captioner's folder or run, or a multimodal model by hub name, folder or run. Either decodes as its
            recipe says; a multimodal model is asked the first of its recipe's prompts.
        image_set: pictures without a caption are left out with a warning.
        through: f_g: the tower for generated pictures of a multimodal model that was taught with an aligned one.

    Raises: ModelError; ImageSetError where no picture has a caption; UnreadablePictures.
    """
    shown = with_captions(image_set, "captions are scored against them")
    if is_captioner(model):
        shown, said = _by_captioner(model, shown, through, on_unreadable)
    else:
        loaded = open_multimodal(model, through)
        shown = shown.select(check_pictures(shown.paths, on_unreadable).readable)  # type: ignore[arg-type]
        recipe = loaded.made_by.get("recipe", {})
        prompt = recipe.get("data", {}).get("prompts", CAPTION_PROMPTS)[0]
        said = _answers(loaded, shown.paths, [prompt] * len(shown), through)
    if not len(shown):
        raise ImageSetError(f"{image_set.manifest} has no picture with a caption that can be read.")
    return Captioned(shown.ids, said, caption_scores(said, shown.captions))


def evaluate_questions(
    model: str | Path,
    image_set: ImageSet,
    questions: str | Path,
    *,
    through: Branch = "f_r",
    on_unreadable: str = "error",
) -> Answered:
    """A multimodal model's answers to questions about a set's pictures, by VQA v2's accuracy (`question_scores`).

    Args:
        model: by hub name, folder or run; it decodes as its recipe says.
        questions: a JSON Lines file (`read_questions`).
        through: as in `evaluate_captioning`.

    Raises: ModelError, for captioners as well, which answer nothing; ImageSetError with every fault of the questions;
        UnreadablePictures.
    """
    asked = read_questions(questions, image_set)
    if is_captioner(model):
        raise ModelError(
            f"{model} is a captioner: it describes pictures and reads no questions. Use --task captioning."
        )
    loaded = open_multimodal(model, through)
    pictures = list(dict.fromkeys(one.picture for one in asked))
    readable = {pictures[row] for row in check_pictures(pictures, on_unreadable).readable}  # type: ignore[arg-type]
    asked = [one for one in asked if one.picture in readable]
    if not asked:
        raise ImageSetError(f"{questions} asks about no picture that can be read.")
    said = _answers(loaded, [one.picture for one in asked], [one.question for one in asked], through)
    return Answered(asked, said, question_scores(said, [one.answers for one in asked])["accuracy"])


def _by_captioner(
    model: str | Path, shown: ImageSet, through: Branch, on_unreadable: str
) -> tuple[ImageSet, list[str]]:
    if through != "f_r":
        raise ModelError(
            f"{model} is a captioner, whose folder holds the image tower for real pictures alone: leave --through "
            f"{through} out. What it says through f_g is in the result of its run."
        )
    loaded, device = load_captioner(model), PartialState().device
    pictures = Pictures(shown, loaded.encoder.preprocess, on_unreadable=on_unreadable)  # type: ignore[arg-type]
    features = cached_views(loaded.encoder.vision.to(device), pictures, views=1, seed=0, cache=FeatureCache())[0]
    decoding = decoding_of(loaded.made_by, CaptionDecoding())
    return pictures.image_set, loaded.captioner.to(device).captions(features, beams=decoding["beams"])


def open_multimodal(model: str | Path, through: Branch = "f_r") -> MultimodalModel:
    """A multimodal model on this process's device. Raises: ModelError, also for a tower that it does not have."""
    loaded = load_multimodal(model)
    if through != "f_r" and (through == "projection" or not loaded.shift):
        raise ModelError(
            f"{model} has one image tower for all pictures: leave --through {through} out. f_g is for a run of "
            "method: multimodal that names an alignment (aligned: …)."
        )
    loaded.model.to(PartialState().device)
    return loaded


def _answers(loaded: MultimodalModel, pictures: Sequence[Path], questions: Sequence[str], through: Branch) -> list[str]:
    decoding = decoding_of(loaded.made_by, DecodingSettings())
    return loaded.answer(pictures, questions, branch="f_g" if through == "f_g" else "f_r", **decoding)


def decoding_of(made_by: Mapping[str, Any], usual: CaptionDecoding | DecodingSettings) -> dict[str, Any]:
    """How the model's own run wrote its texts, so that the same numbers come out again; `usual` where it had no run."""
    found: dict[str, Any] = {**usual.model_dump(), **made_by.get("recipe", {}).get("decoding", {})}
    return found
