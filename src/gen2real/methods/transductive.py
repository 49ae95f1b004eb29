"""Statistics of the unlabelled real pictures in place of the training pictures': no label is read, all pictures are.

A transductive number belongs in a column of its own: it says what is possible when the pictures to be named lie there
as a whole, not what a model does with one picture at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gen2real.imagesets.loading import Pictures
from gen2real.models.classifier import TextInitialisedClassifier


def centred_on(classifier: TextInitialisedClassifier, features: Float[Tensor, "n d"]) -> TextInitialisedClassifier:
    """The classifier with `feature_mean` set to these features' own mean; encoder and head are shared, not copied."""
    return TextInitialisedClassifier(
        nn.Identity(), classifier.head.weight.detach(), classifier.head.bias.detach(), feature_mean=features.mean(dim=0)
    ).eval()


@torch.no_grad()
def with_batch_norm_of(vision: nn.Module, sets: Sequence[Pictures], *, batch_size: int = 64) -> nn.Module | None:
    """A copy of the encoder whose batch-norm layers hold these pictures' mean and variance; None where it has none.

    The statistics are the plain average over batches of `batch_size` (the last one may be smaller).
    """
    adapted = copy.deepcopy(vision).eval()
    layers = [module for module in adapted.modules() if isinstance(module, _BatchNorm)]
    if not layers:
        return None
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    device = next(adapted.parameters()).device
    for pictures in sets:
        for start in range(0, len(pictures), batch_size):
            pixels = pictures.evaluation(range(start, min(start + batch_size, len(pictures))))
            adapted(pictures.preprocess.normalize(pixels.to(device)))
    return adapted.eval()
