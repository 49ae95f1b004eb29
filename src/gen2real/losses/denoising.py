"""The loss a diffusion model is trained with, with the min-SNR-γ weighting of its noise levels."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gen2real.losses._precision import outside_autocast, widen

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@outside_autocast
def denoising(
    prediction: Float[Tensor, " n *rest"],
    target: Float[Tensor, " n *rest"],
    *,
    snr: Float[Tensor, " n"] | None = None,
    gamma: float | None = None,
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon",
) -> Float[Tensor, ""]:
    r"""Mean squared error of what a diffusion model predicts, each sample weighted by how noisy it is.

    With SNR_i = ᾱ_i / (1 − ᾱ_i) at the timestep of sample i::

        L = 1/N · Σ_i w_i · mean (prediction_i − target_i)²

        w_i = 1                              without gamma, as Stable Diffusion was trained
        w_i = min(SNR_i, γ) / SNR_i          "epsilon": the target is the noise ε
        w_i = min(SNR_i, γ) / (SNR_i + 1)    "v_prediction": the target is √ᾱ ε − √(1 − ᾱ) x₀
        w_i = min(SNR_i, γ)                  "sample": the target is the clean latent x₀

    The three are one weighting, of the error in x₀: nearly clean timesteps, whose gradients are large and teach
    little, are held back, so training converges in fewer updates.

    Args:
        prediction, target: [N …] of one shape, as [N C H W] latents.
        snr: [N], 0 or more, the ratio itself and not its logarithm; may be infinite. Not used without gamma.
        gamma: above 0 and finite; 5 in the paper. None: every sample counts alike, and so they do with "epsilon"
            where gamma is above every SNR.
        prediction_type: what `target` is, by the scheduler's own word (`scheduler.config.prediction_type`).

    Returns: a scalar, float32 (float64 for float64 input). Finite for SNR 0 (a schedule with zero terminal SNR), where
        the weight is the limit 1 for "epsilon" and 0 for the others: with "v_prediction" pure noise teaches nothing.

    Raises: ValueError for differing shapes, gamma without snr, an unknown prediction type or a negative snr.

    Source: Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy" (arXiv 2303.09556).

    Example:
        >>> import torch
        >>> noise, predicted = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
        >>> loss = denoising(predicted, noise, snr=torch.tensor([0.1, 1.0, 10.0, 100.0]), gamma=5.0)
    """
    # Shapes that broadcast would give a number, and a wrong one.
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction has shape {list(prediction.shape)} and target {list(target.shape)}; expected one shape. A "
            "model that predicts the variance too has twice the channels: give the first half."
        )
    error = widen(prediction) - widen(target)
    squared = error.square().reshape(len(error), -1).mean(dim=1)
    if gamma is None:
        return squared.mean()
    if snr is None:
        raise ValueError(f"gamma is {gamma}, and there is no snr to weigh by; give snr [N], or leave gamma out")
    if snr.shape != squared.shape:
        raise ValueError(f"snr has shape {list(snr.shape)}; expected one number a sample, {list(squared.shape)}")
    # The weight must not widen the result where the schedule is kept in float64.
    return (_min_snr_weight(widen(snr), gamma, prediction_type).to(squared) * squared).mean()


def _min_snr_weight(snr: Float[Tensor, " n"], gamma: float, prediction_type: str) -> Float[Tensor, " n"]:
    if not 0 < gamma < math.inf:
        raise ValueError(f"gamma is {gamma}; expected a finite number above 0 (5 in the paper)")
    if bool((snr < 0).any()):
        raise ValueError(f"snr goes down to {float(snr.min()):g}; it is 0 or more. If it is log-SNR, give snr.exp()")
    if prediction_type == "epsilon":
        # min(SNR, γ) / SNR, written so that SNR = 0 and SNR = ∞ have their limits 1 and 0
        return torch.clamp(gamma / snr, max=1.0)
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    if prediction_type == "sample":
        return snr.clamp(max=gamma)
    raise ValueError(f"prediction_type is {prediction_type!r}; expected one of {', '.join(PREDICTION_TYPES)}")
