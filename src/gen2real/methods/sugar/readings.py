"""How well a tuned multimodal model answers and finds, before and after, and with what it looks up by itself."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gen2real.evaluation.rag import (
    EncoderRetriever,
    OwnRetriever,
    Rag,
    Retriever,
    Template,
    check_leaks,
    read_entries,
    template_named,
)
from gen2real.evaluation.tasks import TaskScores, check_task, measure_task
from gen2real.methods.measured import Reading
from gen2real.methods.sugar.settings import LOOKED_UP, RagSettings, SugarConfig
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.embedder import Embedder
from gen2real.models.multimodal import MultimodalModel

_SAMPLES = 12
_ANSWERED = (*LOOKED_UP, "captioning", "position")


def measure(
    config: SugarConfig, model: MultimodalModel, untrained: Callable[[], AbstractContextManager[None]]
) -> tuple[dict[str, Reading], list[dict[str, Any]], int]:
    """Readings, samples of texts, and how many items there are. In training nothing of `evaluation` is used; `check`
    alone reads it before.

    Args:
        untrained: within it, the model is as it was before.
    """
    asking = _Asking(config, model)
    readings: dict[str, Reading] = {}
    if config.read_base:
        with untrained():
            readings["base"] = asking.read("base", "the model before this training, its hidden states as embeddings")
    readings["tuned"] = asking.read("tuned", "the tuned model")
    for name, rag in config.rag.items():
        lookup = Rag(
            read_entries(rag.knowledge), _retriever(rag, asking), threshold=rag.threshold, template=_template(rag)
        )
        for count in rag.counts:
            by = "its own embeddings" if rag.retriever is None else rag.retriever
            many = "question and answer" if count == 1 else f"{count} questions and answers"
            meaning = f"the tuned model, with the most similar {many} found by {by}"
            reading = f"{name}_{count}"
            readings[reading] = asking.read(reading, meaning, looked_up(config, rag), lookup.with_count(count))
    return readings, asking.samples, asking.items


def check(config: SugarConfig) -> None:
    """Reads whatever `measure` will read, and asks nobody: what is wrong with it is told before the training.

    Raises: ImageSetError with every fault of a task's file, of what is looked up, and for questions that are among it;
        Gen2RealError for a template without its fields; ModelError for a retriever that is not there.
    """
    asked = {name: check_task(task.task, task.path, limit=task.limit) for name, task in config.evaluation.items()}
    compared: set[tuple[Path, str]] = set()
    for rag in config.rag.values():
        template_named(_template(rag))
        entries = read_entries(rag.knowledge)
        for name in looked_up(config, rag):
            if (rag.knowledge, name) not in compared:
                check_leaks(entries, asked[name])
                compared.add((rag.knowledge, name))
    for retriever in {rag.retriever for rag in config.rag.values() if rag.retriever is not None}:
        load_dual_encoder(retriever)


def looked_up(config: SugarConfig, rag: RagSettings) -> list[str]:
    """The names of the tasks that a lookup is read of."""
    if rag.tasks is not None:
        return list(rag.tasks)
    return [name for name, task in config.evaluation.items() if task.task in LOOKED_UP]


class _Asking:
    """The recipe's tasks, for one reading after the other."""

    def __init__(self, config: SugarConfig, model: MultimodalModel) -> None:
        self.config, self.model = config, model
        self.items = 0
        self._samples: dict[tuple[str, str, str], dict[str, Any]] = {}

    @property
    def embedder(self) -> Embedder:
        """By the head, where there is one at the moment, and pictures read as in training."""
        return Embedder(self.model, self.model.head, self.config.discriminative.image_readout)

    @property
    def samples(self) -> list[dict[str, Any]]:
        """What readings said to the first questions of each task, side by side."""
        return list(self._samples.values())

    def read(self, name: str, meaning: str, only: Collection[str] | None = None, lookup: Rag | None = None) -> Reading:
        """One reading of every task, or of some by name, with a lookup."""
        values: dict[str, npt.NDArray[np.float64]] = {}
        details: dict[str, Any] = {}
        notes: dict[str, None] = {}
        tasks, items = self.config.evaluation, 0
        for task, settings in tasks.items():
            if only is not None and task not in only:
                continue
            scores = measure_task(
                settings.task,
                self.model,
                settings.path,
                embedder=self.embedder,
                decoding=self.config.decoding.model_dump(),
                limit=settings.limit,
                rag=lookup,
            )
            before = f"{task}_" if len(tasks) > 1 else ""
            values |= {before + measure: own for measure, own in scores.values.items()}
            details[task] = dict(scores.details)
            notes |= dict.fromkeys(scores.notes)
            if settings.task in _ANSWERED:
                self._keep(name, str(settings.path), scores)
            items += max(map(len, scores.values.values()), default=0)
        self.items = max(self.items, items)
        return Reading(meaning, values, {**details, "notes": list(notes)} if tasks else {})

    def _keep(self, reading: str, path: str, scores: TaskScores) -> None:
        for one in scores.samples[:_SAMPLES]:
            told = self._samples.setdefault(
                (path, one["id"], one["question"]),
                {
                    "set": path,
                    "id": one["id"],
                    "pictures": list(one["pictures"]),
                    "question": one["question"],
                    "references": list(one["references"]),
                    "captions": {},
                },
            )
            told["captions"][reading] = one["answer"]


def _template(settings: RagSettings) -> str | Template:
    given = settings.template
    return given if isinstance(given, str) else Template(given.entry, given.whole)


def _retriever(settings: RagSettings, asking: _Asking) -> Retriever:
    if settings.retriever is None:
        return OwnRetriever(asking.embedder, asking.config.decoding.batch_size)
    return EncoderRetriever(load_dual_encoder(settings.retriever).to(asking.model.device))
