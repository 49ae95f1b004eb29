"""GMAIL: generated pictures are a modality of their own, aligned to real ones.

Mo and Yun, "GMAIL: Generative Modality Alignment for generated Image Learning", arXiv 2602.15368. Stage 1, its
algorithm 1 up to line 9:

    1  f_r ← image tower, frozen;  f_g ← the same weights W with LoRA, W + ΔW, ΔW = 0           step 0: f_g = f_r
    2  R ← f_r(x_r) for every real picture                                                     encoded once, kept
    3  for each batch of pairs (x_g, x_r):
           L ← modality_alignment(f_g(x_g), R, τ)                                               equation 1
           L ← L + image_text_contrastive(f_g(x_g), h(y))                                       align+text, section 3.1
           ΔW (and h's LoRA) ← AdamW(∇L)
    4  real pictures are read through f_r | f_g | f_r and a projection                          the paper says each once

The paper contradicts itself on which of these it means: algorithm 1 keeps f_r and h, and then every zero-shot number
must equal the original's to the digit (`inference: f_r` with `text.tower: frozen`, a control). So all of them are
measured, and `inference` names beforehand the one that counts. Long captions are Long-CLIP's (arXiv 2403.15378).
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from torch import nn

from gen2real.errors import RecipeError
from gen2real.evaluation.features import FeatureCache, cached_texts, cached_views
from gen2real.methods.fitting import fit
from gen2real.methods.gmail.data import AlignmentBatches, AlignmentData, evaluated
from gen2real.methods.gmail.loss import AlignmentLoss, Branches
from gen2real.methods.gmail.readings import BASELINE, MEANINGS, look_at
from gen2real.methods.gmail.settings import GMAILConfig, Inference
from gen2real.methods.measured import Measured, Reading
from gen2real.methods.measured_run import conclude_measured, provenance
from gen2real.methods.real_pictures import RealPictures
from gen2real.methods.rehearsal import Rehearsal
from gen2real.methods.start import open_encoder
from gen2real.methods.tuning import training_mode
from gen2real.models.adapters import add_lora, lora_layers, merge_lora
from gen2real.models.aligned import Aligned, difference, save_aligned, shift_of
from gen2real.models.dual_encoder import DualEncoder
from gen2real.models.long_text import stretch_positions
from gen2real.training.distributed import rank
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport


def run(config: GMAILConfig, *, quiet: bool = False) -> Measured | None:
    """Aligns, measures and saves; a finished run is read, an interrupted one goes on where it was.

    Returns: the result; None on the processes other than the first.

    Raises: what loading, training and the image sets raise; see `gen2real.errors`.
    """
    folder = RunFolder(config.output, config, writer=rank() == 0)
    if folder.finished:
        return Measured.read(config.output)
    set_seed(config.seed)
    alignment = prepare(config)
    report = alignment.train(folder, quiet=quiet)
    if rank() > 0:
        return None
    return _conclude(folder, config, alignment, report)


def prepare(config: GMAILConfig) -> Alignment:
    """Everything up to the first update: towers, pictures, and what frozen towers say of them."""
    start = open_encoder(config.encoder)
    return Alignment(config, start, AlignmentData(config, start.encoder.preprocess))


class Alignment:
    """Steps 1 to 3 of the algorithm.

    Attributes:
        start: what the run begins with. encoder: f_r, and h, which may be in training. generated: f_g.
    """

    def __init__(self, config: GMAILConfig, start: Aligned, data: AlignmentData) -> None:
        self._config, self.start, self.data = config, start, data
        self.encoder = start.encoder.to(PartialState().device)
        if config.text.long is not None:
            stretch_positions(self.encoder, keep=config.text.long.keep, factor=config.text.long.factor)
        if config.training.gradient_checkpointing:
            self.encoder.gradient_checkpointing()
        self.encoder.requires_grad_(False)
        self._shift_before = {name: value.to(PartialState().device) for name, value in start.shift.items()}
        self.generated = self._generated_tower()
        self._text_is_tuned = config.text.tower == "lora"
        if self._text_is_tuned:
            _tune_text(self.encoder, config)
        self.projection = self._real_projection()
        encoder = self.encoder if self._text_is_tuned else None
        self._branches = Branches(self.generated, encoder, self.projection)

    def train(self, folder: RunFolder, *, quiet: bool = False) -> FitReport:
        """Step 3, resuming where an earlier call was interrupted."""
        config, optimizer = self._config, self._config.optimizer
        loss = self._loss()
        training_mode(self._branches, freeze_batch_norm=True)
        if self._text_is_tuned:
            # f_r lies in the same encoder and takes no part.
            self.encoder.vision.eval()
        rates: dict[str, tuple[nn.Module, float]] = {"generated": (self.generated, optimizer.lr)}
        if self._text_is_tuned:
            rates["text"] = (self.encoder, optimizer.lr)
        if self.projection is not None:
            rates["projection"] = (self.projection, optimizer.head_lr or optimizer.lr)
        sampler = self.data.sampler(config.training.batch_size, config.seed)
        steps = config.training.total_steps(sampler.steps_per_epoch)
        batches = AlignmentBatches(self.data, sampler, config)
        models = {"branches": self._branches}
        report = fit(models, rates, batches, steps, loss, folder, config, stage="alignment", quiet=quiet)
        self._branches.eval()
        return report

    def finished(self) -> Aligned:
        """The towers as they are now; the text tower's LoRA layers are merged, f_g's stay."""
        if self._text_is_tuned and (text := _text_tower(self.encoder)) is not None and lora_layers(text):
            merge_lora(text)
        if self._config.tune == "lora":
            shift = shift_of(self.generated)
            for name, value in self._shift_before.items():
                shift[name] = value + shift[name] if name in shift else value
        else:
            shift = difference(self.generated, self.encoder.vision)
        shift = {name: value.to(PartialState().device) for name, value in shift.items()}
        projection = self.start.real_projection if self.projection is None else self.projection.weight.detach().clone()
        return Aligned(self.encoder, shift, projection)

    @property
    def saved_tower(self) -> nn.Module | None:
        """f_g where its LoRA layers are all that is added to f_r, to be saved as an adapter; else None."""
        return self.generated if self._config.tune == "lora" and not self._shift_before else None

    def _generated_tower(self) -> nn.Module:
        tower = copy.deepcopy(self.encoder.vision)
        with torch.no_grad():
            for name, value in self._shift_before.items():
                tower.get_parameter(name).add_(value)
        if self._config.tune == "full":
            return tower.requires_grad_(True)
        lora = self._config.lora
        return add_lora(tower, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=lora.targets)

    def _real_projection(self) -> nn.Linear | None:
        if not self._config.real_projection:
            return None
        dim = self.encoder.embedding_dim
        projection = nn.Linear(dim, dim, bias=False, device=PartialState().device)
        before = self.start.real_projection
        with torch.no_grad():
            # The identity: at step 0 the projection changes nothing.
            projection.weight.copy_(torch.eye(dim) if before is None else before)
        return projection

    def _loss(self) -> AlignmentLoss:
        config, texts = self._config, [self.data.texts.listed]
        if config.text.long is not None and config.text.long.coarse_weight > 0:
            texts.append(self.data.texts.first_sentences())
        cache, targets, text_features = FeatureCache(), None, None
        # One process computes what all of them read.
        with PartialState().main_process_first():
            if self.data.real is not None and (config.aligns != "nothing" or config.real_projection):
                targets = cached_views(self.encoder.vision, self.data.real, views=1, seed=0, cache=cache)[0]
            if not self._text_is_tuned:
                text_features = [cached_texts(self.encoder, listed, cache) for listed in texts if listed]
        return AlignmentLoss(
            config,
            self.data.preprocess,
            targets=targets,
            texts=texts if config.reads_texts else [],
            text_features=text_features,
            scale=float(self.encoder.logit_scale.detach().exp()),
        )


def _text_tower(encoder: DualEncoder) -> nn.Module | None:
    found = getattr(encoder, "text", None)
    return found if isinstance(found, nn.Module) else None


def _tune_text(encoder: DualEncoder, config: GMAILConfig) -> None:
    text = _text_tower(encoder)
    if text is None:
        raise RecipeError(
            f"text.tower: lora trains the text tower, and that of {encoder.name} is a function without weights; make "
            "it an nn.Module, or set text.tower=frozen."
        )
    lora = config.lora
    # `targets` names layers of the image tower.
    add_lora(text, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout)
    if config.text.long is not None:
        for name, parameter in text.named_parameters():
            # Most of the stretched positions were never seen; they are trained too (ours).
            parameter.requires_grad_(parameter.requires_grad or name.endswith("position_embedding.weight"))


def _conclude(folder: RunFolder, config: GMAILConfig, alignment: Alignment, report: FitReport) -> Measured:
    data, aligned = alignment.data, alignment.finished()
    # Texts are read by another tower than before where it was tuned or stretched; f_r is the same.
    changed = config.text.tower == "lora" or config.text.long is not None
    start = open_encoder(config.encoder) if changed else alignment.start
    # Whether a weight wants a gradient can change a product's last bit, and two readings shall differ for a reason.
    for encoder in (start.encoder, aligned.encoder):
        encoder.to(PartialState().device).requires_grad_(False)
    told, plane = ({}, {}) if data.held_out is None else look_at(data.held_out, start, aligned)
    readings, measured = _readings(config, data, start, aligned)
    sets = _sets(config)

    def save(findings: str) -> None:
        save_aligned(
            folder.path / "model",
            aligned.encoder,
            alignment.saved_tower or aligned.shift,
            real_projection=aligned.real_projection,
            made_by=provenance(folder, config, sets),
            findings=findings,
        )

    return conclude_measured(
        folder,
        config,
        encoder_name=config.encoder.source,
        pictures=_counts(config, data) | {"evaluation": measured},
        readings=readings,
        headline=_named(config.resolved_inference, data),
        reports=[report],
        sets=sets,
        plane=plane,
        save=save if config.save_model else None,
        loss=config.loss,
        alignment=told,
        unmatched=data.unmatched,
        transductive=data.transductive,
    )


def _readings(
    config: GMAILConfig, data: AlignmentData, start: Aligned, aligned: Aligned
) -> tuple[dict[str, Reading], int]:
    """Every reading, and how many pictures were measured; readings without measures where there is no such set."""
    branches: list[Inference] = ["f_r", "f_g"]
    if aligned.real_projection is not None:
        branches.append("projection")
    pictures = evaluated(config.data, data.preprocess)
    if pictures is None:
        return {_named(branch, data): Reading(MEANINGS[branch], {}) for branch in branches}, 0
    real = RealPictures(pictures, config.prompts, longest=config.data.captions == "longest")
    found = {"baseline": real.read(start.encoder, start.tower("f_r"), BASELINE, cached=True)}
    for branch in branches:
        found[_named(branch, data)] = real.read(
            aligned.encoder, aligned.tower(branch), MEANINGS[branch], cached=branch == "f_r"
        )
    return found, len(real)


def _named(branch: Inference, data: AlignmentData) -> str:
    return f"transductive_{branch}" if data.transductive else branch


def _counts(config: GMAILConfig, data: AlignmentData) -> dict[str, int]:
    """real: pictures that went through f_g or were aligned to."""
    through = {"generated": 0, "real": 0}
    partners: set[int] = set()
    for source in data.sources:
        of_real = source.pictures.image_set.table["origin"].to_pylist()[:1] == ["real"]
        through["real" if of_real else "generated"] += len(source)
        partners.update(source.partners.tolist())
    if config.aligns == "distributions":
        partners = set(data.pool.tolist())
    uses_real = config.aligns != "nothing" or config.real_projection or config.data.train_on != "generated"
    real = len(partners - {-1}) if uses_real else 0
    held_out = 0 if data.held_out is None else len(data.held_out.generated)
    return {"generated": through["generated"], "real": real, "held_out": held_out}


def _sets(config: GMAILConfig) -> list[tuple[str, Path]]:
    data = config.data
    sets = [("trained on" if data.train_on != "real" else "partners of", path) for path in data.generated]
    if data.real is not None:
        sets.append(("real partners" if data.train_on == "generated" else "trained on, real", data.real))
    if data.evaluation is not None:
        sets.append(("measured on", data.evaluation))
    return sets


def rehearse(config: GMAILConfig, folder: Path, updates: int) -> Rehearsal:
    """A few updates in a temporary folder, for an estimate of the whole run."""
    # It rehearses what is defined here.
    from gen2real.methods.gmail.rehearsal import rehearse as rehearsed

    return rehearsed(config, folder, updates)
