"""Everything that a joint step computes with weights: both of CLIP's towers, the denoiser, and RSC's head.

It is one module, so that a distributed wrapper sees every parameter's use, and it runs only what the losses look at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gen2real.imagesets.transforms import Preprocess
from gen2real.methods.unidiff.settings import UniDiffConfig
from gen2real.models.diffusion import block_channels, block_features
from gen2real.models.joint import Joint
from gen2real.training.chunking import in_chunks

_HIDDEN = 2048


@dataclass(frozen=True)
class Views:
    """What one process's rows look like to the towers; None where no loss looks there. n pictures, m of them noised.

    pictures: [n 3 S S], normalised for CLIP. ids: [U L] distinct texts of the batch. read: [n] the row of `ids` that
    belongs to each picture. noised: [m C H W] latents at `times` [m], and told: [m] the row of `ids` that the denoiser
    is told (the empty text where the caption was dropped), or states: [m L d], where no text has to be read for them.
    close: the rows of `noised` that are decoded.
    """

    pictures: Float[Tensor, "n 3 s s"] | None = None
    ids: Int[Tensor, "u l"] | None = None
    read: Int[Tensor, " n"] | None = None
    noised: Float[Tensor, "m c h w"] | None = None
    times: Int[Tensor, " m"] | None = None
    told: Int[Tensor, " m"] | None = None
    states: Float[Tensor, "m k d"] | None = None
    close: Int[Tensor, " k"] | None = None


class JointNetwork(nn.Module):
    """The modules in training behind one `forward`.

    Args:
        judge: the image tower that looks at decoded pictures; None where the form of RSC decodes none.

    Attributes:
        head: brings the denoiser's features into CLIP's space (form: features); it is there in training only.
    """

    def __init__(self, joint: Joint, config: UniDiffConfig, *, judge: nn.Module | None = None) -> None:
        super().__init__()
        one = config.consistency
        self._one, self._chunk = one, config.contrastive.chunk
        self._consistent = one.weight > 0
        self._patches = self._consistent and one.pooling == "patches"
        self._contrastive = config.contrastive.weight > 0
        self.encoder, self.unet = joint.encoder, joint.diffusion.unet
        self.head: nn.Module | None = None
        if self._consistent and one.form == "features":
            width = joint.encoder.config.vision_config.hidden_size if self._patches else joint.encoder.embedding_dim
            self.head = make_head(block_channels(self.unet, one.block), int(width), seed=config.seed)
        # What is never trained lies in a tuple: it is neither wrapped nor put into checkpoints, and a text encoder that
        # is shared has one name.
        self._frozen = (joint.diffusion, judge)

    @property
    def judge(self) -> nn.Module | None:
        """The image tower that looks at decoded pictures."""
        return self._frozen[1]

    @property
    def end_token(self) -> int:
        """The id of the token that CLIP pools a text at."""
        text: Any = self.encoder.text
        return int(text.text_model.eos_token_id)

    def forward(self, views: Views) -> dict[str, Tensor]:
        """What the losses compare, by name; only what `views` has something for.

        scale: the logit scale. image: [n D]. patches: [n P W]. text: [n D]. prediction: [m C H W]. consistent: the
        visual feature of the denoiser's side, [m D], [m P W], or [k D] of the `close` rows alone.
        """
        # Not the parameter itself: a wrapper may widen what it is given.
        found: dict[str, Tensor] = {"scale": self.encoder.logit_scale * 1} if self._contrastive else {}
        if views.pictures is not None:
            found |= self._seen(views.pictures)
        states = views.states
        if views.ids is not None:
            hidden = in_chunks(self._read, (views.ids,), self._chunk)
            if views.read is not None:
                found["text"] = self._pooled(hidden, views.ids)[views.read]
            if views.told is not None:
                states = hidden[views.told]
        if views.noised is not None:
            assert states is not None
            assert views.times is not None
            found |= self._denoised(views.noised, views.times, states, views.close)
        return found

    def _seen(self, pictures: Tensor) -> dict[str, Tensor]:
        vision: Any = self.encoder.vision
        if not self._patches:
            return {"image": in_chunks(vision, (pictures,), self._chunk)}
        hidden = in_chunks(self._tokens, (pictures,), self._chunk)
        # As CLIP pools: the class token through the last norm and the projection.
        found = {"patches": hidden[:, 1:]}
        if self._contrastive:
            found["image"] = vision.visual_projection(vision.vision_model.post_layernorm(hidden[:, 0]))
        return found

    def _tokens(self, pictures: Tensor) -> Tensor:
        vision: Any = self.encoder.vision
        other_size = pictures.shape[-1] != vision.image_size
        hidden: Tensor = vision.vision_model(
            pixel_values=pictures, interpolate_pos_encoding=other_size
        ).last_hidden_state
        return hidden

    def _read(self, ids: Tensor) -> Tensor:
        # The mask of causal attention hides what comes after a token, so the padding changes nothing before it.
        text: Any = self.encoder.text
        hidden: Tensor = text.text_model(input_ids=ids).last_hidden_state
        return hidden

    def _pooled(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """CLIP's text features out of the states that the denoiser is told: the end token's, projected."""
        text: Any = self.encoder.text
        ends = end_positions(ids, self.end_token)
        features: Tensor = text.text_projection(hidden[torch.arange(len(ids), device=ids.device), ends])
        return features

    def _denoised(self, noised: Tensor, times: Tensor, states: Tensor, close: Tensor | None) -> dict[str, Tensor]:
        one = self._one
        if not self._consistent:
            return {"prediction": self.unet(noised, times, encoder_hidden_states=states).sample}
        if one.form == "decoded":
            prediction = self.unet(noised, times, encoder_hidden_states=states).sample
            assert close is not None
            looked_at = self._decoded(noised[close], prediction[close], times[close])
            return {"prediction": prediction, "consistent": looked_at}
        with block_features(self.unet, one.block) as block:
            prediction = self.unet(noised, times, encoder_hidden_states=states).sample
        features = block.features
        # A direction that does not teach the denoiser keeps no graph through it.
        if one.direction == "diffusion_to_clip":
            features = features.detach()
        return {"prediction": prediction, "consistent": self._headed(features)}

    def _headed(self, features: Tensor) -> Tensor:
        if self._patches:
            vision: Any = self.encoder.vision
            side = vision.image_size // int(self.encoder.config.vision_config.patch_size)
            grid = F.interpolate(features, size=(side, side), mode="bilinear", align_corners=False)
            features = grid.flatten(2).transpose(1, 2)
        else:
            features = features.mean(dim=(2, 3))
        return features if self.head is None else self.head(features)

    def _decoded(self, noised: Tensor, prediction: Tensor, times: Tensor) -> Tensor:
        diffusion, judge = self._frozen
        assert judge is not None
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._one.direction != "diffusion_to_clip"):
            # f_d = P_v Ẽ_v(resize(clamp(D(ẑ_0 / s))))
            pictures = diffusion.decode(diffusion.clean_estimate(noised, prediction, times))
            seen: Tensor = judge(as_clip_sees(pictures, self.encoder.preprocess))
        return seen


def make_head(channels: int, dim: int, *, seed: int) -> nn.Module:
    """Linear, SiLU, Linear, SiLU, Linear, as in REPA (arXiv 2410.06940); the width is at most REPA's 2048 (ours)."""
    hidden = min(_HIDDEN, 4 * max(channels, dim))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(channels, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, dim)
        )


def end_positions(ids: Int[Tensor, "n l"], end: int) -> Int[Tensor, " n"]:
    """[n]: where CLIP pools a text: at the first end token, or at the largest id where the config has the old id 2."""
    return ids.int().argmax(dim=-1) if end == 2 else (ids == end).int().argmax(dim=-1)


def as_clip_sees(pictures: Float[Tensor, "n 3 h w"], preprocess: Preprocess) -> Float[Tensor, "n 3 s s"]:
    """Decoded pictures, about −1 to 1, as CLIP's pixels, with gradient."""
    size = preprocess.size
    # What lies outside of the range is clamped as a picture's file would, and gets no gradient.
    unit = (pictures.float() / 2 + 0.5).clamp(0, 1)
    if unit.shape[-2:] != (size, size):
        unit = F.interpolate(unit, size=(size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    mean, std = (torch.tensor(own, device=unit.device).reshape(3, 1, 1) for own in (preprocess.mean, preprocess.std))
    return (unit - mean) / std
