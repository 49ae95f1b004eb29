"""UniDiff: a CLIP and a Stable Diffusion tuned together, each by its own loss and both by what they see alike.

Dong et al., "UniDiff: Advancing Vision-Language Models with Generative and Discriminative Learning", arXiv 2306.00813.
Only its abstract is known: three losses, ITC, IS and RSC; RSC acts on visual features of both models; the models'
architecture is not altered; small captioned sets of one domain. The equations below are the textbook's for ITC and IS
and ours for RSC, and so are all defaults; no number here is the paper's. For picture x with caption y,

    f_v = P_v·E_v(x),  f_t = P_t·E_t(y)[EOS]     CLIP's two embeddings, normalised in the losses
    c   = E_t(y)                                  all of its text states, where the text tower is shared
    z_0 = s·VAE(x),  z_t = √ᾱ_t z_0 + √(1−ᾱ_t) ε,  t ~ U{0 … T−1}

    1  E_v, E_t, ε_θ ← pre-trained; VAE frozen; each part frozen, with LoRA, or whole
    2  g ← RSC's head, in training only, alone for a while (`heads_first`, ours)
    3  for each batch of pairs (x, y):
           L_itc ← ½·[CE(l) + CE(lᵀ)],  l_ij = exp(τ)·⟨f_v^i, f_t^j⟩,  exp(τ) ≤ 100
           L_is  ← ‖ε − ε_θ(z_t, t, c)‖²                      or of v or x_0: what the checkpoint predicts
           f_d   ← the denoiser's own view of x, at t < t_max·T only, where it still sees something of it:
                     features     g(mean of a block h of ε_θ)
                     relational   the mean of h; pictures' similarities are compared, there is no head
                     decoded      P_v·Ẽ_v(VAE⁻¹(ẑ_0)),  ẑ_0 = (z_t − √(1−ᾱ_t) ε̂)/√ᾱ_t,  Ẽ_v not in training
           L_rsc ← ½·[D(sg f_v, f_d) + D(sg f_d, f_v)]        or either half: one teaches the other
           θ ← AdamW(∇(λ_itc L_itc + λ_is L_is + λ_rsc L_rsc)),  by PCGrad where losses disagree if asked for
           ε̄_θ ← the running mean of ε_θ
    4  E_v, E_t → model/, ε̄_θ with VAE and E_t → generator/: what is measured, drawn with and saved
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from torch import nn

from gen2real.files import write_tensors
from gen2real.imagesets import ImageSet
from gen2real.methods.fitting import fit
from gen2real.methods.measured import Measured
from gen2real.methods.measured_run import conclude_measured, provenance
from gen2real.methods.rehearsal import Rehearsal
from gen2real.methods.unidiff.data import JointData
from gen2real.methods.unidiff.loss import LARGEST_SCALE, JointLoss
from gen2real.methods.unidiff.network import JointNetwork
from gen2real.methods.unidiff.panel import Panel
from gen2real.methods.unidiff.reach import freeze_unreached
from gen2real.methods.unidiff.readings import HEADLINE, prepare_panel, readings
from gen2real.methods.unidiff.settings import Module, ModuleSettings, UniDiffConfig
from gen2real.models.joint import Joint, load_joint
from gen2real.training.averaging import Average
from gen2real.training.distributed import rank
from gen2real.training.run_folder import RunFolder
from gen2real.training.trainer import FitReport

PARTS: tuple[Module, ...] = ("image", "text", "unet")
STAGE = "joint"
"""What the training's lines in `metrics.jsonl` have for a stage."""
_JUDGE_DECAY = 0.999


def run(config: UniDiffConfig, *, quiet: bool = False) -> Measured | None:
    """Tunes, measures and saves; a finished run is read, an interrupted one goes on where it was.

    Returns: the result; None on the processes other than the first.

    Raises: what loading, training and the image sets raise; see `gen2real.errors`.
    """
    folder = RunFolder(config.output, config, writer=rank() == 0)
    if folder.finished:
        return Measured.read(config.output)
    set_seed(config.seed)
    training = prepare(config)
    # It looks at the models as they were before the first update, also where a run is resumed.
    panel = prepare_panel(config, training.joint, training.data)
    reports = training.train(folder, on_step=panel.on_step, quiet=quiet)
    if rank() > 0:
        return None
    return _conclude(folder, config, training, panel, reports)


def prepare(config: UniDiffConfig) -> JointTraining:
    """Everything up to the first update: both models, pictures, and what frozen parts say of them."""
    joint = load_joint(config.models).to(PartialState().device)
    return JointTraining(config, joint, JointData(config, joint))


class JointTraining:
    """Steps 1 to 3 of the algorithm.

    Attributes:
        joint: both models. network: what of them is in training, with RSC's head.
    """

    def __init__(self, config: UniDiffConfig, joint: Joint, data: JointData) -> None:
        self._config, self.joint, self.data = config, joint, data
        for part in PARTS:
            settings: ModuleSettings = getattr(config, part)
            joint.tune(part, settings.mode, settings.lora)
        self.network = JointNetwork(joint, config, judge=self._judge())
        freeze_unreached(self.network, config, shared=joint.shared)
        if config.training.gradient_checkpointing:
            joint.gradient_checkpointing()
        self.network.to(PartialState().device)
        self._averages = self._averaged()

    def train(
        self, folder: RunFolder, *, on_step: Callable[[int], None] | None = None, quiet: bool = False
    ) -> list[FitReport]:
        """Steps 2 and 3, resuming where an earlier call was interrupted; then the averages are what the models are."""
        config, reports = self._config, []
        if config.conflict.heads_first:
            reports.append(self._train_head(folder, quiet=quiet))
        reports.append(self._train_all(folder, on_step=on_step, quiet=quiet))
        self._finish()
        return reports

    def _judge(self) -> nn.Module | None:
        """The image tower that looks at decoded pictures. The one in training would be content with what it sees alike
        in all pictures, so it is a copy, which stays (`frozen`) or follows (`ema`)."""
        one, vision = self._config.consistency, self.joint.encoder.vision
        if one.weight == 0 or one.form != "decoded":
            return None
        if self._config.image.mode == "frozen":
            return vision
        return copy.deepcopy(vision).requires_grad_(False).eval()

    def _averaged(self) -> dict[str, Average]:
        found, decay = {}, self._config.synthesis.ema
        if decay is not None and (own := _trained(self.network.unet)):
            found["unet"] = Average(own, decay)
        follows = self._config.consistency.judge == "ema" and self.network.judge is not None
        if follows and (own := _trained(self.network.encoder.vision)):
            found["judge"] = Average(own, decay or _JUDGE_DECAY, kept_in=self.network.judge)
        return found

    def _train_head(self, folder: RunFolder, *, quiet: bool) -> FitReport:
        """Step 2: the head learns what the frozen towers have in common, before it may pull at either of them."""
        assert self.network.head is not None
        with _only(self.network, self.network.head):
            return self._fit({"head": self._rates()["head"]}, self._config.conflict.heads_first, folder, "head", quiet)

    def _train_all(self, folder: RunFolder, *, on_step: Callable[[int], None] | None, quiet: bool) -> FitReport:
        own = {part: getattr(self._config, part).schedule for part in PARTS}
        return self._fit(
            self._rates(),
            self.data.steps(),
            folder,
            STAGE,
            quiet,
            schedules=own,
            averages=self._averages,
            on_step=on_step,
        )

    def _fit(
        self,
        rates: dict[str, tuple[nn.Module, float]],
        steps: int,
        folder: RunFolder,
        stage: str,
        quiet: bool,
        **more: Any,
    ) -> FitReport:
        network = self.network
        network.train()
        for part in (network.encoder.vision, network.encoder.text, network.unet):
            # No dropout in what stays as it is.
            part.train(any(parameter.requires_grad for parameter in part.parameters()))
        loss = JointLoss(self.joint, self.data, network, heads_only=stage != STAGE)
        batches = self.data.batches()
        return fit(
            {"joint": network}, rates, batches, steps, loss, folder, self._config, stage=stage, quiet=quiet, **more
        )

    def _rates(self) -> dict[str, tuple[nn.Module, float]]:
        config, network = self._config, self.network
        found: dict[str, tuple[nn.Module, float]] = {
            "image": (network.encoder.vision, config.lr("image")),
            "text": (network.encoder.text, config.lr("text")),
            "unet": (network.unet, config.lr("unet")),
        }
        if network.head is not None:
            found["head"] = (network.head, config.optimizer.head_lr or config.optimizer.lr)
        # What is left of the encoder is the logit scale.
        found["scale"] = (network.encoder, config.optimizer.lr)
        return found

    def _finish(self) -> None:
        """Step 4: the running mean takes the denoiser's place, LoRA layers are merged."""
        if "unet" in self._averages:
            self._averages["unet"].copy_to(self.network.unet)
        scale = self.network.encoder.logit_scale
        if scale.requires_grad:
            with torch.no_grad():
                scale.clamp_(max=math.log(LARGEST_SCALE))
        self.joint.finish()
        self.network.eval()


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


@contextmanager
def _only(network: nn.Module, part: nn.Module) -> Iterator[None]:
    """Within, `part` alone is in training."""
    before = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.requires_grad_(False)
    part.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in before:
            parameter.requires_grad_(True)


def _conclude(
    folder: RunFolder, config: UniDiffConfig, training: JointTraining, panel: Panel, reports: list[FitReport]
) -> Measured:
    joint, data = training.joint, training.data
    found, details = readings(config, joint, data, panel)
    sets = _sets(config)

    def save(findings: str) -> None:
        joint.save(folder.path, made_by=provenance(folder, config, sets), findings=findings)
        if training.network.head is not None:
            write_tensors(folder.path / "heads.safetensors", training.network.head.state_dict())

    evaluation = 0 if config.data.evaluation is None else len(ImageSet.read(config.data.evaluation).kept())
    held_out = 0 if data.held_out is None else len(data.held_out)
    return conclude_measured(
        folder,
        config,
        encoder_name=config.models.clip,
        pictures={"real": len(data.train), "held_out": held_out, "evaluation": evaluation},
        readings=found,
        headline=HEADLINE,
        reports=reports,
        sets=sets,
        save=save if config.save_model else None,
        generator=config.models.generator,
        text_encoder={"shared": joint.shared, "why": joint.why},
        **details,
    )


def _sets(config: UniDiffConfig) -> list[tuple[str, Path]]:
    data = config.data
    named = (("trained on", data.pictures), ("measured on", data.evaluation), ("general", data.general))
    return [(role, path) for role, path in named if path is not None]


def rehearse(config: UniDiffConfig, folder: Path, updates: int) -> Rehearsal:
    """A few updates in a temporary folder, for an estimate of the whole run."""
    # It rehearses what is defined here.
    from gen2real.methods.unidiff.rehearsal import rehearse as rehearsed

    return rehearsed(config, folder, updates)
