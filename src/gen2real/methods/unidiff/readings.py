"""What a joint run is worth: the two models before and after it, on pictures that were not trained on.

The drawn pictures are measured by a scorer that is in no training, on captions and seeds that are the same in every
run. The original models are measured once: their features and what they drew are kept on disk by content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor

from gen2real.errors import RecipeError
from gen2real.evaluation.features import FeatureCache, cached_texts, cached_views
from gen2real.evaluation.statistics import bootstrap_interval
from gen2real.evaluation.synthesis import diversity, synthesis_details, synthesis_values
from gen2real.files import atomic_file
from gen2real.imagesets.manifest import ImageSet
from gen2real.methods.measured import Reading
from gen2real.methods.real_pictures import RealPictures
from gen2real.methods.settings import PromptSettings
from gen2real.methods.unidiff.data import JointData
from gen2real.methods.unidiff.drawing import GENERIC, Artist, Commission, commission, content_of
from gen2real.methods.unidiff.panel import Panel, Values, general, opened, retained, still
from gen2real.methods.unidiff.settings import UniDiffConfig
from gen2real.models.dual_encoder import load_dual_encoder
from gen2real.models.image_encoder import ImageEncoder, load_image_encoder
from gen2real.models.joint import Joint, load_joint
from gen2real.training.distributed import rank

HEADLINE = "tuned"
MEANINGS = {
    "original": "the two models that the run began with",
    HEADLINE: "the two models as the run left them",
}
_NO_SCORER = (
    "Nothing was measured of what the generator draws: no scorer was given. It is another encoder, in no training: "
    "--set drawing.scorer=NAME."
)


def prepare_panel(config: UniDiffConfig, joint: Joint, data: JointData) -> Panel:
    """The panel before the first update; `joint` must still be the models that the run begins with.

    Raises: RecipeError for a scorer with the weights of the CLIP in training; what image sets and models raise.
    """
    if rank() == 0 and config.drawing.scorer is not None:
        refuse_same_scorer(config.drawing.scorer, config.models.clip)
    return Panel(config, joint, data)


def refuse_same_scorer(scorer: str, clip: str) -> None:
    """Raises: RecipeError where the scorer's image tower has the very weights of the CLIP that is trained."""
    # As it lies on disk: in training it may hold LoRA layers by now.
    if content_of(load_image_encoder(scorer).vision) == content_of(load_dual_encoder(clip).vision):
        raise RecipeError(
            f"drawing.scorer: {scorer} has the weights of models.clip, which the generator learns from: it would judge "
            "its own taste. Give another encoder, such as the folder of a DINOv2, or --set "
            "drawing.scorer=google/siglip2-base-patch16-224."
        )


def readings(
    config: UniDiffConfig, joint: Joint, data: JointData, panel: Panel
) -> tuple[dict[str, Reading], dict[str, Any]]:
    """Every reading, and what `result.json` says besides: `collapse` and `drawn`. For the first process, at the end.

    The pictures of `drawn` are written into the run's folder.

    Args:
        joint: as it will be saved, the denoiser with its running mean for weights.
    """
    device = PartialState().device
    sets = _Sets.opened(config, joint, data)
    with still(joint.to(device)):
        after = panel.measure()
        start = load_joint(config.models)
        first = Artist(start.diffusion, config.drawing, sets.scorer, device=device, cache=sets.cache)
        last = Artist(joint.diffusion, config.drawing, sets.scorer, device=device, cache=None)
        if first.content == last.content:
            # No loss looked at the denoiser: what it draws is known.
            last = first
        found = {"original": _Looked(sets, start, first, cached=True), HEADLINE: _Looked(sets, joint, last)}
        drawn = _shown(config.output, sets.wanted, first, last)
    taken = {"original": panel.before, HEADLINE: after}
    before, after = ({**own, **found[name].panel} for name, own in taken.items())
    told = {name: Reading(MEANINGS[name], own.values, own.details) for name, own in found.items()}
    return told, {"collapse": {"before": before, "during": panel.during, "after": after}, "drawn": drawn}


@dataclass(frozen=True)
class _Sets:
    """What both ends of a run are measured on, and by whom.

    real: the scorer's features [N D] of the real pictures whose captions are drawn. texts: of these captions, where the
    scorer reads texts.
    """

    evaluation: RealPictures | None
    general: RealPictures | None
    wanted: Commission
    scorer: ImageEncoder | None
    real: Tensor | None
    notes: list[str]
    cache: FeatureCache = field(default_factory=FeatureCache)

    @classmethod
    def opened(cls, config: UniDiffConfig, joint: Joint, data: JointData) -> _Sets:
        settings, preprocess = config.drawing, joint.encoder.preprocess
        pictures = None
        if config.data.evaluation is not None:
            pictures = opened(config, ImageSet.read(config.data.evaluation).kept(), preprocess)
        held_out = None if data.held_out is None else data.held_out.image_set
        image_set = None if pictures is None else pictures.image_set
        wanted = commission(settings, config.panel.prompts, image_set, held_out)
        scorer, real, notes = None, None, []
        if settings.scorer is not None:
            scorer = load_image_encoder(settings.scorer)
            scorer.vision.to(PartialState().device)
            if scorer.encoder is not None:
                scorer.encoder.to(PartialState().device)
        elif pictures is not None and settings.pictures:
            notes.append(_NO_SCORER)
        if scorer is not None and image_set is not None and wanted.rows:
            chosen = opened(config, image_set.select(list(wanted.rows)), scorer.preprocess)
            real = cached_views(scorer.vision, chosen, views=1, seed=0, cache=FeatureCache())[0]
        evaluation = None if pictures is None else RealPictures(pictures, PromptSettings())
        return cls(evaluation, general(config, preprocess), wanted, scorer, real, notes)


class _Looked:
    """One end of a run: every measure that its sets and its scorer allow.

    Attributes:
        values: measure → one value a picture, or a prompt. details: of the reading. panel: what the collapse panel has
            of what was drawn, as numbers with intervals.
    """

    def __init__(self, sets: _Sets, joint: Joint, artist: Artist, *, cached: bool = False) -> None:
        self.values: dict[str, Values] = {}
        self.details: dict[str, Any] = {}
        self.panel: dict[str, Any] = {}
        self._sets, self._artist, self._notes = sets, artist, [*sets.notes]
        # Whether a weight wants a gradient can change a product's last bit, and two readings shall differ for a reason.
        joint.encoder.to(PartialState().device).requires_grad_(False)
        with still(joint):
            self._see(joint, cached)
            if sets.scorer is not None:
                self._look_at_drawn()
        if self._notes:
            self.details["notes"] = self._notes

    def _see(self, joint: Joint, cached: bool) -> None:
        encoder = joint.encoder
        if self._sets.evaluation is not None:
            found = self._sets.evaluation.read(encoder, encoder.vision, "", cached=cached)
            self.values |= found.values
            self.details |= found.details
        if self._sets.general is not None:
            found = self._sets.general.read(encoder, encoder.vision, "", cached=cached)
            self.values |= retained(found)
            self.details |= {f"general_{name}": own for name, own in found.details.items()}

    def _look_at_drawn(self) -> None:
        sets, wanted = self._sets, self._sets.wanted
        if sets.real is not None:
            drawn = self._artist.features(wanted.measured)
            self.values |= synthesis_values(drawn, sets.real, self._read(wanted.measured.prompts))
            told = synthesis_details(drawn, sets.real)
            self._notes += told.pop("notes")
            if faults := self._artist.faults(wanted.measured):
                self._notes.append(
                    f"{faults} of {len(drawn)} drawn pictures are blank, not a number or refused by the pipeline; they "
                    "count as they are."
                )
            self.details["synthesis"] = told
        if len(wanted.sampled):
            features = self._artist.features(wanted.sampled)
            self.values["diversity"] = diversity(features.unflatten(0, (-1, wanted.samples)))
            self.panel["diversity"] = bootstrap_interval(self.values["diversity"]).to_json()
        if len(wanted.generic) and (read := self._read(wanted.generic.prompts)) is not None:
            cosines = torch.cosine_similarity(self._artist.features(wanted.generic), read).double()
            # The samples of a prompt stand or fall together.
            fidelity: np.ndarray[Any, Any] = cosines.unflatten(0, (-1, GENERIC)).mean(dim=1).numpy()
            self.panel["prompt_fidelity"] = bootstrap_interval(fidelity).to_json()

    def _read(self, prompts: tuple[str, ...]) -> Tensor | None:
        scorer = self._sets.scorer
        if scorer is None or scorer.encoder is None:
            return None
        return cached_texts(scorer.encoder, prompts, self._sets.cache)


def _shown(run: Path, wanted: Commission, first: Artist, last: Artist) -> list[dict[str, Any]]:
    """Writes the report's pictures, before and after; says what and where they are."""
    if not len(wanted.shown):
        return []
    ends: Mapping[str, Tensor] = {"before": first.pictures(wanted.shown), "after": last.pictures(wanted.shown)}
    told = []
    for number, (prompt, seed) in enumerate(zip(wanted.shown.prompts, wanted.shown.seeds, strict=True)):
        entry: dict[str, Any] = {"prompt": prompt, "seed": seed}
        for end, pictures in ends.items():
            name = f"drawn/{number:02}-{end}.png"
            with atomic_file(run / name) as partial:
                Image.fromarray(pictures[number].numpy()).save(partial, format="PNG")
            entry[end] = name
        told.append(entry)
    return told
