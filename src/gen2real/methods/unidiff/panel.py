"""Does anything collapse? Held-out pictures, the general set and generic prompts, looked at while a run goes on.

Before and after the training the same panel is taken, then with what the generators draw as well (`readings`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gen2real.evaluation.collapse import collapse_panel, text_drift
from gen2real.evaluation.features import encode_pictures
from gen2real.evaluation.projection import sample_rows
from gen2real.evaluation.retrieval import caption_positives
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.transforms import Preprocess
from gen2real.methods.measured import Reading
from gen2real.methods.real_pictures import RealPictures
from gen2real.methods.settings import PromptSettings
from gen2real.methods.unidiff.data import JointData
from gen2real.methods.unidiff.settings import UniDiffConfig
from gen2real.models.joint import Joint
from gen2real.training.distributed import rank
from gen2real.training.run_folder import RunFolder

STAGE = "panel"
"""What the panel's lines in `metrics.jsonl` have for a stage."""
LOOKED_AT = 512
"""At most so many pictures of a set: the panel is taken many times."""
_TIMES = 10

Values = npt.NDArray[np.float64]


class Panel:
    """Looks at the two models as they are, on the first process alone; nothing here draws a random number.

    Attributes:
        before: the panel of the models that the run began with, measure → number; empty on other processes.
        looks: whether this is the first process.
    """

    def __init__(self, config: UniDiffConfig, joint: Joint, data: JointData) -> None:
        self._config, self._joint, self.data, self.looks = config, joint, data, rank() == 0
        self._every = config.panel.every or max(1, -(-data.steps() // _TIMES))
        self._steps = data.steps()
        self._folder = RunFolder(config.output, config, writer=False)
        self._is_first_line = True
        self.before: dict[str, float] = {}
        self._states: Tensor | None = None
        if not self.looks:
            return
        self._seen = held_out(config, data)
        self._general = general(config, joint.encoder.preprocess, most=LOOKED_AT)
        if config.panel.prompts:
            with still(joint):
                self._states = self._read()
        self.before = self.measure()

    def on_step(self, update: int) -> None:
        """Takes the panel after every so many updates, into `metrics.jsonl`; the last one is left to the end."""
        if not self.looks:
            return
        if self._is_first_line:
            # A run that was killed does some updates again, and looks at them again.
            self._folder.forget_after(STAGE, update - 1)
            self._is_first_line = False
        if update % self._every == 0 and update < self._steps:
            self._folder.log({"stage": STAGE, "step": update, **self.measure()})

    def measure(self) -> dict[str, float]:
        """The panel now: measure → number. Modes, gradients and random numbers are left as they were."""
        with still(self._joint):
            return {**self._features(), **self._drift(), **self._retention()}

    @property
    def during(self) -> list[dict[str, Any]]:
        """What was logged so far, also before an interruption: {"step": n, measure: number}."""
        if not self._folder.metrics.exists():
            return []
        rows = [json.loads(line) for line in self._folder.metrics.read_text(encoding="utf-8").splitlines()]
        return [{key: own for key, own in row.items() if key != "stage"} for row in rows if row["stage"] == STAGE]

    def _features(self) -> dict[str, float]:
        """Nothing where there are too few pictures or texts to be spread."""
        if self._seen is None:
            return {}
        texts, _ = caption_positives(self._seen.image_set.captions)
        if len(self._seen) < 2 or len(texts) < 2:
            return {}
        encoder = self._joint.encoder
        found = collapse_panel(encode_pictures(encoder.vision, self._seen), encoder.encode_text(texts).float().cpu())
        return {
            "effective_rank_pictures": found.image_rank,
            "effective_rank_texts": found.text_rank,
            "uniformity_pictures": found.image_uniformity,
            "uniformity_texts": found.text_uniformity,
            "caption_cosine": found.caption_cosine,
            "modality_gap": found.modality_gap,
        }

    def _drift(self) -> dict[str, float]:
        if self._states is None:
            return {}
        found = text_drift(self._read(), self._states)
        return {"text_drift": found.direction, "text_drift_norm": found.norm - 1}

    def _retention(self) -> dict[str, float]:
        if self._general is None:
            return {}
        encoder = self._joint.encoder
        found = retained(self._general.read(encoder, encoder.vision, "", cached=False))
        return {measure: float(own.mean()) for measure, own in found.items()}

    def _read(self) -> Tensor:
        made = self._joint.diffusion
        return made.states(made.ids(self._config.panel.prompts)).float().cpu()


def held_out(config: UniDiffConfig, data: JointData) -> Pictures | None:
    """The pictures that the panel looks at: held-out ones, or where nothing is held out, those that are measured on."""
    found = data.held_out
    if found is None and config.data.evaluation is not None:
        found = opened(config, ImageSet.read(config.data.evaluation).kept(), data.clip_preprocess)
    return None if found is None else part_of(found)


def general(config: UniDiffConfig, preprocess: Preprocess, *, most: int | None = None) -> RealPictures | None:
    """The general set, or a part of it, in CLIP's evaluation geometry; its captions count where it has no labels."""
    if config.data.general is None:
        return None
    whole = opened(config, ImageSet.read(config.data.general).kept(), preprocess)
    chosen = whole if most is None else part_of(whole, most)
    return RealPictures(chosen, PromptSettings(), retrieval=not bool((chosen.image_set.labels >= 0).any()))


def retained(reading: Reading) -> dict[str, Values]:
    """Of a reading of the general set what tells how much was forgotten: top-1, or recall@1 both ways."""
    return {f"general_{name}": own for name, own in reading.values.items() if re.search(r"top1|recall@1$", name)}


def opened(config: UniDiffConfig, image_set: ImageSet, preprocess: Preprocess) -> Pictures:
    """Pictures in a preprocessing's evaluation geometry, by the recipe's rule for unreadable ones."""
    return Pictures(image_set, preprocess, on_unreadable=config.data.on_unreadable)


def part_of(pictures: Pictures, most: int = LOOKED_AT) -> Pictures:
    """At most `most` of the pictures, spread over them; always the same ones."""
    if len(pictures) <= most:
        return pictures
    chosen = pictures.image_set.select(sample_rows(len(pictures), most).tolist())
    return Pictures(chosen, pictures.preprocess, background=pictures.background, max_pixels=pictures.max_pixels)


@contextmanager
def still(joint: Joint) -> Iterator[None]:
    """Within, both models are in evaluation mode and no gradient is kept; then every part is in the mode it was in."""
    wholes: Sequence[nn.Module] = (joint.encoder, joint.diffusion)
    modes = [(module, module.training) for whole in wholes for module in whole.modules()]
    try:
        for whole in wholes:
            whole.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
