"""One joint batch: what the towers are shown of it, the three losses, and what is done where they disagree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gen2real.imagesets.seeds import row_generator
from gen2real.losses import denoising, image_text_contrastive, reciprocal_consistency
from gen2real.methods.unidiff.data import JointBatch, JointData
from gen2real.methods.unidiff.kept import kept_states, kept_text_features
from gen2real.methods.unidiff.network import JointNetwork, Views, end_positions
from gen2real.methods.unidiff.settings import Direction
from gen2real.models.joint import Joint
from gen2real.training.conflict import cosines, gradients_of, pcgrad_correction
from gen2real.training.distributed import gather

# As in CLIP: the factor on cosines is clipped there.
LARGEST_SCALE = 100.0
# min(SNR, 5) / 5, where `weighting` is snr.
_SNR_LIMIT = 5.0


@dataclass(frozen=True)
class Noised:
    """What the denoiser is given, and what it shall say: [m C h w] each; times [m], weights [m] of RSC."""

    latents: Tensor
    target: Tensor
    times: Tensor
    weights: Tensor


class JointLoss:
    """Named terms of one batch: `loss`, and of it `itc`, `is` and `rsc`, each before its weight.

    With them, where they are asked for, `cosine_<part>_<a>_<b>`: how far two losses agree on a part's weights.

    Args:
        network: the module in training as it is before any wrapper; what it trains must be settled.
        heads_only: RSC's head alone is taught, by its own loss.
    """

    def __init__(self, joint: Joint, data: JointData, network: JointNetwork, *, heads_only: bool = False) -> None:
        self._config = config = data.config
        self._joint, self._data, self._heads_only = joint, data, heads_only
        self._parts = trained_parts(network)
        self._weights = {
            "itc": 0.0 if heads_only else config.contrastive.weight,
            "is": 0.0 if heads_only else config.synthesis.weight,
            "rsc": config.consistency.weight,
        }
        self._states = kept_states(data)
        self._text_features = kept_text_features(data) if self._weights["itc"] else None
        reads_for_clip = self._weights["itc"] > 0 and self._text_features is None
        reads_for_denoiser = config.uses_denoiser and self._states is None
        self._ids: Tensor | None = None
        if reads_for_clip or reads_for_denoiser:
            self._ids = joint.diffusion.ids(data.prompts) if joint.shared else _ids_of_clip(joint, data.prompts)
        # Only the denoiser reads the padding.
        self._ends = None
        if self._ids is not None and not reads_for_denoiser:
            self._ends = end_positions(self._ids, network.end_token)

    def __call__(self, models: Mapping[str, nn.Module], batch: JointBatch) -> dict[str, Tensor]:
        network = models["joint"]
        own = batch.to(next(network.parameters()).device)
        noised = self._noised(own)
        found = network(self._views(own, noised))
        losses: dict[str, Tensor] = {}
        if self._weights["itc"]:
            losses["itc"] = self._contrastive(found, own)
        if noised is not None and self._weights["is"]:
            losses["is"] = self._synthesis(found, own, noised)
        alone = None
        if noised is not None and self._weights["rsc"]:
            losses["rsc"], alone = self._consistency(found, own, noised)
        weighted = {name: self._weights[name] * value for name, value in losses.items()}
        if alone is not None:
            weighted["head"] = self._weights["rsc"] * alone
        loss = torch.stack(list(weighted.values())).sum()
        terms, correction = self._conflict(weighted, batch.number)
        return {"loss": loss if correction is None else loss + correction, **losses, **terms}

    @torch.no_grad()
    def _noised(self, batch: JointBatch) -> Noised | None:
        known, diffusion = batch.denoised, self._joint.diffusion
        if known is None:
            return None
        clean = batch.latents(self._data, diffusion)
        return Noised(
            diffusion.noised(clean, known.noise, known.times),
            diffusion.target(clean, known.noise, known.times),
            known.times,
            self._consistency_weights(known.times),
        )

    def _consistency_weights(self, times: Tensor) -> Tensor:
        """[m]: 0 where there is so much noise that the denoiser sees little of the picture."""
        one, diffusion = self._config.consistency, self._joint.diffusion
        counts = (times < one.t_max * diffusion.steps).float()
        if one.weighting == "snr":
            counts = counts * diffusion.snr(times).to(counts).clamp(max=_SNR_LIMIT) / _SNR_LIMIT
        return counts

    def _views(self, batch: JointBatch, noised: Noised | None) -> Views:
        known, config = batch.denoised, self._config
        device = batch.pixels.device
        sees = self._weights["itc"] > 0 or config.consistency.weight > 0
        pictures = self._data.clip_view(batch.pixels) if sees else None
        told = None if known is None or self._states is not None else known.conditions
        read = batch.captions if self._weights["itc"] and self._text_features is None else None
        ids, read, told = self._texts(read, told)
        states = None
        if known is not None and self._states is not None:
            states = self._states[known.conditions.to(self._states.device)].to(device)
        close = None
        if noised is not None and config.consistency.weight and config.consistency.form == "decoded":
            close = _rows(noised.weights > 0, batch)
        return Views(
            pictures=pictures,
            ids=ids,
            read=read,
            noised=None if noised is None else noised.latents,
            times=None if noised is None else noised.times,
            told=told,
            states=states,
            close=close,
        )

    def _texts(self, read: Tensor | None, told: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Each distinct text of the batch once: ids [U L], and which of its rows belong to `read` and to `told`."""
        asked = [numbers for numbers in (read, told) if numbers is not None]
        if not asked or self._ids is None:
            return None, None, None
        numbers = torch.cat(asked)
        if not len(numbers):
            # A process without rows reads a text all the same, or the others would wait for its gradients.
            numbers = torch.tensor([self._data.empty], device=numbers.device)
        distinct = numbers.unique()
        ids = self._ids[distinct.cpu()]
        if self._ends is not None:
            ids = ids[:, : int(self._ends[distinct.cpu()].max()) + 1]
        placed = [None if one is None else torch.searchsorted(distinct, one) for one in (read, told)]
        return ids.to(numbers.device), placed[0], placed[1]

    def _contrastive(self, found: Mapping[str, Tensor], batch: JointBatch) -> Tensor:
        captions = gather(batch.captions)
        image = gather(found["image"][: len(batch.captions)])
        if self._text_features is None:
            text = gather(found["text"])
        else:
            text = self._text_features[captions.to(self._text_features.device)].to(image.device)
        # exp(τ) ≤ 100; the gradient stays, so that a scale above it can come down again
        scale = found["scale"].exp()
        scale = scale - (scale - LARGEST_SCALE).clamp(min=0).detach()
        # L_ITC = ½·[CE(l) + CE(lᵀ)],  l_ij = exp(τ)·⟨f_v^i, f_t^j⟩
        return image_text_contrastive(image, text, scale, groups=captions)

    def _synthesis(self, found: Mapping[str, Tensor], batch: JointBatch, noised: Noised) -> Tensor:
        assert batch.denoised is not None
        own, diffusion, gamma = batch.denoised.own, self._joint.diffusion, self._config.synthesis.min_snr
        snr = None if gamma is None else diffusion.snr(gather(noised.times[:own])).to(noised.latents.device)
        # L_IS = E‖ε − ε̂‖², or of v, or of x₀
        return denoising(
            gather(found["prediction"][:own]),
            gather(noised.target[:own]),
            snr=snr,
            gamma=gamma,
            prediction_type=diffusion.prediction_type,
        )

    def _consistency(
        self, found: Mapping[str, Tensor], batch: JointBatch, noised: Noised
    ) -> tuple[Tensor, Tensor | None]:
        """L_RSC = ½·[D(sg f_v, f_d) + D(f_v, sg f_d)] or either half; and what teaches the head where that does not."""
        assert batch.denoised is not None
        one, own = self._config.consistency, batch.denoised.own
        weights = noised.weights[:own]
        clip = found["patches" if one.pooling == "patches" else "image"][:own]
        theirs = found["consistent"]
        if one.form == "decoded":
            rows = _rows(noised.weights > 0, batch)
            # A row that stands in for none weighs nothing.
            weights, clip = noised.weights[rows] * (rows < own), found["image"][rows]
        else:
            theirs = theirs[:own]
        clip, theirs, weights = gather(clip), gather(theirs), gather(weights)
        if one.pooling == "patches":
            weights = weights.repeat_interleave(clip.shape[1])
            clip, theirs = clip.flatten(0, 1), theirs.flatten(0, 1)
        form = "relational" if one.form == "relational" else one.loss
        direction: Direction = "clip_to_diffusion" if self._heads_only else one.direction
        value = reciprocal_consistency(
            clip,
            theirs,
            form=form,
            direction=direction,
            temperature=one.temperature,
            weights=weights,
        )
        alone = None
        if one.form == "features" and one.direction == "diffusion_to_clip" and not self._heads_only:
            # The denoiser is the teacher here, and a head that nobody taught would be a random one. Only the head
            # learns by this: the block's features come without a graph, CLIP's are a constant.
            alone = reciprocal_consistency(
                clip, theirs, form=form, direction="clip_to_diffusion", temperature=one.temperature, weights=weights
            )
        return value, alone

    def _conflict(self, losses: Mapping[str, Tensor], number: int) -> tuple[dict[str, Tensor], Tensor | None]:
        settings = self._config.conflict
        done = number + 1
        logged = settings.log_every is not None and (done == 1 or done % settings.log_every == 0)
        surgery = settings.surgery == "pcgrad"
        compared = {name: value for name, value in losses.items() if name != "head"}
        if self._heads_only or len(compared) < 2 or not (logged or surgery):
            return {}, None
        gradients = gradients_of(compared, self._parts)
        correction = None
        if surgery:
            # PCGrad: each loss's gradient less what of it works against another's
            correction = pcgrad_correction(gradients, self._parts, row_generator(self._config.seed, number, 2))
        return cosines(gradients) if logged else {}, correction


def trained_parts(network: JointNetwork) -> dict[str, list[nn.Parameter]]:
    """The parameters in training of the three parts on which losses may meet."""
    parts = {"image": network.encoder.vision, "text": network.encoder.text, "unet": network.unet}
    found = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
    return {name: own for name, own in found.items() if own}


def _rows(wanted: Tensor, batch: JointBatch) -> Tensor:
    """[k]: the process's rows that are wanted; one all the same where there are none, as models run on it."""
    assert batch.denoised is not None
    rows = torch.nonzero(wanted[: batch.denoised.own])[:, 0]
    return rows if len(rows) else rows.new_zeros(1)


def _ids_of_clip(joint: Joint, texts: list[str]) -> Tensor:
    encoder = joint.encoder
    ids: Tensor = encoder.tokenizer(
        texts, padding="max_length", max_length=encoder.context_length, truncation=True, return_tensors="pt"
    )["input_ids"]
    return ids
