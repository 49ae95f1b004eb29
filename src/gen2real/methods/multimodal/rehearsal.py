"""A multimodal run's part in `gen2real train --dry-run`."""

from __future__ import annotations

from pathlib import Path

from gen2real.imagesets import ImageSet
from gen2real.imagesets.questions import QUESTIONS, read_questions, write_questions
from gen2real.methods import rehearsal
from gen2real.methods.multimodal import algorithm as multimodal
from gen2real.methods.multimodal.data import MultimodalData
from gen2real.methods.multimodal.settings import AnswerSource, MultimodalConfig
from gen2real.methods.rehearsal import Counts, Rehearsal, part_of, short_training, write_part


def rehearse(config: MultimodalConfig, folder: Path, updates: int) -> Rehearsal:
    """The recipe for a few updates on a part of each set. What is timed outside of updates is an answer."""
    parts = {
        origin: tuple(
            _part(one, folder / f"{origin}-{place}") for place, one in enumerate(getattr(config.data, origin))
        )
        for origin in ("generated", "real")
    }
    training = short_training(config.training, updates)
    unmeasured = {"evaluation": None, "evaluation_questions": None}
    data = config.data.model_copy(update={**parts, **unmeasured})
    short = config.model_copy(update={"output": folder / "run", "data": data, "training": training})
    tuning = multimodal.prepare(short)

    def encode() -> int:
        pictures = [lesson.picture for lesson in tuning.data.sources[0].lessons[: config.decoding.batch_size]]
        tuning.model.answer(pictures, [config.data.prompts[0]] * len(pictures), **config.decoding.model_dump())
        return len(pictures)

    def counts() -> Counts:
        whole = MultimodalData(config.data, tuning.model, seed=config.seed)
        per_epoch = whole.sampler(config.training.batch_size, config.seed).steps_per_epoch
        trained = sum(p.nbytes for p in tuning.model.model.parameters() if p.requires_grad)
        return Counts(
            pictures=whole.pictures(generated=True) + whole.pictures(generated=False),
            held_out=0,
            updates=config.training.total_steps(per_epoch),
            encoded=_asked(config) * (3 if tuning.model.shift else 2),
            model_bytes=trained if config.save_model else 0,
        )

    return Rehearsal(short, encode, lambda run_folder: tuning.tune(run_folder, quiet=True), counts)


def _asked(config: MultimodalConfig) -> int:
    """How many answers a reading of the evaluation set takes."""
    if config.data.evaluation is None:
        return 0
    shown = ImageSet.read(config.data.evaluation)
    questions = config.data.evaluation_questions
    captioned = sum(any(text.strip() for text in captions) for captions in shown.kept().captions)
    return captioned + (0 if questions is None else len(read_questions(questions, shown)))


def _part(source: AnswerSource, folder: Path) -> AnswerSource:
    if source.questions is None:
        return source.model_copy(update={"path": part_of(source.path, folder)})
    whole = ImageSet.read(source.path)
    asked = read_questions(source.questions, whole)
    rows = sorted({item.row for item in asked if item.row is not None})[: rehearsal.MOST_PICTURES]
    write_part(whole, rows, folder)
    kept = [
        {"id": item.id, "image": str(item.picture), "question": item.question, "answers": list(item.answers)}
        for item in asked
        if item.row in set(rows)
    ]
    write_questions(folder / QUESTIONS, kept)
    return source.model_copy(update={"path": folder, "questions": folder / QUESTIONS})
