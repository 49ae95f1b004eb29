"""Tasks whose answers are scored as texts by what there is for it: questions by VQA v2's accuracy, captions by CIDEr-D.

Both are asked of the model as `multimodal.MultimodalModel.answer` asks.
"""

from __future__ import annotations

from gen2real.evaluation.captioning import caption_scores
from gen2real.evaluation.questions import question_scores
from gen2real.evaluation.task_files import read_captioned
from gen2real.evaluation.tasks import Asked, TaskInput, TaskScores, asked_of, by_item, sample
from gen2real.imagesets.questions import read_questions
from gen2real.prompts import CAPTION_PROMPTS


def measure_questions(given: TaskInput) -> TaskScores:
    """The task `questions`, of a file as `imagesets.questions.read_questions` reads it: `accuracy`, an item a picture.

    Raises: ImageSetError with every fault of the file; ModelError.
    """
    items = given.first(read_questions(given.path))
    asked = [asked_of(one) for one in items]
    said = given.answers(asked)
    values = question_scores(said, [one.answers for one in items])["accuracy"]
    return TaskScores(
        {"accuracy": by_item(values, [one.pictures for one in asked])},
        {"questions": len(items), "pictures": len({one.picture for one in items})},
        [
            sample(one.id, put, one.answers, told, value)
            for one, put, told, value in zip(items, asked, said, values, strict=True)
        ],
    )


def measure_captioning(given: TaskInput) -> TaskScores:
    """The task `captioning`, of an image set's captioned pictures: `cider` and the others of `caption_scores`.

    A model is asked the first of its recipe's prompts, else of `CAPTION_PROMPTS`.

    Raises: ImageSetError as `read_captioned`; ModelError; UnreadablePictures.
    """
    captioned = read_captioned(given.path)
    shown = captioned.select(list(given.first(range(len(captioned)))))
    asked = [Asked((path,), caption_prompt(given)) for path in shown.paths]
    said = given.answers(asked)
    scores = caption_scores(said, shown.captions)
    return TaskScores(
        scores.values,
        {"pictures": len(shown), "references": sum(map(len, shown.captions))},
        [
            sample(name, put, references, told, value)
            for name, put, references, told, value in zip(
                shown.ids, asked, shown.captions, said, scores.values["cider"], strict=True
            )
        ],
        scores.notes,
    )


def caption_prompt(given: TaskInput) -> str:
    """What a model is asked for a caption with: the first of its recipe's prompts, else of `CAPTION_PROMPTS`."""
    prompts = given.model.made_by.get("recipe", {}).get("data", {}).get("prompts", CAPTION_PROMPTS)
    return str(prompts[0])
