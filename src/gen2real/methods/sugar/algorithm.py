"""Sugar: one multimodal model, trained at once to go on with a text and to tell alike from unlike.

Chow et al., "Unified Generative and Discriminative Training for Multi-modal Large Language Models", NeurIPS 2024, arXiv
2411.00304, section 3 and figure 2:

    1  base model frozen, LoRA on the language model's q and v; head F_φ, an MLP
    2  features of every slice (picture, sentence) by frozen teachers                          once, kept on disk
    3  for each batch of interleaved samples:
           hidden ← one forward pass
           L_g ← next tokens of answers, or of a document's own text
           r   ← F_φ(hidden where drawn prefixes end);  a picture's end is the mean of its tokens
           m^l ← global alignment kernel of the prefixes' slices, distances by the triple kernel      equations 2, 4
           L_d ← ‖r rᵀ − m^l‖²                                                                        equation 3
           LoRA, φ ← AdamW(∇(L_g + α L_d))                                                            equation 1
    4  the same states then serve retrieval, and what they find is put in front of questions

α = 0 is plain fine-tuning: no head, no teachers; what is read of it is the hidden state itself. Controls in the same
loop: InfoNCE in place of L_d, mean similarity in place of the kernel, one encoder in place of three, a picture's last
token in place of the mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import set_seed

from gen2real.errors import ImageSetError
from gen2real.methods.fitting import fit
from gen2real.methods.leaks import refuse_leaked_files
from gen2real.methods.measured import Measured
from gen2real.methods.measured_run import conclude_measured, provenance
from gen2real.methods.rehearsal import Rehearsal
from gen2real.methods.sugar.data import SugarBatches, SugarData
from gen2real.methods.sugar.head_first import HeadBatches, HeadLoss, Known, known_states, whitening_from
from gen2real.methods.sugar.labels import Calibration, SliceFeatures, Teachers, calibrate
from gen2real.methods.sugar.loss import SugarLoss, SugarNetwork
from gen2real.methods.sugar.readings import check, measure
from gen2real.methods.sugar.settings import SugarConfig
from gen2real.models.adapters import without_adapters
from gen2real.models.multimodal import MultimodalModel, load_multimodal
from gen2real.models.multimodal_folder import checkpoint_activations, make_trainable, save_multimodal
from gen2real.models.retrieval_head import RetrievalHead, Whitening, whitening_of
from gen2real.models.sequences import encode_sequences, pack
from gen2real.training.distributed import rank
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport


@dataclass(frozen=True, eq=False)
class SugarTuning:
    """A run, ready for its first update. known: states for the head to begin with. features, calibration: of the
    labels; None where none are made."""

    config: SugarConfig
    model: MultimodalModel
    data: SugarData
    known: Sequence[Known] = ()
    features: SliceFeatures | None = None
    calibration: Calibration | None = None

    def tune(self, folder: RunFolder, *, quiet: bool = False) -> list[FitReport]:
        """Trains the head alone, where that is asked for, then LoRA and head, resuming where an earlier call was
        interrupted."""
        config, optimizer, training = self.config, self.config.optimizer, self.config.training
        network = SugarNetwork(self.model, config)
        head = network.head if isinstance(network.head, RetrievalHead) else None
        rates = {} if head is None else {"head": (head, optimizer.head_lr or optimizer.lr)}
        sampler = self.data.sampler(training.batch_size, config.seed)
        reports = []
        if head is not None and config.head.first_updates:
            reports.append(
                fit(
                    {"head": head},
                    rates,
                    HeadBatches(config, self.known, self.features),
                    config.head.first_updates,
                    HeadLoss(config, self.calibration),
                    folder,
                    config,
                    stage="head",
                    quiet=quiet,
                )
            )
        network.train()
        report = fit(
            {"sugar": network},
            {**rates, "lora": (network, optimizer.lr)},
            SugarBatches(self.data, self.model, sampler, config, self.features),
            training.total_steps(sampler.steps_per_epoch),
            SugarLoss(network, config, self.calibration),
            folder,
            config,
            stage="sugar",
            quiet=quiet,
        )
        network.eval()
        return [*reports, report]

    @contextmanager
    def untrained(self) -> Iterator[None]:
        """Within, the model is as it was before: no LoRA, no head; afterwards it is tuned again."""
        head = self.model.head
        try:
            self.model.head = whitening_of(head)
            with without_adapters(self.model.model):
                yield
        finally:
            self.model.head = head


def run(config: SugarConfig, *, quiet: bool = False) -> Measured | None:
    """Tunes a multimodal model, measures it and saves it; a finished run is read, an interrupted one goes on.

    Returns: the result; None on the processes other than the first.
    """
    folder = RunFolder(config.output, config, writer=rank() == 0)
    if folder.finished:
        return Measured.read(config.output)
    set_seed(config.seed)
    tuning = prepare(config)
    reports = tuning.tune(folder, quiet=quiet)
    if rank() > 0:
        return None
    return _conclude(folder, tuning, reports)


def prepare(config: SugarConfig) -> SugarTuning:
    """Everything up to the first update: model, adapters, head, the whole data looked at, and the teachers' features.

    What is measured on is read for its faults alone.

    Raises: ModelError and ImageSetError, with what to type, for parts that do not fit.
    """
    check(config)
    model = load_multimodal(config.model.name, revision=config.model.revision, dtype=config.model.dtype)
    data = SugarData(config.data, model, seed=config.seed)
    if config.data.packed:
        # A model that cannot be told where samples begin is refused now.
        first = encode_sequences(model, data.sources[0].samples[:1])
        pack(first, first.labels.shape[1])
    for task in config.evaluation.values():
        refuse_leaked_files(task.path, data.pictures)
    one, lora = config.discriminative, config.lora
    make_trainable(
        model, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets, projector="frozen"
    )
    if config.training.gradient_checkpointing:
        checkpoint_activations(model)
    known = known_states(config, model, data)
    model.head = whitening = whitening_from(known) if config.head.whiten else None
    if one.weight == 0:
        return SugarTuning(config, model, data)
    # With or without a discriminative part, the adapters begin with the same numbers and drop out the same.
    with torch.random.fork_rng(devices=[]):
        model.head = _head(config, model, whitening)
        if one.form == "infonce":
            _check_cuts(data)
            return SugarTuning(config, model, data, known)
        device = PartialState().device
        features = Teachers(config.teachers, device=device).features(data.slices)
    return SugarTuning(config, model, data, known, features, calibrate(features, config.kernel, seed=config.seed))


def rehearse(config: SugarConfig, folder: Path, updates: int) -> Rehearsal:
    """For `gen2real train --dry-run`; see `rehearsal.py`."""
    from gen2real.methods.sugar.rehearsal import rehearse as rehearsed

    return rehearsed(config, folder, updates)


def _head(config: SugarConfig, model: MultimodalModel, whitening: Whitening | None) -> RetrievalHead:
    torch.manual_seed(config.seed)
    width = model.width
    return RetrievalHead(width, config.head.width or width, config.head.dim or width, whitening)


def _check_cuts(data: SugarData) -> None:
    kinds = [[one.kind for one in own] for source in data.sources for own in source.slices]
    if all(len(set(own)) < 2 for own in kinds):
        raise ImageSetError(
            "discriminative.form: infonce cuts samples between a picture and a text, and no sample has both; give "
            "samples with pictures and texts, or set discriminative.form=structure."
        )


def _conclude(folder: RunFolder, tuning: SugarTuning, reports: list[FitReport]) -> Measured:
    config, data = tuning.config, tuning.data
    readings, samples, items = measure(config, tuning.model, tuning.untrained)
    sets = [("trained on", source.path) for source in data.sources]
    sets += [("measured on", task.path) for task in config.evaluation.values()]
    sets += [("looked up", path) for path in dict.fromkeys(rag.knowledge for rag in config.rag.values())]

    def save(findings: str) -> None:
        made_by = provenance(folder, config, sets)
        save_multimodal(folder.path / "model", tuning.model, made_by=made_by, findings=findings)

    labels = {} if tuning.calibration is None else {"calibration": tuning.calibration.to_json()}
    return conclude_measured(
        folder,
        config,
        encoder_name=config.model.name,
        pictures={"samples": data.samples, "in samples": len(data.pictures), "evaluation": items},
        readings=readings,
        headline="tuned",
        reports=reports,
        sets=sets,
        save=save if config.save_model else None,
        samples=samples,
        **labels,
    )
