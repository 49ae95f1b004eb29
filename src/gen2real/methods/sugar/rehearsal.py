"""Sugar's part in `gen2real train --dry-run`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from accelerate import PartialState

from gen2real.evaluation.features import FeatureCache
from gen2real.imagesets.interleaved import read_interleaved, write_interleaved
from gen2real.imagesets.manifest import ImageSet
from gen2real.methods import rehearsal
from gen2real.methods.rehearsal import Counts, Rehearsal, Work, short_training
from gen2real.methods.settings import SourceSettings
from gen2real.methods.sugar import algorithm as sugar
from gen2real.methods.sugar.data import SugarData
from gen2real.methods.sugar.labels import Teachers
from gen2real.methods.sugar.readings import looked_up
from gen2real.methods.sugar.settings import SugarConfig, TaskSettings


def rehearse(config: SugarConfig, folder: Path, updates: int) -> Rehearsal:
    """The recipe for a few updates on a part of its samples. What is timed outside of updates is an answer, and what
    the teachers see of a slice."""
    parts = tuple(_part(one, folder / f"{place}.jsonl") for place, one in enumerate(config.data.train))
    data = config.data.model_copy(update={"train": parts})
    training = short_training(config.training, updates)
    # What is timed are the whole model's updates.
    head = config.head.model_copy(
        update={"first_updates": 0, "samples": min(config.head.samples, rehearsal.MOST_PICTURES)}
    )
    short = config.model_copy(
        update={"output": folder / "run", "data": data, "training": training, "evaluation": {}, "rag": {}, "head": head}
    )
    tuning = sugar.prepare(short)
    device = PartialState().device

    def encode() -> int:
        samples = tuning.data.sources[0].samples[: config.decoding.batch_size]
        asked = [sample.turns[0] for sample in samples]
        tuning.model.model.to(device)
        tuning.model.answer(
            [turn.pictures for turn in asked], [turn.text for turn in asked], **config.decoding.model_dump()
        )
        return len(samples)

    def label() -> int:
        slices = tuning.data.slices[: rehearsal.MOST_PICTURES]
        # What `prepare` has kept would take no time.
        teachers.features(slices, cache=FeatureCache(folder / "timed"))
        return len(slices)

    def counts() -> Counts:
        whole = SugarData(config.data, tuning.model, seed=config.seed)
        per_epoch = whole.sampler(config.training.batch_size, config.seed).steps_per_epoch
        trained = sum(p.nbytes for p in tuning.model.model.parameters() if p.requires_grad)
        trained += 0 if tuning.model.head is None else sum(p.nbytes for p in tuning.model.head.parameters())
        return Counts(
            pictures=len(whole.pictures),
            held_out=0,
            updates=config.training.total_steps(per_epoch),
            encoded=_asked(config),
            model_bytes=trained if config.save_model else 0,
            further={} if tuning.features is None else {"labels": len(dict.fromkeys(s.content for s in whole.slices))},
        )

    before = {}
    if tuning.features is not None:
        teachers = Teachers(config.teachers, device=device)
        before["labels"] = Work("slices seen by the teachers", label)
    return Rehearsal(short, encode, lambda run_folder: tuning.tune(run_folder, quiet=True), counts, before)


def _asked(config: SugarConfig) -> int:
    """How many answers or embeddings all readings take, one an item."""
    found = 0
    for name, task in config.evaluation.items():
        lookups = sum(len(rag.counts) for rag in config.rag.values() if name in looked_up(config, rag))
        found += _items(task) * (1 + config.read_base + lookups)
    return found


def _items(task: TaskSettings) -> int:
    if task.path.is_dir() or task.path.suffix == ".parquet":
        count = len(ImageSet.read(task.path).kept())
    else:
        count = sum(bool(line.strip()) for line in task.path.read_text(encoding="utf-8").splitlines())
    return min(count, task.limit or count)


def _part(source: SourceSettings, file: Path) -> SourceSettings:
    """At most `MOST_PICTURES` samples of a source, spread over all of it; the pictures stay where they are."""
    whole = read_interleaved(source.path)
    rows = np.unique(np.linspace(0, len(whole) - 1, min(len(whole), rehearsal.MOST_PICTURES)).astype(np.int64))
    write_interleaved(file, [whole[row] for row in rows])
    return source.model_copy(update={"path": file})
