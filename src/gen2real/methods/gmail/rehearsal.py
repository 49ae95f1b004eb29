"""An alignment's part in `gen2real train --dry-run`."""

from __future__ import annotations

from pathlib import Path

from gen2real.evaluation.features import encode_pictures
from gen2real.imagesets import ImageSet
from gen2real.imagesets.pairs import pair_up
from gen2real.methods.gmail import algorithm as gmail
from gen2real.methods.gmail.data import AlignmentData
from gen2real.methods.gmail.settings import GMAILConfig
from gen2real.methods.rehearsal import Counts, Rehearsal, part_of, short_training, write_part


def rehearse(config: GMAILConfig, folder: Path, updates: int) -> Rehearsal:
    """The recipe for a few updates on a part of each generated set, with its partners."""
    short = _shortened(config, folder, updates)
    alignment = gmail.prepare(short)

    def encode() -> int:
        part = alignment.data.sources[0].pictures
        encode_pictures(alignment.encoder.vision, part)
        return len(part)

    def counts() -> Counts:
        data = AlignmentData(config, alignment.data.preprocess)
        per_epoch = data.sampler(config.training.batch_size, config.seed).steps_per_epoch
        held_out = 0 if data.held_out is None else len(data.held_out.generated)
        model = sum(value.nbytes for value in alignment.encoder.state_dict().values()) if config.save_model else 0
        return Counts(
            pictures=sum(len(source) for source in data.sources),
            held_out=held_out,
            updates=config.training.total_steps(per_epoch),
            encoded=_encoded(config, data, held_out),
            model_bytes=model,
        )

    return Rehearsal(short, encode, lambda run_folder: alignment.train(run_folder, quiet=True), counts)


def _encoded(config: GMAILConfig, data: AlignmentData, held_out: int) -> int:
    """Targets once, held-out generated pictures by f_r and f_g, and the evaluation set likewise."""
    targets = 0 if data.real is None or (config.aligns == "nothing" and not config.real_projection) else len(data.real)
    measured = 0
    if config.data.evaluation is not None:
        measured = len(ImageSet.read(config.data.evaluation).kept()) * (3 if config.real_projection else 2)
    return targets + 2 * held_out + measured


def _shortened(config: GMAILConfig, folder: Path, updates: int) -> GMAILConfig:
    data = config.data
    parts = tuple(part_of(path, folder / f"part-{place}") for place, path in enumerate(data.generated))
    changes: dict[str, object] = {"generated": parts, "evaluation": None}
    if data.real is not None:
        changes["real"] = _partners(data.real, parts, folder / "real", paired=config.aligns != "distributions")
    return config.model_copy(
        update={
            "output": folder / "run",
            "data": data.model_copy(update=changes),
            "training": short_training(config.training, updates),
        }
    )


def _partners(real: Path, parts: tuple[Path, ...], folder: Path, *, paired: bool) -> Path:
    if not paired or not parts:
        return part_of(real, folder)
    whole = ImageSet.read(real).kept()
    found = {row for part in parts for row in pair_up(ImageSet.read(part), whole).real.tolist()}
    return write_part(whole, sorted(found), folder)
