"""The kit's text-to-image model: a denoiser of latents that reads the kit's CLIP, as Stable Diffusion 1.x does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from gen2real.files import atomic_folder
from gen2real.kit.build.autoencoder import build_autoencoder, latents
from gen2real.kit.build.clip import train_both_towers
from gen2real.kit.build.corpus import CorpusBatch, drawn_texts, token_ids
from gen2real.kit.build.fitting import fit
from gen2real.kit.build.settings import BuildConfig
from gen2real.kit.build.storage import save_half
from gen2real.losses import denoising
from gen2real.training.distributed import rank


def build_generator(config: BuildConfig, *, jobs: int, quiet: bool = False) -> Path:
    """Trains the denoiser, or goes on with it, and puts the pipeline together; returns its folder."""
    out = config.output / "generator"
    if out.exists():
        return out
    clip = train_both_towers(config, jobs=jobs, quiet=quiet)
    tokenizer = CLIPTokenizer.from_pretrained(clip)
    ids, clean = token_ids(config, tokenizer), latents(config, jobs=jobs)
    empty = torch.tensor(tokenizer("", padding="max_length", max_length=config.context)["input_ids"])
    torch.manual_seed(config.seed)
    unet = _unet(config, clean.shape[-1])
    scheduler = _scheduler()
    text_encoder = CLIPModel.from_pretrained(clip).text_model.eval().requires_grad_(False)
    denoiser = _Denoiser(unet, text_encoder)
    abar = scheduler.alphas_cumprod

    def step(models: Mapping[str, nn.Module], batch: CorpusBatch) -> dict[str, Tensor]:
        count = len(batch.indices)
        texts = drawn_texts(ids, batch)
        texts[torch.rand(count, generator=batch.generator) < config.caption_dropout] = empty
        start = clean[torch.from_numpy(batch.indices)].float()
        times = torch.randint(len(abar), (count,), generator=batch.generator)
        noise = torch.randn(start.shape, generator=batch.generator)
        noised = scheduler.add_noise(start, noise, times)
        # v = √ᾱ·ε − √(1−ᾱ)·x₀, weighted by min(SNR, γ)/(SNR + 1) with SNR = ᾱ/(1−ᾱ)
        target = scheduler.get_velocity(start, noise, times)
        device = next(denoiser.parameters()).device
        prediction = models["denoiser"](noised.to(device), times.to(device), texts.to(device))
        snr = (abar / (1 - abar))[times].to(device)
        gamma = config.min_snr_gamma
        return {"loss": denoising(prediction, target.to(device), snr=snr, gamma=gamma, prediction_type="v_prediction")}

    folder, seed = config.output / "denoiser-run", config.seed + 2
    fit(folder, config, config.denoiser, {"denoiser": denoiser}, step, scenes=config.scenes, seed=seed, quiet=quiet)
    if rank() > 0:
        return out
    with atomic_folder(out) as partial:
        assemble(unet.cpu(), clip, build_autoencoder(config, jobs=jobs), partial)
    return out


def assemble(unet: UNet2DConditionModel, clip: Path, autoencoder: Path, out: Path) -> None:
    """Writes a `StableDiffusionPipeline` folder whose text encoder is the CLIP's text tower."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(autoencoder),
        # In transformers 5 the tower is itself the class that the pipeline wants.
        text_encoder=CLIPModel.from_pretrained(clip).text_model,
        tokenizer=CLIPTokenizer.from_pretrained(clip),
        unet=unet,
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out)
    for name in ("vae", "text_encoder", "unet"):
        save_half(getattr(pipeline, name), out / name)


class _Denoiser(nn.Module):
    """Noised latents [n C s s], times [n], ids [n L] → the predicted velocity [n C s s]."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def forward(self, noised: Tensor, times: Tensor, ids: Tensor) -> Tensor:
        with torch.no_grad():
            states = self.text_encoder(input_ids=ids).last_hidden_state
        return self.unet(noised, times, states).sample


def _unet(config: BuildConfig, side: int) -> UNet2DConditionModel:
    # Text is read at 8 × 8 and 4 × 4, where it costs little; at 16 × 16 there are convolutions only.
    model = UNet2DConditionModel(
        sample_size=side,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        layers_per_block=1,
        block_out_channels=config.denoiser_channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=config.clip_width,
        # diffusers' name notwithstanding, this is the number of heads.
        attention_head_dim=tuple(max(channels // 32, 1) for channels in config.denoiser_channels),
        norm_num_groups=16,
    )
    return model.to(memory_format=torch.channels_last)


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        steps_offset=1,
    )
