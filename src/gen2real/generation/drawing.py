"""From prompts and seeds to pixels: one batch at a time, each picture from random numbers of its own."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gen2real.generation.generators import Generator
from gen2real.imagesets.decoding import is_blank
from gen2real.pipelines import libraries_quiet

_EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_REMEMBERED = 64


@dataclass(frozen=True)
class Drawn:
    """A picture: uint8 [H W 3], and what is wrong with it, if anything."""

    pixels: npt.NDArray[np.uint8]
    fault: str | None


class Painter:
    """Draws with one generator.

    Every picture has a `torch.Generator` of its own on the CPU, seeded by its seed, for its latents and for whatever
    noise a stochastic scheduler adds; so it depends on prompt and seed alone, not on its neighbours in the batch. What
    remains is rounding: with another batch size, sums may be taken in another order.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.encoded = 0
        self._takes = set(inspect.signature(type(generator.pipeline).__call__).parameters)
        self._memory: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._negative: dict[str, Tensor] = {}

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], *, steps: int | None = None) -> list[Drawn]:
        """A picture for each prompt and seed."""
        made = self.generator
        given: dict[str, Any] = {
            "num_inference_steps": steps or made.steps,
            "height": made.height,
            "width": made.width,
            "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
            "output_type": "pt",
        }
        if made.guidance is not None:
            given["guidance_scale"] = made.guidance
        with torch.inference_mode(), libraries_quiet():
            given |= self._embeddings(prompts) if made.encodes else self._texts(prompts)
            output = made.pipeline(**{key: value for key, value in given.items() if key in self._takes})
            refused = getattr(output, "nsfw_content_detected", None) or [False] * len(prompts)
            pictures = output.images.float()
            sound = pictures.flatten(1).isfinite().all(dim=1).tolist()
            levels = pictures.nan_to_num(0, 0, 0).mul(255).round().clamp(0, 255).to(torch.uint8)
            pixels = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return [
            Drawn(one, _fault(one, is_sound, bool(is_refused)))
            for one, is_sound, is_refused in zip(pixels, sound, refused, strict=True)
        ]

    def draw_all(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        batch_size: int,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[Drawn]:
        """`draw`, batch by batch, in the order given. on_batch: is told how many are drawn by now."""
        drawn: list[Drawn] = []
        for start in range(0, len(prompts), batch_size):
            batch = slice(start, start + batch_size)
            drawn += self.draw(prompts[batch], seeds[batch])
            if on_batch is not None:
                on_batch(len(drawn))
        return drawn

    @property
    def _is_guided(self) -> bool:
        return self.generator.guidance is not None and self.generator.guidance > 1

    def _texts(self, prompts: Sequence[str]) -> dict[str, Any]:
        negative = self.generator.negative_prompt
        return {"prompt": list(prompts)} | ({"negative_prompt": [negative] * len(prompts)} if negative else {})

    def _embeddings(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Each prompt's embeddings, and the negative ones as often, stacked: [N …] by the pipeline's argument."""
        encoded = [self._encode(prompt) for prompt in prompts]
        return {name: torch.cat([one[name] for one in encoded]) for name in encoded[0]}

    def _encode(self, prompt: str) -> dict[str, Tensor]:
        """One text at a time: a padded batch of others must not change its last digits."""
        if prompt in self._memory:
            self._memory.move_to_end(prompt)
            return self._memory[prompt]
        pipeline = self.generator.pipeline
        negative_is_known = bool(self._negative)
        # Some pipelines have further texts, for their other text encoders, that must be given; None is the same text.
        asked: dict[str, Any] = {
            name: None
            for name, parameter in inspect.signature(pipeline.encode_prompt).parameters.items()
            if parameter.default is inspect.Parameter.empty
        }
        asked |= {
            "prompt": prompt,
            "device": self.generator.device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": self._is_guided and not negative_is_known,
            "negative_prompt": self.generator.negative_prompt or None,
        }
        found = pipeline.encode_prompt(**asked)
        named = {
            name: value.float()
            for name, value in zip(_EMBEDDINGS, found, strict=False)
            if isinstance(value, Tensor) and name in self._takes
        }
        self.encoded += 1
        if self._is_guided and not negative_is_known:
            self._negative = {name: value for name, value in named.items() if name.startswith("negative")}
        whole = {name: value for name, value in named.items() if not name.startswith("negative")}
        if self._is_guided:
            whole |= self._negative
        self._memory[prompt] = whole
        if len(self._memory) > _REMEMBERED:
            self._memory.popitem(last=False)
        return whole


def _fault(pixels: npt.NDArray[np.uint8], is_sound: bool, is_refused: bool) -> str | None:
    if not is_sound:
        return "not a number"
    if is_refused:
        return "refused by the pipeline's safety checker"
    return "blank" if is_blank(pixels) else None
