"""Joint training's part in `gen2real train --dry-run`."""

from __future__ import annotations

import math
from pathlib import Path

from accelerate import PartialState

from gen2real.evaluation.features import encode_pictures
from gen2real.imagesets import ImageSet
from gen2real.methods.rehearsal import Counts, Rehearsal, Work, part_of, short_training
from gen2real.methods.unidiff.algorithm import PARTS, JointTraining
from gen2real.methods.unidiff.data import JointData
from gen2real.methods.unidiff.drawing import Artist, Wanted, commission
from gen2real.methods.unidiff.panel import LOOKED_AT
from gen2real.methods.unidiff.settings import UniDiffConfig
from gen2real.models.joint import load_joint
from gen2real.training.state_memory import StateMemory, state_memory

_LEAST = 16
# Panels of a run, where the recipe does not say how often.
_PANELS = 10


def rehearse(config: UniDiffConfig, folder: Path, updates: int) -> Rehearsal:
    """The recipe for a few updates on as many pictures as a batch needs, with one crop each."""
    joint = load_joint(config.models).to(PartialState().device)
    # What is wrong with the pictures is told of the whole set.
    whole = JointData(config, joint)
    short = _shortened(config, folder, updates)
    training = JointTraining(short, joint, JointData(short, joint))
    # A run ends by merging what was put in.
    states, changes = states_of(training), _changes(training)

    def encode() -> int:
        encode_pictures(joint.encoder.vision, training.data.train)
        return len(training.data.train)

    def crop() -> int:
        return 0 if training.data.kept is None else len(training.data.train)

    def draw() -> int:
        prompts = _wanted(config, whole)[: config.drawing.batch_size]
        if prompts:
            artist = Artist(joint.diffusion, config.drawing, None, device=PartialState().device, cache=None)
            artist.pictures(Wanted(prompts, tuple(range(len(prompts)))))
        return len(prompts)

    def counts() -> Counts:
        held_out = 0 if whole.held_out is None else len(whole.held_out)
        drawn = len(_wanted(config, whole)) * (2 if changes else 1)
        saved = {**joint.encoder.state_dict(prefix="model."), **joint.diffusion.state_dict(prefix="generator.")}
        return Counts(
            pictures=len(whole.train),
            held_out=held_out,
            updates=whole.steps() + config.conflict.heads_first,
            encoded=_encoded(config, whole, drawn),
            model_bytes=sum(value.nbytes for value in saved.values()) if config.save_model else 0,
            further={"crops": len(whole.train) * (config.data.views or 0), "drawn": drawn},
        )

    return Rehearsal(
        short,
        encode,
        lambda run_folder: training.train(run_folder, quiet=True),
        counts,
        before={"crops": Work("crops encoded by the VAE and kept", crop)} if config.data.views else {},
        after={"drawn": Work("pictures drawn", draw)},
        states=states,
    )


def states_of(training: JointTraining) -> StateMemory:
    """What the run holds besides activations, by part and mode; of a text tower that is shared, once."""
    joint, network, config = training.joint, training.network, training.data.config
    named = {"image": "image tower", "text": "text tower", "unet": "denoiser"}
    parts = [
        (named[part], getattr(config, part).mode, joint.part(part), part == "unet" and config.synthesis.ema is not None)
        for part in PARTS
    ]
    if network.head is not None:
        parts.append(("head of RSC", "full", network.head, False))
    parts.append(("VAE", "frozen", joint.diffusion.vae, False))
    parts.append(("the generator's text encoder", "frozen", joint.diffusion.text_encoder, False))
    if network.judge is not None:
        # Its weights are the running mean.
        parts.append(("judge of RSC", config.consistency.judge, network.judge, False))
    return state_memory(parts)


def _changes(training: JointTraining) -> bool:
    """Whether what is drawn at the end differs from what was drawn before."""
    return any(parameter.requires_grad for parameter in training.joint.diffusion.parameters())


def _wanted(config: UniDiffConfig, data: JointData) -> tuple[str, ...]:
    """Every prompt that one generator draws, as often as it does."""
    evaluation = None if config.data.evaluation is None else ImageSet.read(config.data.evaluation).kept()
    held_out = None if data.held_out is None else data.held_out.image_set
    found = commission(config.drawing, config.panel.prompts, evaluation, held_out)
    return (*found.shown.prompts, *found.measured.prompts, *found.sampled.prompts, *found.generic.prompts)


def _encoded(config: UniDiffConfig, data: JointData, drawn: int) -> int:
    """Held-out and general pictures by every panel, those to measure on before and after, and what the scorer sees."""
    evaluation, general = (
        0 if path is None else len(ImageSet.read(path).kept()) for path in (config.data.evaluation, config.data.general)
    )
    steps = data.steps()
    panels = 2 + (steps - 1) // (config.panel.every or max(1, math.ceil(steps / _PANELS)))
    looked_at = evaluation if data.held_out is None else len(data.held_out)
    seen = panels * (min(looked_at, LOOKED_AT) + min(general, LOOKED_AT)) + 2 * (evaluation + general)
    scored = 0 if config.drawing.scorer is None else drawn + min(config.drawing.pictures, evaluation)
    return seen + scored


def _shortened(config: UniDiffConfig, folder: Path, updates: int) -> UniDiffConfig:
    data = config.data
    most = max(_LEAST, math.ceil(config.training.batch_size / (1 - data.holdout)) + 1)
    changes = {
        "pictures": part_of(data.pictures, folder / "part", most=most),
        "evaluation": None,
        "general": None,
        "limit": None,
        "views": None if data.views is None else 1,
    }
    return config.model_copy(
        update={
            "output": folder / "run",
            "data": data.model_copy(update=changes),
            "training": short_training(config.training, updates),
            "conflict": config.conflict.model_copy(update={"heads_first": 0}),
        }
    )
