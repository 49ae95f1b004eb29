"""Starts an autoencoder as one that keeps a small colour picture, so that training only has to add the detail.

From random weights a small one learns outlines long before colours, and colour is what the kit's prompts name.

Three latents hold the averaged red, green and blue. They travel in channels 0 to 5 as +RGB and −RGB, because what
comes before the last convolutions, silu, gives them back whole: silu(x) − silu(−x) = x. Channels 6 and 7 hold ±K, so
that the last group norm divides by nearly the same number whatever the picture.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

_CARRIED = 8
_CONSTANT = 3.0
_LOG_VARIANCE = -6.0


@torch.no_grad()
def start_as_thumbnail(model: AutoencoderKL, pixels: Tensor) -> None:
    """Sets weights in place; `pixels` [N 3 S S] from −1 to 1 give the two scales that are measured.

    The model needs one norm group, at least 8 channels everywhere, no attention, and at least 3 latents.
    """
    encoder, decoder = model.encoder, model.decoder
    average = torch.zeros(3, 3)
    average[:2, :2] = 0.25  # diffusers pads right and below
    tent = torch.tensor([1.0, 2.0, 1.0])
    tent = torch.outer(tent, tent) / 16
    for coder in (encoder, decoder):
        _to_signed(coder.conv_in)
        _pass_on(coder.mid_block.resnets)
        _from_signed(coder.conv_out)
    for block in encoder.down_blocks:
        _pass_on(block.resnets)
        for layer in block.downsamplers or ():
            _carry(layer.conv, average)
    for block in decoder.up_blocks:
        _pass_on(block.resnets)
        for layer in block.upsamplers or ():
            _carry(layer.conv, tent)
    count = model.config.latent_channels
    encoder.conv_out.weight[count:] = 0
    encoder.conv_out.bias[count:] = _LOG_VARIANCE
    for convolution in (model.quant_conv, model.post_quant_conv):
        convolution.weight.copy_(torch.eye(len(convolution.weight))[:, :, None, None])
        convolution.bias.zero_()
    small = F.avg_pool2d(pixels, pixels.shape[-1] // _latents(model, pixels).shape[-1])
    encoder.conv_out.weight[:3] *= _scale(_latents(model, pixels)[:, :3], small)
    decoder.conv_out.weight *= _scale(model.decode(_latents(model, pixels)).sample, pixels)


def _latents(model: AutoencoderKL, pixels: Tensor) -> Tensor:
    return model.encode(pixels).latent_dist.mode()


def _scale(found: Tensor, wanted: Tensor) -> Tensor:
    """The least-squares factor from one to the other."""
    return (found * wanted).sum() / (found * found).sum()


def _to_signed(convolution: nn.Conv2d) -> None:
    centre = convolution.weight.shape[-1] // 2
    convolution.weight[:_CARRIED] = 0
    assert convolution.bias is not None
    convolution.bias[:_CARRIED] = torch.tensor([0.0] * 6 + [_CONSTANT, -_CONSTANT])
    for colour in range(3):
        convolution.weight[colour, colour, centre, centre] = 1
        convolution.weight[colour + 3, colour, centre, centre] = -1


def _from_signed(convolution: nn.Conv2d) -> None:
    centre = convolution.weight.shape[-1] // 2
    convolution.weight[:3] = 0
    assert convolution.bias is not None
    convolution.bias[:3] = 0
    for colour in range(3):
        convolution.weight[colour, colour, centre, centre] = 1
        convolution.weight[colour, colour + 3, centre, centre] = -1


def _pass_on(resnets: Iterable[nn.Module]) -> None:
    """Residual blocks that add nothing yet."""
    for resnet in resnets:
        assert isinstance(resnet.conv2, nn.Conv2d)
        nn.init.zeros_(resnet.conv2.weight)
        assert resnet.conv2.bias is not None
        nn.init.zeros_(resnet.conv2.bias)
        if isinstance(resnet.conv_shortcut, nn.Conv2d):
            _carry(resnet.conv_shortcut, torch.ones(1, 1))


def _carry(convolution: nn.Conv2d, kernel: Tensor) -> None:
    """Channels 0 to 7 to themselves, through a kernel."""
    convolution.weight[:_CARRIED] = 0
    assert convolution.bias is not None
    convolution.bias[:_CARRIED] = 0
    for channel in range(_CARRIED):
        convolution.weight[channel, channel] = kernel
