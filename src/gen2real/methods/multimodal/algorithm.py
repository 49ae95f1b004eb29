"""A multimodal model taught on generated pictures, measured on real ones (GMAIL's LLaVA).

Mo and Yun, "GMAIL", arXiv 2602.15368, algorithm 1, with the language model tuned as LLaVA-1.5's LoRA recipe does:

    f_g = W + ΔW of a GMAIL run on the model's own image tower, f_r = W; both frozen
    for each batch (x, question, answer): L = −1/T Σ_t log p(a_t | projector(f(x)), question, a_<t)
        f = f_g for generated x, f_r for real ones; LoRA and the projector learn
    real pictures are then answered about through f_r

Without `aligned`, generated pictures go through W too: the control without alignment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from gen2real.losses import next_token
from gen2real.methods.fitting import fit
from gen2real.methods.measured import Measured, complete, values_of
from gen2real.methods.measured_findings import markdown
from gen2real.methods.measured_run import conclude_measured, described_sets, provenance
from gen2real.methods.multimodal.data import Batch, LessonBatches, MultimodalData
from gen2real.methods.multimodal.readings import measure
from gen2real.methods.multimodal.settings import MultimodalConfig
from gen2real.methods.rehearsal import Rehearsal
from gen2real.models.adapters import without_adapters
from gen2real.models.aligned import load_aligned
from gen2real.models.multimodal import Branch, MultimodalModel, load_multimodal
from gen2real.models.multimodal_folder import checkpoint_activations, make_trainable, save_multimodal
from gen2real.models.multimodal_shift import with_shift
from gen2real.models.supervised import Supervised, kept_logits
from gen2real.training.distributed import gather, rank
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport


class Answers(nn.Module):
    """The model behind one `forward`: each row's cross-entropy on its answer. Both image towers are used in one pass,
    so that a distributed wrapper sees every parameter's use."""

    def __init__(self, model: MultimodalModel) -> None:
        super().__init__()
        self.model = model.model
        self._multimodal = model

    def forward(self, generated: Supervised | None, real: Supervised | None) -> Tensor:
        """Sums [N] over each row's answer tokens, the generated pictures' rows first; either may be missing."""
        sums = []
        towers: list[tuple[Supervised | None, Branch]] = [(generated, "f_g"), (real, "f_r")]
        for batch, branch in towers:
            if batch is None:
                continue
            with self._multimodal.through(branch):
                logits = self.model(**batch.inputs, **kept_logits(batch), use_cache=False).logits
            labels = batch.labels[:, batch.labels.shape[1] - logits.shape[1] :]
            sums.append(next_token(logits[:, :-1], labels[:, 1:])[0])
        return torch.cat(sums)


@dataclass(frozen=True)
class MultimodalTuning:
    """A run, ready for its first update. original: the projector as it was, by parameter name."""

    config: MultimodalConfig
    model: MultimodalModel
    data: MultimodalData
    original: dict[str, Tensor]

    def tune(self, folder: RunFolder, *, quiet: bool = False) -> FitReport:
        """Trains LoRA and projector, resuming where an earlier call was interrupted."""
        config, training = self.config, self.config.training
        answers = Answers(self.model)
        projector = nn.ModuleList(self.model.model.get_submodule(name) for name in self.model.projectors)
        sampler = self.data.sampler(training.batch_size, config.seed)
        answers.train()
        report = fit(
            {"multimodal": answers},
            {
                "projector": (projector, config.optimizer.head_lr or config.optimizer.lr),
                "lora": (answers, config.optimizer.lr),
            },
            LessonBatches(self.data.sources, self.model, sampler, config),
            training.total_steps(sampler.steps_per_epoch),
            answer_loss,
            folder,
            config,
            stage="multimodal",
            quiet=quiet,
        )
        answers.eval()
        return report

    @contextmanager
    def untrained(self) -> Iterator[None]:
        """Within, the model is as it was before: no LoRA, the original projector; afterwards it is tuned again."""
        parameters = dict(self.model.model.named_parameters())
        tuned = {name: parameters[name].data for name in self.original}
        try:
            for name, value in self.original.items():
                parameters[name].data = value.to(tuned[name].device)
            with without_adapters(self.model.model):
                yield
        finally:
            for name, value in tuned.items():
                parameters[name].data = value


def run(config: MultimodalConfig, *, quiet: bool = False) -> Measured | None:
    """Tunes a multimodal model, measures it and saves it; a finished run is read, an interrupted one goes on.

    Returns: the result; None on the processes other than the first.
    """
    folder = RunFolder(config.output, config, writer=rank() == 0)
    if folder.finished:
        return Measured.read(config.output)
    set_seed(config.seed)
    tuning = prepare(config)
    report = tuning.tune(folder, quiet=quiet)
    if rank() > 0:
        return None
    return _conclude(folder, tuning, report)


def prepare(config: MultimodalConfig) -> MultimodalTuning:
    """Everything up to the first update: model, alignment, adapters, and the whole data looked at.

    Raises: ModelError and ImageSetError, with what to type, for parts that do not fit.
    """
    model = load_multimodal(config.model.name, revision=config.model.revision, dtype=config.model.dtype)
    if config.aligned is not None:
        with_shift(model, load_aligned(config.aligned.run), other_base=config.aligned.other_base)
    data = MultimodalData(config.data, model, seed=config.seed)
    lora = config.lora
    make_trainable(
        model,
        rank=lora.rank,
        alpha=lora.alpha,
        dropout=lora.dropout,
        targets=lora.targets,
        projector=config.projector,
    )
    if config.training.gradient_checkpointing:
        checkpoint_activations(model)
    original = {
        name: parameter.detach().clone()
        for name, parameter in model.model.named_parameters()
        if parameter.requires_grad and ".lora_" not in name
    }
    return MultimodalTuning(config, model, data, original)


def rehearse(config: MultimodalConfig, folder: Path, updates: int) -> Rehearsal:
    """For `gen2real train --dry-run`; see `rehearsal.py`."""
    from gen2real.methods.multimodal.rehearsal import rehearse as rehearsed

    return rehearsed(config, folder, updates)


def answer_loss(models: Mapping[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
    """The mean over the answer tokens of the whole update, however it is cut into parts and processes."""
    model = models["multimodal"]
    device = next(model.parameters()).device
    generated, real = (None if own is None else own.to(device) for own in (batch.generated, batch.real))
    sums = gather(model(generated, real)[: batch.own])
    # L = −1/T Σ_t log p(a_t | picture, question, a_<t)
    return {"loss": batch.token_mean(sums, batch.all_tokens)}


def _conclude(folder: RunFolder, tuning: MultimodalTuning, report: FitReport) -> Measured:
    config = tuning.config
    readings, samples, shown = measure(config, tuning.model, tuning.untrained)
    where = _roles(config)
    pictures = {
        "generated": tuning.data.pictures(generated=True),
        "real": tuning.data.pictures(generated=False),
        "evaluation": shown,
    }
    if config.save_model:
        summary = {
            "method": config.method,
            "encoder": config.model.name,
            "pictures": pictures,
            "sets": described_sets(where),
        }
        findings = markdown(complete(summary, readings, config.inference), values_of(readings))
        made_by = provenance(folder, config, where)
        save_multimodal(folder.path / "model", tuning.model, made_by=made_by, findings=findings)
    return conclude_measured(
        folder,
        config,
        encoder_name=config.model.name,
        pictures=pictures,
        readings=readings,
        headline=config.inference,
        reports=[report],
        sets=where,
        samples=samples,
    )


def _roles(config: MultimodalConfig) -> list[tuple[str, Path]]:
    told = {"generated": "trained on", "real": "trained on, real"}
    found = [(told[origin], source.path) for origin, source in config.data.sources]
    return [*found, *([("measured on", config.data.evaluation)] if config.data.evaluation is not None else [])]
