"""What a head begins with: the states of some samples, read once, before the adapters change anything.

    hidden ← one forward pass over `head.samples` samples of the run's own
    z      ← Σ^(−1/2) (hidden − μ)                                           head.whiten
    φ      ← AdamW(∇ L_d) on these states, no model in between               head.first_updates

Neither is in the paper. A language model's states lie in a narrow cone, those of pictures in another than those of
texts, and a head that begins from chance learns hardly anything else for hundreds of updates of the whole model. The
head alone first, then both, is LP-FT (Kumar et al. 2022, arXiv 2202.10054).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import PartialState
from torch import Tensor, nn

from gen2real.imagesets.interleaved import Interleaved
from gen2real.imagesets.seeds import row_generator
from gen2real.losses import image_text_contrastive, structure
from gen2real.methods.sugar.data import Drawn, Prefixes, SugarData, drawn_halves, drawn_readouts, prefixes_of
from gen2real.methods.sugar.labels import Calibration, SliceFeatures, prefix_targets
from gen2real.methods.sugar.settings import SugarConfig
from gen2real.models.hidden_states import hidden_states
from gen2real.models.multimodal import MultimodalModel
from gen2real.models.retrieval_head import Whitening, read_out
from gen2real.models.sequences import encode_sequences

# Its draws are not those of the whole model's updates.
_STREAM = 7


@dataclass(frozen=True, eq=False)
class Known:
    """A sample and the states of its prefixes [S W]; of InfoNCE's halves [2 W], where it has any."""

    row: Drawn
    states: Tensor
    halves: Tensor | None = None


@torch.no_grad()
def known_states(config: SugarConfig, model: MultimodalModel, data: SugarData) -> list[Known]:
    """Of `head.samples` samples, drawn as training draws them; none where nothing asks for them. Every process reads
    the same.

    Raises: Unreadable for a picture that does not decode.
    """
    head, one = config.head, config.discriminative
    if not head.whiten and not (head.first_updates and one.weight):
        return []
    drawn = data.sampler(head.samples, config.seed).batch(0)
    rows = [data.row(number, source, index) for number, (source, index) in enumerate(drawn)]
    states = _states(config, model, [row.sample for row in rows], [range(len(row.slices)) for row in rows])
    if one.form != "infonce" or not one.weight:
        return [Known(row, own) for row, own in zip(rows, states, strict=True)]
    cut = [
        replace(row, halves=drawn_halves(row.sample, row.slices, row_generator(config.seed, _STREAM, row.number)))
        for row in rows
    ]
    halves = [half for row in cut for half in row.halves or ()]
    read = iter(torch.cat(_states(config, model, halves, [[-1]] * len(halves))).view(-1, 2, model.width))
    return [Known(row, own, None if row.halves is None else next(read)) for row, own in zip(cut, states, strict=True)]


def whitening_from(known: list[Known]) -> Whitening:
    """Of all their states. Raises: ModelError where they do not differ."""
    return Whitening.of(torch.cat([one.states for one in known]))


def _states(
    config: SugarConfig, model: MultimodalModel, samples: list[Interleaved], readouts: list[range] | list[list[int]]
) -> list[Tensor]:
    device, size = PartialState().device, config.decoding.batch_size
    model.model.to(device).eval()
    found: list[Tensor] = []
    for start in range(0, len(samples), size):
        own = readouts[start : start + size]
        batch = encode_sequences(model, samples[start : start + size], own).to(device)
        with model.autocast():
            hidden = hidden_states(model, batch.inputs)
        states = read_out(hidden, batch.spans, image=config.discriminative.image_readout).float().cpu()
        found += states.split([len(one) for one in own])
    return found


@dataclass(frozen=True, eq=False)
class HeadBatch:
    """States [R W], and what they are to be like; or the halves of samples [n 2 W] and which sample each is of."""

    rows: int
    states: Tensor
    prefixes: Prefixes | None = None
    owners: Tensor | None = None


class HeadBatches:
    """As many samples an update as the whole model's have, and of each as many prefixes, by update number."""

    def __init__(self, config: SugarConfig, known: Sequence[Known], features: SliceFeatures | None) -> None:
        self._config, self._features = config, features
        self._known = known if features is not None else [one for one in known if one.halves is not None]

    def __call__(self, numbers: range) -> Iterator[tuple[HeadBatch, ...]]:
        for number in numbers:
            yield (self._make(row_generator(self._config.seed, _STREAM, _STREAM, number)),)

    def _make(self, generator: torch.Generator) -> HeadBatch:
        places = torch.randperm(len(self._known), generator=generator)[: self._config.training.batch_size]
        chosen = [self._known[place] for place in places.tolist()]
        if self._features is None:
            halves = torch.stack([one.halves for one in chosen if one.halves is not None])
            return HeadBatch(len(chosen), halves, owners=torch.tensor([one.row.owner for one in chosen]))
        most = self._config.discriminative.readouts
        read = [drawn_readouts(len(one.row.slices), most, generator) for one in chosen]
        rows = [replace(one.row, readouts=own) for one, own in zip(chosen, read, strict=True)]
        states = torch.cat([one.states[list(own)] for one, own in zip(chosen, read, strict=True)])
        return HeadBatch(len(chosen), states, prefixes_of(rows, self._features))


class HeadLoss:
    """L_d of the head alone, or InfoNCE in its place."""

    def __init__(self, config: SugarConfig, calibration: Calibration | None) -> None:
        self._config, self._calibration = config, calibration

    def __call__(self, models: Mapping[str, nn.Module], batch: HeadBatch) -> dict[str, Tensor]:
        head, one = models["head"], self._config.discriminative
        device = next(head.parameters()).device
        embeddings = head(batch.states.to(device).flatten(0, -2)).float()
        if batch.prefixes is None:
            assert batch.owners is not None
            first, second = embeddings.view(*batch.states.shape[:2], -1).unbind(dim=1)
            scale = first.new_tensor(1 / one.temperature)
            loss = image_text_contrastive(first, second, scale, groups=batch.owners.to(device))
            return {"loss": loss, "L_d": loss}
        prefixes = batch.prefixes
        targets = prefix_targets(
            prefixes.features.to(device),
            prefixes.rows,
            prefixes.owners,
            self._config.kernel,
            calibration=self._calibration,
        )
        loss = structure(embeddings @ embeddings.T, targets, scale=one.scale)
        return {"loss": loss, "L_d": loss}
