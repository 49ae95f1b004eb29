"""What the kit's checkpoints are made of and how long each is trained. A run of other numbers is another kit."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from gen2real.config import Config
from gen2real.training.settings import OptimizerSettings, ScheduleSettings, TrainingSettings


class StageSettings(Config):
    """One training: its length and step size."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(200, ge=0)

    def optimizer(self) -> OptimizerSettings:
        """AdamW with the second moment's memory of a short run."""
        return OptimizerSettings(lr=self.lr, weight_decay=self.weight_decay, betas=(0.9, 0.99), clip_norm=1.0)

    def schedule(self) -> ScheduleSettings:
        """Linear warm-up, cosine to zero."""
        return ScheduleSettings(warmup_steps=self.warmup_steps)

    def training(self) -> TrainingSettings:
        """Mixed precision where the processor computes it fast; a checkpoint every few minutes."""
        return TrainingSettings(
            epochs=None, steps=self.steps, batch_size=self.batch_size, precision="auto", checkpoint_every=200
        )


class BuildConfig(Config):
    """The whole build. `scenes` of `web` train are all that any of the checkpoints ever sees."""

    output: Path = Path("build/kit")
    seed: int = Field(0, ge=0)
    scenes: int = Field(40_000, ge=1)
    captions_per_scene: int = Field(3, ge=1, description="short ones, noisy as the domain's; a long one comes on top")
    vocabulary: int = Field(1_024, ge=600)
    context: int = Field(48, ge=8, description="tokens a text may have, start and end included")
    clip_width: int = 128
    clip_layers: int = 4
    autoencoder_channels: tuple[int, ...] = (16, 32, 64)
    latent_channels: int = 6
    denoiser_channels: tuple[int, int, int] = (48, 96, 128)
    caption_dropout: float = Field(0.1, ge=0, lt=1)
    min_snr_gamma: float = Field(5.0, gt=0)
    decoder_width: int = 128
    decoder_layers: int = 4
    decoder_positions: int = Field(128, ge=64, description="tokens, with room for the prefix of a captioner")
    multimodal_width: int = 160
    multimodal_layers: int = 4
    multimodal_positions: int = Field(1_024, ge=256, description="tokens, those of pictures included")
    scorer_width: int = 96
    scorer_layers: int = 3
    clip: StageSettings = StageSettings(steps=2_400, batch_size=128, lr=1e-3, weight_decay=0.05)
    scorer: StageSettings = StageSettings(steps=1_200, batch_size=128, lr=1e-3, weight_decay=0.05)
    robust: StageSettings = StageSettings(steps=500, batch_size=128, lr=7e-4, weight_decay=0.05, warmup_steps=50)
    scorer_robust: StageSettings = StageSettings(steps=300, batch_size=128, lr=7e-4, weight_decay=0.05, warmup_steps=50)
    autoencoder: StageSettings = StageSettings(steps=1_200, batch_size=16, lr=2e-3, weight_decay=0.0, warmup_steps=50)
    denoiser: StageSettings = StageSettings(steps=6_500, batch_size=48, lr=1e-3)
    decoder: StageSettings = StageSettings(steps=1_200, batch_size=128, lr=2e-3, weight_decay=0.05)
    multimodal: StageSettings = StageSettings(steps=6_000, batch_size=16, lr=1.5e-3, weight_decay=0.05)
