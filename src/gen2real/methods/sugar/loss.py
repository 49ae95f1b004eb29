"""One forward pass of Sugar and its loss: L = L_g + α·L_d (paper, equation 1).

    hidden = decoder(sequences)                                                    the last states, before the LM head
    L_g    = −1/T Σ_t log p(a_t | what stands before it)                           from the states before learnt tokens
    r      = head(hidden at the read-outs),  R = r rᵀ                              any prefix's state is its embedding
    L_d    = 1/n² Σ_ij (R_ij − m^l_ij)²                                            equation 3; 1/n as printed

m^l are the labels (`labels.py`), made without a gradient. With InfoNCE, the rival, samples are cut in two and each half
is to find the other among those of the batch; halves have a pass of their own, as the one behind sees the one before.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gen2real.losses import image_text_contrastive, next_token, structure
from gen2real.losses.next_token import IGNORED
from gen2real.methods.sugar.data import Batch, Halves
from gen2real.methods.sugar.labels import Calibration, prefix_targets
from gen2real.methods.sugar.settings import SugarConfig
from gen2real.models.adapters import lora_layers
from gen2real.models.hidden_states import hidden_states, next_token_logits
from gen2real.models.multimodal import MultimodalModel
from gen2real.models.retrieval_head import read_out
from gen2real.models.sequences import Sequences
from gen2real.training.chunking import in_chunks
from gen2real.training.conflict import cosines, gradients_of
from gen2real.training.distributed import gather


class SugarNetwork(nn.Module):
    """The model and its retrieval head behind one `forward`, so that a wrapper for several processes sees every
    parameter's use."""

    def __init__(self, model: MultimodalModel, config: SugarConfig) -> None:
        super().__init__()
        self.model, self.head = model.model, model.head
        self._multimodal, self._settings = model, config.discriminative

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """`sums` [n]: of each row's learnt tokens, the cross-entropy. `readouts` [R D]: of each prefix, its embedding.
        `halves` [2H D]: of each half."""
        one = self._settings
        hidden = hidden_states(self._multimodal, batch.sequences.inputs)
        found = {"sums": self._sums(hidden, batch.sequences)}
        if batch.prefixes is not None:
            found["readouts"] = self._embeddings(hidden, batch.sequences)
        if batch.halves is not None:
            halves = batch.halves
            rows = torch.arange(sum(len(chunk.owners) for chunk in halves.chunks))
            size = None if one.chunk is None else halves.size
            found["halves"] = in_chunks(lambda some: self._embedded(halves, some), (rows,), size)
        return found

    def _sums(self, hidden: Tensor, sequences: Sequences) -> Tensor:
        labels, samples = sequences.labels, sequences.samples
        rows, places = (labels[:, 1:] != IGNORED).nonzero(as_tuple=True)
        # Only what is learnt goes through the LM head: mostly pictures stand before it.
        logits = next_token_logits(self._multimodal, hidden[rows, places])
        losses, _ = next_token(logits[:, None], labels[rows, places + 1][:, None])
        whose, count = (rows, len(labels)) if samples is None else (samples[rows, places + 1], int(samples.max()) + 1)
        return losses.new_zeros(count, labels.shape[1] - 1).index_put((whose, places), losses).sum(dim=1)

    def _embeddings(self, hidden: Tensor, sequences: Sequences) -> Tensor:
        assert self.head is not None
        one = self._settings
        states = read_out(
            hidden if one.reach == "adapters" else hidden.detach(), sequences.spans, image=one.image_readout
        )
        found: Tensor = self.head(states)
        return found

    def _embedded(self, halves: Halves, rows: Tensor) -> Tensor:
        chunk = halves.chunks[int(rows[0]) // halves.size]
        return self._embeddings(hidden_states(self._multimodal, chunk.inputs), chunk)


class SugarLoss:
    """Named terms of one batch: `loss`, and of it `L_g` and `L_d`, each before its weight.

    Every `training.log_every` updates also `gradient_g` and `gradient_d`, the norms of the gradients of L_g and α·L_d
    on the adapters, and `cosine_lora_g_d`, the cosine of the two. Such an update has two backward passes more, and
    changes the weights as without them.
    """

    def __init__(self, network: SugarNetwork, config: SugarConfig, calibration: Calibration | None = None) -> None:
        self._config, self._calibration = config, calibration
        lora = [p for _, layer in lora_layers(network.model) for p in layer.parameters() if p.requires_grad]
        self._parts = {"lora": lora}

    def __call__(self, models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        network = models["sugar"]
        batch = batch.to(next(network.parameters()).device)
        found = network(batch)
        sums = gather(found["sums"][: batch.own])
        tokens = gather(sums.new_tensor([batch.tokens]).detach()).sum()
        # L_g = −1/T Σ_t log p(a_t | what stands before it)
        generative = batch.token_mean(sums, tokens.clamp(min=1))
        one = self._config.discriminative
        if one.weight == 0:
            return {"loss": generative, "L_g": generative}
        discriminative = self._infonce(found, batch) if one.form == "infonce" else self._structure(found, batch)
        # L = L_g + α·L_d   (paper, equation 1)
        weighted = {"g": generative, "d": one.weight * discriminative}
        terms = {"loss": weighted["g"] + weighted["d"], "L_g": generative, "L_d": discriminative}
        done, every = batch.number + 1, self._config.training.log_every
        return terms if done != 1 and done % every else terms | self._gradients(weighted)

    def _structure(self, found: Mapping[str, Tensor], batch: Batch) -> Tensor:
        assert batch.prefixes is not None
        embeddings = gather(found["readouts"][: batch.readouts]).float()
        if not batch.prefixes.owners:
            return embeddings.sum()
        targets = prefix_targets(
            batch.prefixes.features,
            batch.prefixes.rows,
            batch.prefixes.owners,
            self._config.kernel,
            calibration=self._calibration,
        )
        # L_d = 1/n² Σ_ij (m^r_ij − m^l_ij)²
        return structure(embeddings @ embeddings.T, targets, scale=self._config.discriminative.scale)

    def _infonce(self, found: Mapping[str, Tensor], batch: Batch) -> Tensor:
        assert batch.halves is not None
        halves = found["halves"]
        if not batch.halves.owners:
            # Nowhere in the whole batch does a picture stand beside a text.
            return halves.sum() * 0
        first, second = (gather(own[: batch.halves.own]) for own in (halves[0::2], halves[1::2]))
        scale = first.new_tensor(1 / self._config.discriminative.temperature)
        owners = torch.tensor(batch.halves.owners, device=first.device)
        return image_text_contrastive(first, second, scale, groups=owners)

    def _gradients(self, weighted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        gradients = gradients_of(weighted, self._parts)
        # L_d that is to reach the head alone has no gradient on the adapters.
        none = [weighted["g"].new_zeros(())]
        norms = {
            f"gradient_{name}": torch.stack([g.norm() for g in own["lora"] if g is not None] or none).norm()
            for name, own in gradients.items()
        }
        return norms | cosines(gradients)
