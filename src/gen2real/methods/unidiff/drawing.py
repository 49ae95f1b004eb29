"""What a generator in training draws: to be looked at, and to be measured by a scorer that is in no training."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from gen2real.evaluation.features import FeatureCache, encode_drawn
from gen2real.files import digest, digest_tensors
from gen2real.generation.drawing import Drawn, Painter
from gen2real.generation.generators import denoiser_dtype, generator_in_memory
from gen2real.generation.plan import seed_of
from gen2real.generation.settings import GeneratorSettings
from gen2real.imagesets.manifest import ImageSet
from gen2real.methods.captioned import captions_to_draw, spread
from gen2real.methods.unidiff.settings import DrawingSettings
from gen2real.models.diffusion import Diffusion
from gen2real.models.image_encoder import ImageEncoder

GENERIC = 2
"""Pictures of each of the panel's prompts; their fidelity is over prompts, so more of one say little more."""
SHOWN = 8
"""Captions that are drawn for the report where `drawing.prompts` names none."""


@dataclass(frozen=True)
class Wanted:
    """Prompts and the seed of each. Seeds are of what is drawn alone: every run of every seed draws the same."""

    prompts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Commission:
    """All that is drawn with one generator.

    shown: for the report. measured: a caption of each of the evaluation pictures `rows`, one picture each. sampled:
    prompt after prompt, `samples` of each, for diversity. generic: `GENERIC` of each of the panel's prompts, for
    fidelity.
    """

    shown: Wanted
    measured: Wanted
    rows: tuple[int, ...]
    sampled: Wanted
    generic: Wanted
    samples: int


def commission(
    settings: DrawingSettings, generic: Sequence[str], evaluation: ImageSet | None, held_out: ImageSet | None
) -> Commission:
    """What is drawn, by the recipe and the sets alone.

    Args:
        generic: prompts of no domain. evaluation: whose captions are drawn. held_out: whose captions are shown where
            there is no evaluation set.
    """
    captions = [] if evaluation is None else captions_to_draw(evaluation)
    shown = list(settings.prompts)
    if not shown and settings.pictures:
        known = captions or ([] if held_out is None else captions_to_draw(held_out))
        shown = _different([one.text for one in known], SHOWN)
    chosen = [] if evaluation is None else captions_to_draw(evaluation, settings.pictures)
    sampled = _different([one.text for one in captions], settings.sampled_prompts)
    by_scorer = settings.scorer is not None
    # Of one picture nothing that compares sets can be said.
    measured = chosen if by_scorer and len(chosen) > 1 else []
    return Commission(
        shown=_repeated(shown, 1, "shown"),
        measured=Wanted(tuple(one.text for one in measured), tuple(one.seed for one in measured)),
        rows=tuple(one.row for one in measured),
        sampled=_repeated(sampled if by_scorer else [], settings.samples, "sampled"),
        generic=_repeated(generic if by_scorer and settings.sampled_prompts else [], GENERIC, "generic"),
        samples=settings.samples,
    )


class Artist:
    """One generator, drawing in evaluation mode with the weights it has at its first picture.

    What it drew is kept on disk under the content of its weights, prompts, seeds, steps, guidance and scorer, where
    `cache` is given: of fifty runs from one start the first draws it.
    """

    def __init__(
        self,
        diffusion: Diffusion,
        settings: DrawingSettings,
        scorer: ImageEncoder | None,
        *,
        device: torch.device,
        cache: FeatureCache | None,
    ) -> None:
        self._diffusion, self._settings, self._scorer = diffusion, settings, scorer
        self._device, self._cache = device, cache

    @cached_property
    def content(self) -> str:
        """A hash of everything that decides a picture but its prompt and seed."""
        made = self._diffusion
        weights = [content_of(part) for part in (made.unet, made.text_encoder, made.vae)]
        schedule = dict(made.scheduler.config)
        asked = [self._settings.steps, self._settings.guidance, made.sample_size, str(denoiser_dtype(self._device))]
        return digest("drawn", weights, type(made.scheduler).__name__, schedule, asked)

    def pictures(self, wanted: Wanted) -> UInt8[Tensor, "n h w 3"]:
        """The pictures themselves, uint8 [N H W 3]."""
        return self._kept(
            "pictures", wanted, lambda drawn: torch.stack([torch.from_numpy(one.pixels) for one in drawn])
        )

    def features(self, wanted: Wanted) -> Float[Tensor, "n d"]:
        """Un-normalised features of the scorer, [N D]."""
        return self._kept(f"features of {self._scorer_content}", wanted, self._encoded)

    def faults(self, wanted: Wanted) -> int:
        """How many of them are blank, or were refused by the pipeline's own safety checker; they count as they are."""
        kept = self._kept(
            "faults", wanted, lambda drawn: torch.tensor([one.fault is not None for one in drawn]).sum()[None]
        )
        return int(kept)

    @cached_property
    def _scorer_content(self) -> str:
        assert self._scorer is not None
        return digest(content_of(self._scorer.vision), self._scorer.preprocess.to_dict())

    def _kept(self, what: str, wanted: Wanted, make: Any) -> Tensor:
        def compute() -> Tensor:
            found: Tensor = make(self._drawn(wanted))
            return found

        if self._cache is None:
            return compute()
        return self._cache.get(digest(self.content, what, wanted.prompts, wanted.seeds), compute)

    def _drawn(self, wanted: Wanted) -> list[Drawn]:
        if wanted not in self._memory:
            size = self._settings.batch_size
            self._memory[wanted] = self._painter.draw_all(wanted.prompts, wanted.seeds, batch_size=size)
        return self._memory[wanted]

    @cached_property
    def _memory(self) -> dict[Wanted, list[Drawn]]:
        return {}

    @cached_property
    def _painter(self) -> Painter:
        made = self._diffusion.to(self._device).eval()
        pipeline = made.pipeline()
        # To be drawn with, a denoiser is cast and a decoder given another method; those in training stay as they are.
        pipeline.register_modules(unet=_cast_copy(made.unet, denoiser_dtype(self._device)), vae=copy.copy(made.vae))
        settings = GeneratorSettings(name=made.name, steps=self._settings.steps, guidance=self._settings.guidance)
        return Painter(generator_in_memory(pipeline, settings, content=self.content, device=self._device))

    def _encoded(self, drawn: Sequence[Drawn]) -> Tensor:
        assert self._scorer is not None
        return encode_drawn(self._scorer.vision, self._scorer.preprocess, [one.pixels for one in drawn])


def content_of(module: nn.Module) -> str:
    """A hash of a module's weights."""
    return digest_tensors(module.state_dict())


def _different(texts: Sequence[str], most: int) -> list[str]:
    return spread(list(dict.fromkeys(texts)), most)


def _repeated(prompts: Sequence[str], times: int, purpose: str) -> Wanted:
    pairs = [(text, seed_of(0, f"{purpose}\0{text}\0{time}")) for text in prompts for time in range(times)]
    return Wanted(tuple(text for text, _ in pairs), tuple(seed for _, seed in pairs))


def _cast_copy(module: nn.Module, kind: torch.dtype) -> nn.Module:
    """A frozen copy in another precision; no second one in full precision ever lies in memory.

    In the memory format of a pipeline that is loaded from files, so that it draws the same to the bit.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        cast = parameter.detach().to(kind, copy=True, memory_format=torch.contiguous_format)
        memo[id(parameter)] = nn.Parameter(cast, requires_grad=False)
    for part in module.modules():
        # Whoever listens to the original has not asked for this one.
        memo[id(part._forward_hooks)] = OrderedDict()
    return copy.deepcopy(module, memo).eval()
