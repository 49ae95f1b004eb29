"""Before the first update: how the hidden states of the run's own samples vary, for its head to begin with."""

from __future__ import annotations

import torch
from accelerate import PartialState

from gen2real.methods.sugar.data import SugarData
from gen2real.methods.sugar.settings import SugarConfig
from gen2real.models.hidden_states import hidden_states
from gen2real.models.multimodal import MultimodalModel
from gen2real.models.retrieval_head import Whitening, read_out
from gen2real.models.sequences import encode_sequences


@torch.no_grad()
def measured_whitening(config: SugarConfig, model: MultimodalModel, data: SugarData) -> Whitening | None:
    """Of the states of all prefixes of `head.whiten` samples, which are drawn as training draws them; None where it is
    not asked for. Every process measures the same.

    Raises: ModelError where the states do not differ; Unreadable for a picture that does not decode.
    """
    wanted, size = config.head.whiten, config.decoding.batch_size
    if wanted is None:
        return None
    device = PartialState().device
    model.model.to(device).eval()
    sampler = data.sampler(wanted, config.seed)
    drawn = sampler.batch(0)
    states = []
    for start in range(0, len(drawn), size):
        own = [(data.sources[source], index) for source, index in drawn[start : start + size]]
        samples = [source.samples[index] for source, index in own]
        every = [range(len(source.slices[index])) for source, index in own]
        batch = encode_sequences(model, samples, every).to(device)
        with model.autocast():
            hidden = hidden_states(model, batch.inputs)
        states.append(read_out(hidden, batch.spans, image=config.discriminative.image_readout).float().cpu())
    return Whitening.of(torch.cat(states))
