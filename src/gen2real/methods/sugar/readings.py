"""How well a tuned multimodal model answers and finds, before and after, and with what it looks up by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from gen2real.evaluation.rag import EncoderRetriever, OwnRetriever, Rag, Retriever, read_entries
from gen2real.evaluation.tasks import TaskScores, measure_task
from gen2real.methods.measured import Reading
from gen2real.methods.sugar.settings import RagSettings, SugarConfig
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.embedder import Embedder
from gen2real.models.multimodal import MultimodalModel

_SAMPLES = 12
LOOKED_UP = ("questions", "yes-no", "choice", "knowledge")
"""Tasks of questions, before which what was looked up is put."""

_ANSWERED = (*LOOKED_UP, "captioning", "position")


def measure(
    config: SugarConfig, model: MultimodalModel, untrained: Callable[[], AbstractContextManager[None]]
) -> tuple[dict[str, Reading], list[dict[str, Any]], int]:
    """Readings, samples of texts, and how many items there are. Nothing of `evaluation` is opened before, in training.

    Args:
        untrained: within it, the model is as it was before.
    """
    asking = _Asking(config, model)
    with untrained():
        readings = {"base": asking.read("base", "the model before this training, its hidden states as embeddings")}
    readings["tuned"] = asking.read("tuned", "the tuned model")
    if config.rag is not None:
        lookup = Rag(read_entries(config.rag.knowledge), _retriever(config.rag, asking), threshold=config.rag.threshold)
        for count in config.rag.counts:
            by = "its own embeddings" if config.rag.retriever is None else config.rag.retriever
            meaning = f"the tuned model, with the {count} most similar questions and answers found by {by}"
            readings[f"rag_{count}"] = asking.read(f"rag_{count}", meaning, lookup.with_count(count))
    return readings, asking.samples, asking.items


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

    def read(self, name: str, meaning: str, lookup: Rag | None = None) -> Reading:
        """One reading of every task; with a lookup, of those that it can help."""
        values: dict[str, npt.NDArray[np.float64]] = {}
        details: dict[str, Any] = {}
        notes: dict[str, None] = {}
        tasks, items = self.config.evaluation, 0
        for task, settings in tasks.items():
            if lookup is not None and settings.task not in LOOKED_UP:
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


def _retriever(settings: RagSettings, asking: _Asking) -> Retriever:
    if settings.retriever is None:
        return OwnRetriever(asking.embedder, asking.config.decoding.batch_size)
    return EncoderRetriever(load_dual_encoder(settings.retriever).to(asking.model.device))
