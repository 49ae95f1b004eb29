"""What a multimodal model learns from, checked as a whole before the first update, and its batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import check_pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.questions import read_questions
from gen2real.imagesets.sampling import EpochSampler
from gen2real.imagesets.seeds import row_generator
from gen2real.methods.batches import RowBatches, TextShare
from gen2real.methods.leaks import refuse_leak
from gen2real.methods.multimodal.settings import AnswerData, AnswerSource, MultimodalConfig
from gen2real.methods.origins import at_most, origin_checked
from gen2real.models.multimodal import MultimodalModel
from gen2real.models.supervised import Sample, Supervised, answer_ids, check_samples, supervise
from gen2real.training.distributed import share


@dataclass(frozen=True)
class Lesson:
    """One picture and what may be asked and answered about it: a caption's prompts, or one question."""

    picture: Path
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    name: str

    def sample(self, generator: torch.Generator) -> Sample:
        """A question and an answer, drawn."""
        asked, told = (
            int(torch.randint(len(of), (), generator=generator)) if len(of) > 1 else 0
            for of in (self.questions, self.answers)
        )
        return Sample((self.picture,), self.questions[asked], self.answers[told], self.name)


@dataclass(frozen=True)
class Lessons:
    """A source: an image set, and the lessons of those of its pictures that have any."""

    image_set: ImageSet
    lessons: list[Lesson]
    generated: bool
    weight: float


class MultimodalData:
    """The sources of a run; nothing of the evaluation set is read but its pictures' hashes.

    Raises: ImageSetError listing every sample that cannot be learnt from; UnreadablePictures; RecipeError for pictures
        of another origin than the recipe says.
    """

    def __init__(self, settings: AnswerData, model: MultimodalModel, *, seed: int) -> None:
        self.settings = settings
        wanted = settings.sources
        sets = [origin_checked(ImageSet.read(source.path).kept(), origin) for origin, source in wanted]
        if settings.pictures is not None:
            sets = at_most([origin for origin, _ in wanted], sets, settings.pictures, seed)
        sizes: dict[Path, tuple[int, int]] = {}
        self.sources: list[Lessons] = []
        for one, (origin, source) in zip(sets, wanted, strict=True):
            checked = check_pictures(one.paths, settings.on_unreadable)
            sizes |= {path: size for path, size in zip(one.paths, checked.results, strict=True) if size is not None}
            readable = one.select(checked.readable)
            lessons = _lessons(readable, source, settings)
            self.sources.append(Lessons(readable, lessons, origin == "generated", source.weight))
        if settings.evaluation is not None:
            refuse_leak(settings.evaluation, [source.image_set for source in self.sources])
        check_samples(model, _every_sample(self.sources, model), sizes, max_length=settings.max_length)

    def sampler(self, batch_size: int, seed: int) -> EpochSampler:
        """Draws over all sources by weight; equal weights make every epoch one pass over all lessons."""
        weights = [source.weight for source in self.sources]
        sizes = [len(source.lessons) for source in self.sources]
        return EpochSampler(sizes, None if len(set(weights)) == 1 else weights, batch_size, seed)

    def pictures(self, *, generated: bool) -> int:
        """How many pictures of an origin are learnt from."""
        return len({one.picture for source in self.sources if source.generated == generated for one in source.lessons})


@dataclass(frozen=True)
class Batch(TextShare):
    """One process's part of an update.

    all_tokens: answer tokens of the whole update. generated, real: this part's pictures by the tower that they go
    through; one of them may be None.
    """

    all_tokens: int
    generated: Supervised | None
    real: Supervised | None


class LessonBatches(RowBatches[tuple[Sample, int], Batch]):
    """Lessons by update number; which question and answer a row has is drawn by its place in the whole batch."""

    def __init__(
        self, sources: Sequence[Lessons], model: MultimodalModel, sampler: EpochSampler, config: MultimodalConfig
    ) -> None:
        training = config.training
        super().__init__(sampler, seed=config.seed, parts=training.accumulation, workers=training.loader_workers)
        self._sources, self._model = sources, model

    def _row(self, number: int, place: int, source: int, index: int) -> tuple[Sample, int]:
        return self._sources[source].lessons[index].sample(row_generator(self._seed, number, place)), source

    def _part(self, rows: list[tuple[Sample, int]], whole: list[tuple[Sample, int]]) -> Batch:
        own = share(rows)
        tokens = sum(len(answer_ids(self._model, sample)[1]) for sample, _ in whole)
        seen: dict[bool, list[Sample]] = {True: [], False: []}
        for sample, source in own or rows[:1]:
            seen[self._sources[source].generated].append(sample)
        generated, real = (supervise(self._model, seen[kind]) if seen[kind] else None for kind in (True, False))
        return Batch(len(own), len(rows), len(whole), tokens, generated=generated, real=real)


def _lessons(one: ImageSet, source: AnswerSource, settings: AnswerData) -> list[Lesson]:
    if source.questions is not None:
        # The file may ask about pictures that are not learnt from here: curated out, unreadable, beyond data.pictures.
        there = set(one.paths)
        asked = [item for item in read_questions(source.questions, ImageSet.read(source.path)) if item.picture in there]
        if not asked:
            raise ImageSetError(f"{source.questions} asks about none of the pictures that are learnt from.")
        return [Lesson(item.picture, (item.question,), item.answers, f"question {item.id}") for item in asked]
    found = []
    for row_id, path, captions in zip(one.ids, one.paths, one.captions, strict=True):
        own = [caption for caption in captions if caption.strip()]
        if settings.captions == "longest" and own:
            own = [max(own, key=len)]
        if own:
            found.append(Lesson(path, settings.prompts, tuple(own), row_id))
    if not found:
        raise ImageSetError(
            f"no picture in {one.manifest} has a caption to learn. Import them from a table with a captions column, "
            "or name a file of questions and answers: --set data.generated='[{path: SET, questions: FILE.jsonl}]'."
        )
    return found


def _every_sample(sources: Sequence[Lessons], model: MultimodalModel) -> list[Sample]:
    """Each answer under its longest question: where that one fits, all of them do."""
    found = []
    for source in sources:
        longest: dict[tuple[str, ...], str] = {}
        for lesson in source.lessons:
            if lesson.questions not in longest:
                longest[lesson.questions] = max(lesson.questions, key=lambda text: len(model.token_ids(text)))
            found += [
                Sample((lesson.picture,), longest[lesson.questions], answer, lesson.name)
                for answer in dict.fromkeys(lesson.answers)
            ]
    return found
