"""The kit's autoencoder: pictures of 64 px to latents of 16 × 16 and back; then every scene's latents, on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from gen2real.files import atomic_file, atomic_folder
from gen2real.kit.build.corpus import CorpusBatch, pictures, pixels
from gen2real.kit.build.fitting import fit
from gen2real.kit.build.settings import BuildConfig
from gen2real.kit.build.storage import save_half
from gen2real.kit.build.thumbnail_start import start_as_thumbnail
from gen2real.kit.world.vocabulary import SIDE

_KL_WEIGHT = 3e-4
_SQUARE_WEIGHT = 4.0
_EDGE_WEIGHT = 0.5
_AT_A_TIME = 100


def build_autoencoder(config: BuildConfig, *, jobs: int, quiet: bool = False) -> Path:
    """Trains the autoencoder, or goes on with it; returns its folder."""
    out = config.output / "vae"
    if out.exists():
        return out
    stored = pictures(config, jobs=jobs)
    torch.manual_seed(config.seed)
    model = _model(config)
    start_as_thumbnail(model, pixels(stored[:64]))
    coder = _Coder(model)

    def step(models: Mapping[str, nn.Module], batch: CorpusBatch) -> dict[str, Tensor]:
        real = pixels(stored[batch.indices]).to(next(coder.parameters()).device)
        noise = torch.randn(
            len(real), config.latent_channels, *[SIDE // 2 ** (len(config.autoencoder_channels) - 1)] * 2,
            generator=batch.generator,
        )  # fmt: skip
        again, divergence = models["coder"](real, noise.to(real.device))
        # L = |x − x̂| + 4·(x − x̂)² + ½·|∇x − ∇x̂| + β·KL: edges count by themselves, or they come out soft.
        plain = F.l1_loss(again, real) + _SQUARE_WEIGHT * F.mse_loss(again, real)
        edges = sum((_slope(again, axis) - _slope(real, axis)).abs().mean() for axis in (2, 3))
        return {"loss": plain + _EDGE_WEIGHT * edges + _KL_WEIGHT * divergence, "pixels": plain, "kl": divergence}

    folder, seed = config.output / "autoencoder-run", config.seed + 1
    fit(folder, config, config.autoencoder, {"coder": coder}, step, scenes=config.scenes, seed=seed, quiet=quiet)
    model = model.cpu().eval()
    with torch.inference_mode():
        some = model.encode(pixels(stored[:256])).latent_dist.mode()
    model.register_to_config(scaling_factor=round(1 / float(some.std()), 4))
    with atomic_folder(out) as partial:
        save_half(model, partial)
    return out


def latents(config: BuildConfig, *, jobs: int) -> Tensor:
    """float16 [scenes C 16 16]: every scene's latents times the scaling factor, encoded where not yet on disk."""
    path = config.output / f"latents-{config.seed}-{config.scenes}.npy"
    if not path.exists():
        model = AutoencoderKL.from_pretrained(build_autoencoder(config, jobs=jobs)).eval()
        model = model.to(memory_format=torch.channels_last)
        stored = pictures(config, jobs=jobs)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(stored), _AT_A_TIME):
                moments = model.encode(pixels(stored[start : start + _AT_A_TIME])).latent_dist
                parts.append((moments.mode() * model.config.scaling_factor).half().numpy())
        with atomic_file(path) as partial, partial.open("wb") as file:
            np.save(file, np.concatenate(parts))
    return torch.from_numpy(np.load(path))


class _Coder(nn.Module):
    """Pixels [n 3 S S] and noise of the latents' shape → the picture again and KL a latent number."""

    def __init__(self, model: AutoencoderKL) -> None:
        super().__init__()
        self.model = model

    def forward(self, real: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        moments = self.model.encode(real).latent_dist
        mean, log_variance = moments.mean.float(), moments.logvar.float()
        again = self.model.decode(mean + (0.5 * log_variance).exp() * noise).sample
        # KL(N(μ, σ²) ‖ N(0, 1)) = ½ · (μ² + σ² − 1 − log σ²)
        return again, 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()


def _model(config: BuildConfig) -> AutoencoderKL:
    levels = len(config.autoencoder_channels)
    model = AutoencoderKL(
        block_out_channels=config.autoencoder_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=config.latent_channels,
        layers_per_block=1,
        norm_num_groups=1,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )
    return model.to(memory_format=torch.channels_last)


def _slope(values: Tensor, axis: int) -> Tensor:
    return values.diff(dim=axis)
