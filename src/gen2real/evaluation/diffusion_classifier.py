"""A denoiser as a classifier, without training: a picture is of the class whose text best explains its noise.

Li et al., "Your Diffusion Model is Secretly a Zero-Shot Classifier", arXiv 2303.16203. Equation 5, for every class c:

    p(c|x) = exp(−E_{t,ε} ‖ε − ε_θ(z_t, c)‖²) / Σ_c' exp(−E_{t,ε} ‖ε − ε_θ(z_t, c')‖²)

The same (t, ε) are tried on every class (its section 4.1), times are spread evenly, and classes that are far behind
after a few trials get no more of them (algorithm 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, Integer
from torch import Tensor

from gen2real.errors import ModelError
from gen2real.models.diffusion import Diffusion

TRIALS = (16, 64)
KEEP = (5,)
"""Ours: 16 trials for every class, and 64 in all for the best five."""


@dataclass(frozen=True, eq=False)
class DenoisingErrors:
    """What `diffusion_classifier` finds for N pictures and K texts each.

    errors: [N K], mean over the trials of the squared (l2) or absolute (l1) error, summed over the latents' values.
    trials: [N K], how many there were.
    rounds: trials → [N K], the errors after so many of them, a round each.
    """

    errors: Float64[Tensor, "n k"]
    trials: Int64[Tensor, "n k"]
    rounds: Mapping[int, Float64[Tensor, "n k"]]

    @property
    def scores(self) -> Float64[Tensor, "n k"]:
        """[N K], larger is likelier: the log-probability of equation 5 up to a constant.

        A text that was given up is below all that were kept, by as much as it was behind the worst of them then.
        """
        found = -self.errors
        for count in sorted(self.rounds, reverse=True)[1:]:
            lost, kept, then = self.trials == count, self.trials > count, self.rounds[count]
            worst = torch.where(kept, then, -torch.inf).amax(1, keepdim=True)
            floor = torch.where(kept, found, torch.inf).amin(1, keepdim=True)
            found = torch.where(lost, floor - (then - worst), found)
        return found


@torch.no_grad()
def diffusion_classifier(
    diffusion: Diffusion,
    latents: Float[Tensor, "n c h w"],
    states: Float[Tensor, "m l d"],
    *,
    candidates: Integer[Tensor, "n k"] | None = None,
    trials: Sequence[int] = TRIALS,
    keep: Sequence[int] = KEEP,
    error: Literal["l2", "l1"] = "l2",
    seed: int = 0,
    batch_size: int = 64,
    on_progress: Callable[[int], None] | None = None,
) -> DenoisingErrors:
    """How well each text explains the noise in each picture; lower errors are likelier.

    Trial number k has the same time and the same noise for every text and every picture, a function of (seed, k): what
    is said of a picture does not depend on which others there are.

    Args:
        latents: clean, scaled, such as the posterior's mean (`Diffusion.moments`), as in the authors' code.
        states: [M L d], the texts as the denoiser reads them (`Diffusion.states`).
        candidates: [N K] rows of `states` to be told apart for each picture, a short list to be ranked again; None: all
            M of them for every picture.
        trials: how many after each round, in all. keep: how many texts a picture still has after each round but the
            last; `trials=(64,), keep=()` gives up none.
        error: of ε, whatever the denoiser predicts: squared, or absolute.
        batch_size: latents that the denoiser sees at once.
        on_progress: told how many of the trials are done.

    Raises: ModelError for rounds that do not grow, or that keep none or more than before.
    """
    _check(trials, keep)
    if candidates is None:
        candidates = torch.arange(len(states)).expand(len(latents), len(states))
    shape = tuple(candidates.shape)
    sums, counts = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.int64)
    alive = torch.ones(shape, dtype=torch.bool)
    rounds: dict[int, Tensor] = {}
    times = spread_times(diffusion.steps, trials[-1])
    for begin, end, kept in zip((0, *trials[:-1]), trials, (*keep, None), strict=True):
        for trial in range(begin, end):
            pictures, places = alive.nonzero(as_tuple=True)
            noise = _noise(diffusion, seed, trial)
            for start in range(0, len(pictures), batch_size):
                rows, own = pictures[start : start + batch_size], places[start : start + batch_size]
                found = _errors(diffusion, latents[rows], states[candidates[rows, own]], times[trial], noise, error)
                sums[rows, own] += found.cpu()
            counts[alive] += 1
            if on_progress is not None:
                on_progress(trial + 1)
        rounds[end] = sums / counts
        if kept is not None and kept < shape[1]:
            # Equal errors: the first of them stays.
            order = torch.where(alive, rounds[end], torch.inf).argsort(dim=1, stable=True)
            alive = torch.zeros_like(alive).scatter_(1, order[:, :kept], True)
    return DenoisingErrors(rounds[trials[-1]], counts, rounds)


def spread_times(steps: int, trials: int) -> Int64[Tensor, " k"]:
    """[trials]: the middles of so many equal parts of 0 … steps−1, in an order whose every beginning is spread."""
    bits = max(trials - 1, 1).bit_length()
    # Numbers with their binary digits reversed are van der Corput's sequence.
    order = [int(f"{number:0{bits}b}"[::-1], 2) for number in range(2**bits)]
    parts = torch.tensor([part for part in order if part < trials])
    return (2 * parts + 1) * steps // (2 * trials)


def _noise(diffusion: Diffusion, seed: int, trial: int) -> Tensor:
    drawn = np.random.default_rng((seed, trial)).standard_normal(diffusion.latent_shape, dtype=np.float32)
    return torch.from_numpy(drawn)


def _errors(
    diffusion: Diffusion, clean: Tensor, states: Tensor, time: Tensor, noise: Tensor, error: Literal["l2", "l1"]
) -> Tensor:
    """[B], the error in ε of one trial."""
    device = diffusion.unet.device
    clean, states = clean.to(device), states.to(device)
    times, noise = time.to(device).expand(len(clean)), noise.to(device).expand(clean.shape)
    noised = diffusion.noised(clean, noise, times)
    prediction = diffusion.unet(noised, times, encoder_hidden_states=states).sample.float()
    difference = (prediction - diffusion.target(clean, noise, times)).double()
    # An error in v is 1/√ᾱ_t of one in ε, and one in x₀ is √((1−ᾱ_t)/ᾱ_t) of it.
    if diffusion.prediction_type == "v_prediction":
        difference *= diffusion.alphas_cumprod[time].double().sqrt()
    elif diffusion.prediction_type == "sample":
        difference *= diffusion.snr(time.reshape(1)).double().sqrt()
    return (difference.square() if error == "l2" else difference.abs()).flatten(1).sum(1)


def _check(trials: Sequence[int], keep: Sequence[int]) -> None:
    grows = all(before < after for before, after in zip((0, *trials), trials, strict=False))
    shrinks = all(before >= after >= 1 for before, after in zip((*keep[:1], *keep), keep, strict=False))
    if not trials or not grows or not shrinks or len(keep) != len(trials) - 1:
        raise ModelError(
            f"trials {tuple(trials)} and keep {tuple(keep)} are no rounds: trials grow, keep does not, and there is "
            "one fewer of keep; for example trials=(16, 64), keep=(5,), or trials=(64,), keep=()."
        )
