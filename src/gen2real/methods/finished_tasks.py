"""Finished multimodal models on a task of `evaluation.tasks`: asked and searched as their own run did."""

from __future__ import annotations

from pathlib import Path

from gen2real.evaluation.tasks import TaskScores, measure_task
from gen2real.methods.finished_texts import decoding_of, open_multimodal
from gen2real.methods.multimodal.settings import DecodingSettings
from gen2real.models.embedder import Embedder


def evaluate_task(model: str | Path, task: str, path: str | Path, *, limit: int | None = None) -> TaskScores:
    """What a multimodal model scores on a task.

    Args:
        model: by hub name, folder or run. It decodes as its recipe says and embeds by its retrieval head, where it has
            one; else by its hidden states.
        task: a name of `evaluation.tasks.TASKS`. path: the task's file, or an image set for captioning and retrieval.
        limit: the first so many items; None: all.

    Raises: Gen2RealError for an unknown task; ImageSetError with every fault of the file; ModelError.
    """
    loaded = open_multimodal(model)
    read = loaded.made_by.get("recipe", {}).get("discriminative", {}).get("image_readout", "mean")
    return measure_task(
        task,
        loaded,
        path,
        embedder=Embedder(loaded, loaded.head, read),
        decoding=decoding_of(loaded.made_by, DecodingSettings()),
        limit=limit,
    )
