"""Which weights the losses of a recipe reach. The others are frozen, whatever their mode says: no decay moves them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from gen2real.methods.unidiff.network import JointNetwork
from gen2real.methods.unidiff.settings import UniDiffConfig


def freeze_unreached(network: JointNetwork, config: UniDiffConfig, *, shared: bool) -> None:
    """Freezes every part of the network that gets no gradient from the losses of `config`.

    ======================  ================================================================================
    image tower             ITC; RSC unless it teaches the denoiser alone
    text tower              ITC; where it is shared also IS, and RSC unless it teaches CLIP alone
    denoiser                IS; RSC unless it teaches CLIP alone, then up to the block that is looked at
    RSC's head              RSC, in every direction
    logit scale             ITC, where it is learned
    ======================  ================================================================================
    """
    for module in _unreached(network, config, shared=shared):
        module.requires_grad_(False)
    learned = config.contrastive.weight > 0 and config.contrastive.scale == "learned"
    towers = (network.encoder.vision, network.encoder.text)
    is_trained = any(parameter.requires_grad for tower in towers for parameter in tower.parameters())
    network.encoder.logit_scale.requires_grad_(learned and is_trained)


def _unreached(network: JointNetwork, config: UniDiffConfig, *, shared: bool) -> Iterator[nn.Module]:
    one = config.consistency
    contrastive, synthesis = config.contrastive.weight > 0, config.synthesis.weight > 0
    teaches_clip = one.weight > 0 and one.direction != "clip_to_diffusion"
    teaches_denoiser = one.weight > 0 and one.direction != "diffusion_to_clip"
    vision: Any = network.encoder.vision
    text: Any = network.encoder.text
    unet: Any = network.unet
    if not (contrastive or teaches_clip):
        yield vision
    elif not contrastive and one.pooling == "patches":
        # Patches are compared as the last layer leaves them.
        yield vision.vision_model.post_layernorm
        yield vision.visual_projection
    if not (contrastive or (shared and (synthesis or teaches_denoiser))):
        yield text
    elif not contrastive:
        yield text.text_projection
    if not (synthesis or teaches_denoiser):
        yield unet
    elif not synthesis and one.form != "decoded":
        yield from _behind(unet, one.block)


def _behind(unet: Any, block: str) -> Iterator[nn.Module]:
    """The parts of a denoiser that come after a block."""
    if block == "down":
        yield unet.mid_block
    yield from unet.up_blocks[1:] if block == "up" else unet.up_blocks
    yield from (part for part in (unet.conv_norm_out, unet.conv_out) if part is not None)
