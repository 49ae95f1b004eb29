"""What a recipe of method `unidiff` may say; nothing heavy is imported here.

Only the paper's abstract is known (Dong et al., arXiv 2306.00813), so every default here is ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from gen2real.config import Config, RecipeName, RecipePath
from gen2real.methods.settings import LoraSettings
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings

Direction = Literal["both", "clip_to_diffusion", "diffusion_to_clip"]
Module = Literal["image", "text", "unet"]


class ModelSettings(Config):
    """The two models and, where the generator's own is not CLIP's text tower, how texts reach the denoiser."""

    clip: RecipeName = Field(description="a CLIPModel: a hub name or folder, or a finished run")
    generator: RecipeName = Field(description="a StableDiffusionPipeline: a hub name or folder, or a finished run")
    text_encoder: Literal["auto", "shared", "separate"] = Field(
        "auto",
        description="shared: the denoiser reads with CLIP's text tower, as in Stable Diffusion 1.x with ViT-L/14; auto "
        "(ours): shared where shapes, vocabulary and weights agree, else separate",
    )


class ModuleSettings(Config):
    """How one part is tuned. A rate of its own, and a schedule of its own where the run's does not suit it."""

    mode: Literal["frozen", "lora", "full"] = "full"
    lr: float | None = Field(None, gt=0, description="None: optimizer.lr")
    lora: LoraSettings = LoraSettings()
    schedule: ScheduleSettings | None = Field(None, description="None: the run's")


class JointDataSettings(Config):
    """Captioned real pictures of the domain, and what the two models are measured on."""

    pictures: RecipePath = Field(description="captioned pictures of the domain: what is trained on")
    evaluation: RecipePath | None = Field(None, description="captioned pictures of the domain: retrieval, synthesis")
    general: RecipePath | None = Field(
        None, description="pictures of what the models could do before: labels for zero-shot, captions for retrieval"
    )
    holdout: float = Field(0.1, ge=0, lt=1, description="of the pictures, for the panel while training goes on")
    limit: int | None = Field(None, ge=1, description="at most so many pictures; smaller is part of larger")
    crop_scale: tuple[float, float] = (0.9, 1.0)
    flip: float = Field(0.0, ge=0, le=1, description="0 (ours): captions say what is left and right")
    views: int | None = Field(
        4,
        ge=1,
        description="crops a picture, drawn once, whose latents are kept; null: a new crop and the VAE every time",
    )
    on_unreadable: Literal["error", "skip"] = "error"


class ContrastiveSettings(Config):
    """ITC: CLIP's own loss. Pictures with equal captions are each other's positives."""

    weight: float = Field(1.0, ge=0)
    chunk: int | None = Field(
        None,
        ge=1,
        description="pictures that CLIP sees at once; the loss is that of the whole batch all the same (GradCache, "
        "arXiv 2101.06983): memory for time",
    )
    scale: Literal["learned", "fixed"] = Field("learned", description="the logit scale, at most 100")


class SynthesisSettings(Config):
    """IS: the denoiser's own loss; what it predicts is said by the checkpoint's scheduler."""

    weight: float = Field(1.0, ge=0)
    pictures: int | None = Field(None, ge=1, description="of a batch, those the denoiser sees; None: all")
    min_snr: float | None = Field(None, gt=0, description="min-SNR's γ (arXiv 2303.09556), 5 in its paper; None: off")
    caption_dropout: float = Field(0.1, ge=0, le=1, description="for classifier-free guidance")
    ema: float | None = Field(0.9999, gt=0, lt=1, description="of the denoiser; after s updates at most (1+s)/(10+s)")


class ConsistencySettings(Config):
    """RSC: what CLIP sees in a picture and what the denoiser sees in it shall agree.

    decoded: the clean picture that the denoiser's prediction amounts to, through the VAE and a CLIP that is not in
    training. features: a block of the denoiser through a head that is only there in training. relational: likewise
    without a head; how pictures of a batch resemble each other.
    """

    weight: float = Field(0.25, ge=0)
    form: Literal["decoded", "features", "relational"] = "features"
    loss: Literal["infonce", "cosine"] = Field("infonce", description="of decoded and features")
    direction: Direction = "both"
    block: Literal["down", "mid", "up"] = Field(
        "mid", description="of the denoiser, for features and relational: the deepest down block, or the first up block"
    )
    pooling: Literal["mean", "patches"] = Field(
        "mean", description="patches: block and image tower are compared place by place (form: features, loss: cosine)"
    )
    t_max: float = Field(
        0.3,
        gt=0,
        le=1,
        description="the share of timesteps that count, from the clean end; noisier pictures say nothing",
    )
    weighting: Literal["gate", "snr"] = Field("gate", description="snr: those that count weigh min(SNR, 5)/5")
    judge: Literal["frozen", "ema"] = Field("frozen", description="the CLIP of form: decoded")
    temperature: float = Field(0.07, gt=0, description="of infonce and relational")


class ConflictSettings(Config):
    """Where ITC, IS and RSC meet in the same weights: how far they agree, and what is done where they do not."""

    log_every: int | None = Field(50, ge=1, description="updates; costs a backward pass a loss; null: never")
    surgery: Literal["none", "pcgrad"] = Field("none", description="pcgrad: arXiv 2001.06782; costs the same, always")
    heads_first: int = Field(0, ge=0, description="updates in which the heads of RSC alone are trained, before the run")


class DrawingSettings(Config):
    """Pictures that are drawn to be looked at and to be measured, on seeds that are the same in every run."""

    pictures: int = Field(256, ge=0, description="captions of the evaluation set, spread over it, one picture each")
    prompts: tuple[str, ...] = Field((), description="for the report's pictures; (): captions of the evaluation set")
    samples: int = Field(8, ge=2, description="pictures a prompt, for diversity")
    sampled_prompts: int = Field(8, ge=0, description="prompts that diversity is measured on")
    steps: int = Field(20, ge=1)
    guidance: float = Field(7.5, ge=1)
    batch_size: int = Field(16, ge=1)
    scorer: RecipeName | None = Field(
        None, description="another dual encoder, that is in no training: kernel distance, CLIP-score, CLIP-I, diversity"
    )


class PanelSettings(Config):
    """Does anything collapse? Measured before, while, and after the two models are trained."""

    every: int | None = Field(None, ge=1, description="updates; None: ten times a run")
    prompts: tuple[str, ...] = Field(
        ("a photo", "a photo of a person", "a photo of an animal", "a photo of a house", "a photo of food",
         "a red ball", "a landscape", "a drawing of a tree"),
        description="generic ones: how far the text encoder drifts on them",
    )  # fmt: skip


class UniDiffConfig(Config):
    """A CLIP and a Stable Diffusion, tuned together on a small captioned set of one domain."""

    method: Literal["unidiff"] = "unidiff"
    output: Path
    models: ModelSettings
    data: JointDataSettings
    image: ModuleSettings = ModuleSettings()
    text: ModuleSettings = Field(ModuleSettings(), description="CLIP's text tower; where it is shared, the denoiser's")
    unet: ModuleSettings = ModuleSettings()
    contrastive: ContrastiveSettings = ContrastiveSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    consistency: ConsistencySettings = ConsistencySettings()
    conflict: ConflictSettings = ConflictSettings()
    drawing: DrawingSettings = DrawingSettings()
    panel: PanelSettings = PanelSettings()
    optimizer: OptimizerSettings = OptimizerSettings(lr=1e-5, head_lr=1e-4, weight_decay=0.01, clip_norm=1.0)
    schedule: ScheduleSettings = ScheduleSettings(warmup_fraction=0.05)
    training: TrainingSettings = TrainingSettings(batch_size=128)
    save_model: bool = True
    seed: int = Field(0, ge=0)

    @property
    def uses_denoiser(self) -> bool:
        """Whether any loss looks at the denoiser."""
        return self.synthesis.weight > 0 or self.consistency.weight > 0

    @property
    def uses_clip(self) -> bool:
        """Whether any loss looks at CLIP's image tower."""
        return self.contrastive.weight > 0 or self.consistency.weight > 0

    def lr(self, module: Module) -> float:
        """The learning rate of one of the three parts."""
        return getattr(self, module).lr or self.optimizer.lr

    @model_validator(mode="after")
    def _something_to_learn(self) -> UniDiffConfig:
        if not (self.uses_clip or self.uses_denoiser):
            raise ValueError("contrastive, synthesis and consistency all weigh 0; set one, as contrastive.weight=1")
        if all(part.mode == "frozen" for part in (self.image, self.text, self.unet)):
            raise ValueError("image, text and unet are all frozen; set one, as unet.mode=lora")
        return self

    @model_validator(mode="after")
    def _whole_batches(self) -> UniDiffConfig:
        if self.training.accumulation > 1:
            raise ValueError(
                "training.accumulation would leave each picture fewer others to be told from; to save memory set "
                "contrastive.chunk, synthesis.pictures or training.gradient_checkpointing"
            )
        if (self.synthesis.pictures or 0) > self.training.batch_size:
            raise ValueError(
                f"synthesis.pictures {self.synthesis.pictures} is more than training.batch_size "
                f"{self.training.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _forms_that_exist(self) -> UniDiffConfig:
        one = self.consistency
        if one.pooling == "patches" and (one.form != "features" or one.loss != "cosine"):
            raise ValueError("pooling: patches compares place by place; set consistency.form=features and loss=cosine")
        if self.conflict.heads_first and (one.form != "features" or one.weight == 0):
            raise ValueError("conflict.heads_first trains the head of consistency.form=features; set that form")
        return self
