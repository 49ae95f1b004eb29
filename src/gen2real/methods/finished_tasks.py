"""Finished multimodal models on a task of `evaluation.tasks`: asked and searched as their own run did."""

from __future__ import annotations

from pathlib import Path

from gen2real.errors import Gen2RealError
from gen2real.evaluation.rag import (
    EncoderRetriever,
    Entry,
    OwnRetriever,
    Rag,
    Retriever,
    check_leaks,
    read_entries,
    template_named,
)
from gen2real.evaluation.tasks import LOOKED_UP, TaskScores, check_task, measure_task
from gen2real.methods.finished_texts import decoding_of, open_multimodal
from gen2real.methods.multimodal.settings import DecodingSettings
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder
from gen2real.models.embedder import Embedder


def evaluate_task(
    model: str | Path,
    task: str,
    path: str | Path,
    *,
    limit: int | None = None,
    rag: str | Path | None = None,
    rag_count: int = 1,
    rag_template: str = "exemplar",
    rag_threshold: float | None = None,
    rag_retriever: str | None = None,
) -> TaskScores:
    """What a multimodal model scores on a task.

    Args:
        model: by hub name, folder or run. It decodes as its recipe says and embeds by its retrieval head, where it has
            one; else by its hidden states.
        task: a name of `evaluation.tasks.TASKS`. path: the task's file, or an image set for captioning and retrieval.
        limit: the first so many items; None: all.
        rag: JSON Lines of questions with answers (`evaluation.rag.read_entries`), of which the `rag_count` that are
            most like a question are put before it; None: questions are asked as they are.
        rag_template: a name of `evaluation.rag.TEMPLATES`, how they are put.
        rag_threshold: less similar ones are left out, from −1 to 1 as cosines are; None: none is.
        rag_retriever: a dual encoder that says what is alike; None: the model's own embeddings.

    Raises: Gen2RealError for an unknown task or template, for a task that nothing can be looked up for, and for numbers
        that cannot be; ImageSetError with every fault of the files, and where the questions are among what is looked
        up; ModelError.
    """
    if rag is not None and task not in LOOKED_UP:
        raise Gen2RealError(
            f"--rag puts questions and answers before a question, and --task {task} asks none that they could help "
            f"with: leave --rag out. It is for --task {', '.join(LOOKED_UP)}."
        )
    # Files are read, and what is small is loaded, before the model, which may take minutes.
    asked = check_task(task, path, limit=limit)
    entries: list[Entry] = []
    encoder: DualEncoder | None = None
    if rag is not None:
        if rag_count < 1:
            raise Gen2RealError(f"--rag-count {rag_count}: give at least 1; without --rag nothing is looked up.")
        if rag_threshold is not None and not -1 <= rag_threshold <= 1:
            raise Gen2RealError(f"--rag-threshold {rag_threshold:g}: similarities are cosines; give one from -1 to 1.")
        template_named(rag_template)
        entries = read_entries(rag)
        check_leaks(entries, asked)
        encoder = None if rag_retriever is None else load_dual_encoder(rag_retriever)
    loaded = open_multimodal(model)
    read = loaded.made_by.get("recipe", {}).get("discriminative", {}).get("image_readout", "mean")
    embedder = Embedder(loaded, loaded.head, read)
    decoding = decoding_of(loaded.made_by, DecodingSettings())
    retriever: Retriever = OwnRetriever(embedder, decoding["batch_size"])
    if encoder is not None:
        retriever = EncoderRetriever(encoder.to(loaded.device))
    return measure_task(
        task,
        loaded,
        path,
        embedder=embedder,
        decoding=decoding,
        limit=limit,
        rag=Rag(entries, retriever, count=rag_count, threshold=rag_threshold, template=rag_template)
        if entries
        else None,
    )
