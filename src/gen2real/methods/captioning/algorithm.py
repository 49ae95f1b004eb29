"""Captioning: ClipCap trained on generated pictures, measured on real ones (GMAIL's stage 2).

Mokady et al., "ClipCap", arXiv 2111.09734; Mo and Yun, "GMAIL", arXiv 2602.15368, whose figure 1, algorithm 1 and text
disagree about the wiring. With F a mapper ("projection"), G the language model, both image towers frozen:

    c (ours)   F, G ← captions of generated pictures through F(f_g(x_g));   real ones are told by G(F(f_r(x_r)))
    a          F_g, G ← captions through F_g(f_g(x_g)), from a trained F_r, G with F_g = F_r;   told by G(F_r(f_r(x_r)))
    b          F_g, F_r, G ← a mix of both, each through its own;   told by G(F_r(f_r(x_r)))

All of them embed every picture once. Trained on real pictures, c is ClipCap itself.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import set_seed
from torch import Tensor, nn

from gen2real.errors import RecipeError
from gen2real.evaluation.captioning import caption_scores
from gen2real.evaluation.features import FeatureCache, cached_views
from gen2real.imagesets.loading import Pictures
from gen2real.losses import next_token
from gen2real.methods.captioning.data import CaptionBatch, CaptionBatches, CaptioningSets
from gen2real.methods.captioning.settings import CaptioningConfig
from gen2real.methods.fitting import fit
from gen2real.methods.measured import Measured, Reading, complete
from gen2real.methods.measured_findings import markdown
from gen2real.methods.measured_run import conclude_measured, described_sets, provenance
from gen2real.methods.rehearsal import Counts, Rehearsal, part_of, short_training
from gen2real.methods.settings import SourceSettings
from gen2real.methods.start import open_encoder
from gen2real.models.aligned import Aligned
from gen2real.models.captioner import Captioner, load_decoder, new_captioner
from gen2real.models.captioner_folder import load_captioner, save_captioner
from gen2real.training.distributed import gather, rank
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport

HEADLINE = "f_r"
_SAMPLES = 12


@dataclass(frozen=True)
class Captioning:
    """A run, ready for its first update."""

    config: CaptioningConfig
    aligned: Aligned
    captioner: Captioner
    sets: CaptioningSets

    def features(self, pictures: Pictures, branch: Any) -> Tensor:
        """[N D]: embeddings through a frozen tower, from the cache where they are known."""
        tower = self.aligned.tower(branch).to(PartialState().device)
        return cached_views(tower, pictures, views=1, seed=0, cache=FeatureCache())[0]

    def tune(self, folder: RunFolder, *, quiet: bool = False) -> FitReport:
        """Trains what the reading says, resuming where an earlier call was interrupted."""
        config, training = self.config, self.config.training
        branch = {"generated": config.encoder.generated_branch, "real": "f_r"}
        features = [self.features(one.pictures, branch[one.origin]) for one in self.sets.sources]
        ids = [self.captioner.token_ids(one.captions) for one in self.sets.sources]
        sampler = self.sets.sampler(training.batch_size, config.seed)
        batches = CaptionBatches(self.sets.sources, features, ids, sampler, parts=training.accumulation)
        self.captioner.train()
        report = fit(
            {"captioner": self.captioner},
            {"captioner": (self.captioner, config.optimizer.lr)},
            batches,
            training.total_steps(sampler.steps_per_epoch),
            caption_loss,
            folder,
            config,
            stage="captioner",
            quiet=quiet,
        )
        self.captioner.eval()
        return report


def run(config: CaptioningConfig, *, quiet: bool = False) -> Measured | None:
    """Trains a captioner, measures it and saves it; a finished run is read, an interrupted one goes on where it was.

    Returns: the result; None on the processes other than the first.
    """
    folder = RunFolder(config.output, config, writer=rank() == 0)
    if folder.finished:
        return Measured.read(config.output)
    set_seed(config.seed)
    captioning = prepare(config)
    report = captioning.tune(folder, quiet=quiet)
    if rank() > 0:
        return None
    told = _captions(captioning)
    return _conclude(folder, captioning, report, told)


def prepare(config: CaptioningConfig) -> Captioning:
    """Everything up to the first update: encoder, language model, mappers, pictures.

    Raises: ModelError and ImageSetError, with what to type, for parts that do not fit; RecipeError where `start` has
        mappers that the recipe's reading cannot go on with.
    """
    aligned = open_encoder(config.encoder)
    aligned.encoder.requires_grad_(False)
    sets = CaptioningSets(config.data, aligned.encoder.preprocess, seed=config.seed)
    captioner = _captioner(config, aligned.encoder.embedding_dim)
    tune_decoder = config.tune_decoder
    if tune_decoder is None:
        tune_decoder = captioner.description["kind"] == "mlp"
    captioner.decoder.requires_grad_(tune_decoder)
    if captioner.is_dual:
        # A mapper whose pictures are not there stays as it is.
        captioner.mapper("generated").requires_grad_(config.data.train_on != "real")
        captioner.mapper("real").requires_grad_(config.data.train_on != "generated")
    return Captioning(config, aligned, captioner, sets)


def rehearse(config: CaptioningConfig, folder: Path, updates: int) -> Rehearsal:
    """The recipe for a few updates on a part of each set, for `gen2real train --dry-run`; see `rehearsal.py`."""

    def part(one: SourceSettings, name: str) -> SourceSettings:
        return one.model_copy(update={"path": part_of(one.path, folder / name)})

    data = config.data.model_copy(
        update={
            "generated": tuple(part(one, f"generated-{place}") for place, one in enumerate(config.data.generated)),
            "real": None if config.data.real is None else part(config.data.real, "real"),
        }
    )
    training = short_training(config.training, updates)
    short = config.model_copy(update={"output": folder / "run", "data": data, "training": training})
    captioning = prepare(short)

    def encode() -> int:
        source = captioning.sets.sources[0]
        captioning.features(source.pictures, "f_r")
        return len(source.pictures)

    def counts() -> Counts:
        whole = CaptioningSets(config.data, captioning.aligned.encoder.preprocess, seed=config.seed)
        pictures = sum(len(one.pictures) for one in whole.sources)
        state = [*captioning.captioner.state_dict().values(), *captioning.aligned.encoder.state_dict().values()]
        return Counts(
            pictures=pictures,
            held_out=0,
            updates=config.training.total_steps(whole.sampler(config.training.batch_size, 0).steps_per_epoch),
            encoded=pictures + (2 if captioning.aligned.shift else 1) * len(whole.evaluation),
            model_bytes=sum(value.nbytes for value in state) if config.save_model else 0,
        )

    return Rehearsal(short, encode, lambda run_folder: captioning.tune(run_folder, quiet=True), counts)


def caption_loss(models: Mapping[str, nn.Module], batch: CaptionBatch) -> dict[str, Tensor]:
    """ClipCap's loss, averaged over the caption tokens of the whole batch."""
    model = models["captioner"]
    device = next(model.parameters()).device
    ids = batch.ids.to(device)
    logits = model(batch.features.to(device), batch.generated.to(device), ids)
    sums, counts = next_token(logits, ids)
    # L = −Σ log p(c_i | p_1 … p_k, c_1 … c_{i−1}) / number of tokens
    return {"loss": gather(sums).sum() / gather(counts).sum()}


def _captioner(config: CaptioningConfig, features: int) -> Captioner:
    decoding: dict[str, Any] = {
        "max_tokens": config.decoding.max_tokens,
        "ends_at_full_stop": config.decoding.ends_at == "full_stop",
    }
    if config.start is None:
        assert config.decoder is not None
        decoder, tokenizer = load_decoder(config.decoder.name, revision=config.decoder.revision)
        return new_captioner(
            decoder,
            tokenizer,
            features,
            dual=config.is_dual,
            mapper=config.mapper.described,
            normalize=config.mapper.normalize,
            **decoding,
        )
    start = load_captioner(config.start).captioner
    if start.features != features:
        raise RecipeError(
            f"the captioner of start, {config.start}, maps embeddings of {start.features} numbers; the encoder "
            f"{config.encoder.source} gives {features}. Give the encoder that it was trained with."
        )
    if start.is_dual and not config.is_dual:
        raise RecipeError(
            f"start, {config.start}, has two mappers and the recipe's reading one. Set reading: a or b, or start from "
            "a captioner with one."
        )
    own: Any = start.mapper("real")
    if config.is_dual:
        own = {"real": own, "generated": start.mapper("generated") if start.is_dual else copy.deepcopy(own)}
    return Captioner(start.decoder, start.tokenizer, own, start.description, normalize=start.normalize, **decoding)


def _captions(captioning: Captioning) -> dict[str, list[str]]:
    """What each reading says of the evaluation pictures."""
    config, pictures = captioning.config, captioning.sets.evaluation
    beams = config.decoding.beams
    features = captioning.features(pictures, "f_r")
    told = {}
    if config.start is not None:
        # Loaded anew: a run that was resumed has not seen its own beginning.
        before = load_captioner(config.start).captioner
        before.max_tokens, before.ends_at_full_stop = (
            captioning.captioner.max_tokens,
            captioning.captioner.ends_at_full_stop,
        )
        told["start"] = before.to(captioning.captioner.device).captions(features, beams=beams)
    told["f_r"] = captioning.captioner.captions(features, beams=beams)
    if captioning.aligned.shift:
        through_generated = captioning.features(pictures, "f_g")
        told["f_g"] = captioning.captioner.captions(through_generated, beams=beams)
    return told


_MEANINGS = {
    "start": "the captioner before this training, f_r",
    "f_r": "real pictures through f_r",
    "f_g": "real pictures through f_g, the tower for generated ones",
}


def _conclude(folder: RunFolder, captioning: Captioning, report: FitReport, told: Mapping[str, list[str]]) -> Measured:
    config, measured_on = captioning.config, captioning.sets.evaluation.image_set
    references = measured_on.captions
    readings = {}
    for name, captions in told.items():
        scores = caption_scores(captions, references)
        details = {"pictures": len(captions), "references": sum(map(len, references)), "notes": list(scores.notes)}
        readings[name] = Reading(_MEANINGS[name], scores.values, details)
    where = _roles(config)
    pictures = {
        "generated": captioning.sets.count("generated"),
        "real": captioning.sets.count("real"),
        "evaluation": len(measured_on),
    }
    if config.save_model:
        summary = {
            "method": config.method,
            "encoder": config.encoder.source,
            "pictures": pictures,
            "sets": described_sets(where),
        }
        save_captioner(
            folder.path / "model",
            captioning.captioner,
            captioning.aligned.encoder,
            made_by=provenance(folder, config, where),
            findings=markdown(complete(summary, readings, headline=HEADLINE)),
        )
    samples = [
        {
            "set": str(measured_on.manifest),
            "id": measured_on.ids[row],
            "path": measured_on.table["path"][row].as_py(),
            "references": references[row],
            "captions": {name: captions[row] for name, captions in told.items()},
        }
        for row in range(min(_SAMPLES, len(measured_on)))
    ]
    return conclude_measured(
        folder,
        config,
        encoder_name=config.encoder.source,
        pictures=pictures,
        readings=readings,
        headline=HEADLINE,
        reports=[report],
        sets=where,
        samples=samples,
        stage={"reading": config.stage, "mapper": captioning.captioner.description},
    )


def _roles(config: CaptioningConfig) -> list[tuple[str, Any]]:
    data = config.data
    found = [("trained on", one.path) for one in data.generated if data.train_on != "real"]
    if data.real is not None and data.train_on != "generated":
        found.append(("trained on, real", data.real.path))
    return [*found, ("measured on", data.evaluation)]
