"""A Stable Diffusion in training: its parts as modules, and the algebra of noise that its own scheduler defines.

With ᾱ_t of the checkpoint's scheduler, clean latents x₀ and noise ε (Ho et al. 2020, equation 4; v: Salimans and Ho
2022, section 4):

    noised          z_t = √ᾱ_t·x₀ + √(1−ᾱ_t)·ε
    target          ε,  v = √ᾱ_t·ε − √(1−ᾱ_t)·x₀,  or x₀: what `prediction_type` says
    clean estimate  x̂₀ = (z_t − √(1−ᾱ_t)·ε̂)/√ᾱ_t,  √ᾱ_t·z_t − √(1−ᾱ_t)·v̂,  or x̂₀
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.files import atomic_folder, read_json
from gen2real.pipelines import INDEX, libraries_quiet, load_pipeline, pipeline_folder

with libraries_quiet():
    # It tells at once what it cannot read pictures with, which nothing here does.
    from diffusers import DDPMScheduler, StableDiffusionPipeline

Block = Literal["down", "mid", "up"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]


class Diffusion(nn.Module):
    """The parts of a `StableDiffusionPipeline`, to be trained and to be put together again.

    Attributes:
        unet: noised latents [N C h w], times [N], states [N L d] → `.sample` [N C h w].
        vae: frozen, and in evaluation mode whatever the whole is in.
        text_encoder, tokenizer: what the denoiser reads with; `text_encoder` may be shared with a CLIP.
        scheduler: the checkpoint's own, for drawing.
        prediction_type: what the denoiser predicts.
        alphas_cumprod: ᾱ, float32 [T]; its last is 0 where the scheduler has zero-terminal SNR.
        sample_size: S, pixels a side. latent_shape: (C, h, w).
        name: where it came from, for people.
    """

    alphas_cumprod: Tensor

    def __init__(self, pipeline: StableDiffusionPipeline, name: str) -> None:
        super().__init__()
        self.unet: Any = pipeline.unet
        self.vae: Any = pipeline.vae.requires_grad_(False).eval()
        self.text_encoder: Any = pipeline.text_encoder
        self.tokenizer: Any = pipeline.tokenizer
        self.scheduler: Any = pipeline.scheduler
        self.name = name
        # What takes no part in training, such as a safety checker, goes back into the folder as it came.
        self._others = {
            part: getattr(pipeline, part, None) for part in ("safety_checker", "feature_extractor", "image_encoder")
        }
        self._requires_safety_checker = bool(pipeline.config.get("requires_safety_checker", False))
        noise, self.prediction_type = _noise_of(self.scheduler, name)
        self.register_buffer("alphas_cumprod", noise, persistent=False)
        side = _side(self.unet, name)
        self.sample_size = side * 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.latent_shape = (int(self.unet.config.in_channels), side, side)

    def train(self, mode: bool = True) -> Diffusion:
        """As any module's, but the VAE stays in evaluation mode."""
        super().train(mode)
        self.vae.eval()
        return self

    @property
    def steps(self) -> int:
        """T: times are 0 … T−1, from clean to noise."""
        return len(self.alphas_cumprod)

    @property
    def context_length(self) -> int:
        """L: tokens of a text, the special ones included."""
        positions = int(self.text_encoder.config.max_position_embeddings)
        return min(int(self.tokenizer.model_max_length), positions)

    @torch.no_grad()
    def moments(self, pixels: UInt8[Tensor, "n 3 s s"]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the pictures' latents, scaled as the denoiser sees them, each [N C h w].

        mean + std·ε is a draw of the VAE's posterior.
        """
        values = pixels.to(self.vae.device, self.vae.dtype) / 127.5 - 1
        posterior = self.vae.encode(values).latent_dist
        scale = self.vae.config.scaling_factor
        return posterior.mean * scale, posterior.std * scale

    def decode(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 s s"]:
        """Pictures of scaled latents, about [-1, 1]; with gradient, and so not clamped."""
        scaled = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        decoded: Tensor = self.vae.decode(scaled, return_dict=False)[0]
        return decoded

    def noised(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], times: Integer[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """z_t = √ᾱ_t·x₀ + √(1−ᾱ_t)·ε."""
        signal, sigma = self._rates(times, clean)
        return signal * clean + sigma * noise

    def target(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], times: Integer[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """What the denoiser shall predict: ε, v = √ᾱ_t·ε − √(1−ᾱ_t)·x₀, or x₀."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return clean
        signal, sigma = self._rates(times, clean)
        return signal * noise - sigma * clean

    def clean_estimate(
        self, noised: Float[Tensor, "n c h w"], prediction: Float[Tensor, "n c h w"], times: Integer[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """x̂₀, the clean latents that a prediction amounts to; always finite.

        Where ᾱ_t = 0 noise is all there is, and a prediction of it says nothing of the picture: then 0, the mean of all
        latents.
        """
        if self.prediction_type == "sample":
            return prediction
        signal, sigma = self._rates(times, noised)
        if self.prediction_type == "v_prediction":
            return signal * noised - sigma * prediction
        inverse = torch.where(signal > 0, 1 / signal.clamp(min=torch.finfo(signal.dtype).tiny), 0)
        return (noised - sigma * prediction) * inverse

    def snr(self, times: Integer[Tensor, " n"]) -> Float[Tensor, " n"]:
        """ᾱ_t/(1−ᾱ_t), float32 [N]; 0 at the end of a schedule with zero-terminal SNR."""
        alphas = self.alphas_cumprod[times.to(self.alphas_cumprod.device)]
        return alphas / (1 - alphas)

    def ids(self, texts: Sequence[str]) -> Integer[Tensor, "n l"]:
        """Token ids [N L] as the pipeline gives them to its text encoder: padded, or cut, to L."""
        if isinstance(texts, str):
            raise ModelError(f"ids takes a list of strings; got the string {texts!r}. Write [{texts!r}].")
        found: Tensor = self.tokenizer(
            list(texts), padding="max_length", max_length=self.context_length, truncation=True, return_tensors="pt"
        )["input_ids"]
        return found

    def states(self, ids: Integer[Tensor, "n l"]) -> Float[Tensor, "n l d"]:
        """What the denoiser reads of texts, [N L d]: the text encoder's last hidden state; with gradient."""
        ids = ids.to(self.text_encoder.device)
        mask = None
        if getattr(self.text_encoder.config, "use_attention_mask", False):
            mask = (torch.cumsum(ids == self.tokenizer.eos_token_id, 1) <= 1).long()
        states: Tensor = self.text_encoder(input_ids=ids, attention_mask=mask)[0]
        return states

    def pipeline(self) -> StableDiffusionPipeline:
        """A pipeline of these very modules, to draw with or to save; its scheduler is a new one."""
        with libraries_quiet():
            return StableDiffusionPipeline(
                vae=self.vae,
                text_encoder=self.text_encoder,
                tokenizer=self.tokenizer,
                unet=self.unet,
                scheduler=type(self.scheduler).from_config(self.scheduler.config),
                requires_safety_checker=self._requires_safety_checker,
                **self._others,
            )

    def save_pipeline(self, folder: str | Path) -> None:
        """Writes a `StableDiffusionPipeline` folder in one step; stock diffusers loads it.

        Raises: ModelError where LoRA layers are not merged, or `folder` holds something that is no pipeline.
        """
        target = Path(folder)
        refuse_to_replace_pipeline(target)
        with atomic_folder(target) as partial:
            self.write_files(partial)

    def write_files(self, folder: Path) -> None:
        """Writes the pipeline's files into an existing folder; `save_pipeline` is this, made atomic."""
        from gen2real.models.adapters import lora_layers

        for part in (self.unet, self.text_encoder):
            if lora_layers(part):
                raise ModelError("the generator holds LoRA layers; merge_lora them before it is saved.")
        with libraries_quiet():
            self.pipeline().save_pretrained(str(folder), safe_serialization=True)

    def _rates(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1−ᾱ_t), each [N 1 1 1], of the dtype of `like`, at least float32."""
        alphas = self.alphas_cumprod[times.to(self.alphas_cumprod.device)].to(like.device)
        alphas = alphas.to(torch.promote_types(like.dtype, torch.float32)).reshape(-1, 1, 1, 1)
        return alphas.sqrt(), (1 - alphas).sqrt()


def load_diffusion(name_or_folder: str | Path, *, revision: str | None = None) -> Diffusion:
    """The `StableDiffusionPipeline` at a hub name, in a folder or in a finished run, float32, in evaluation mode.

    Raises: ModelError, with what to type, where there is none, where it is another pipeline, has pickles only, lacks a
        part, or where its scheduler or sizes are not those of a diffusion of square latents.
    """
    folder, _ = pipeline_folder(name_or_folder, revision)
    name = str(name_or_folder)
    kind = read_json(folder / INDEX).get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise ModelError(
            f"{name} is a {kind}; what is trained here is a StableDiffusionPipeline, as Stable Diffusion 1.x and 2.x "
            'are. Give one, such as "stable-diffusion-v1-5/stable-diffusion-v1-5".'
        )
    pipeline = load_pipeline(folder, torch.float32, name)
    absent = [part for part in ("unet", "vae", "text_encoder", "tokenizer") if getattr(pipeline, part, None) is None]
    if absent:
        raise ModelError(f"{name} has no {' and no '.join(absent)}; get the whole pipeline.")
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        for parameter in part.parameters():
            # As in hub_loading: a tensor mapped from a file starts at any byte, and products differ in the last bit.
            parameter.data = parameter.data.clone()
    # Convolutions are faster so, on the CPU as on a GPU.
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    diffusion = Diffusion(pipeline, name)
    channels = int(diffusion.vae.config.latent_channels)
    if channels != diffusion.latent_shape[0]:
        raise ModelError(
            f"{name}: its VAE gives latents of {channels} channels, its denoiser takes {diffusion.latent_shape[0]}. "
            "A pipeline for inpainting or upscaling is not trained here; give a text-to-image one."
        )
    return diffusion.eval()


class BlockFeatures:
    """What a block of a UNet gave in its last forward pass; `block_features` makes it.

    A hook on the block, so the forward pass stays the library's. The features carry their gradient, with gradient
    checkpointing as well, which is inside the blocks. Leaving the context removes the hook; the features stay.
    """

    def __init__(self, unet: nn.Module, block: Block) -> None:
        self._seen: Tensor | None = None
        self._handle = _block_of(unet, block).register_forward_hook(self._keep)

    @property
    def features(self) -> Float[Tensor, "n c h w"]:
        """[N C h w], of the last forward pass. Raises: RuntimeError where there was none."""
        if self._seen is None:
            raise RuntimeError("the UNet was not called while its block was watched")
        return self._seen

    def remove(self) -> None:
        """Takes the hook off; a second time does nothing."""
        self._handle.remove()

    def __enter__(self) -> BlockFeatures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _keep(self, _: nn.Module, given: Any, made: Any) -> None:
        # A down block gives its output and what the up blocks shall see of it.
        self._seen = made[0] if isinstance(made, tuple) else made


def block_features(unet: nn.Module, block: Block) -> BlockFeatures:
    """A hook on the deepest down block, the middle block or the first up block of a `UNet2DConditionModel`.

        with block_features(unet, "mid") as seen:
            prediction = unet(noised, times, states).sample
        seen.features                                            # [N block_channels(unet, "mid") h w]

    Raises: ModelError where the UNet has no such block.
    """
    return BlockFeatures(unet, block)


def block_channels(unet: nn.Module, block: Block) -> int:
    """C of what `block_features` gives: the deepest level's channels, which all three blocks put out.

    Raises: ModelError where the UNet has no such block.
    """
    _block_of(unet, block)
    config: Any = unet.config
    return int(config.block_out_channels[-1])


def refuse_to_replace_pipeline(folder: Path) -> None:
    """Raises ModelError where writing a pipeline to `folder` would destroy something that is no pipeline."""
    if folder.is_file():
        raise ModelError(f"{folder} is a file; give a folder for the generator.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / INDEX).is_file():
        raise ModelError(f"{folder} is not empty and holds no pipeline, so it is not replaced; give a new folder.")


def _block_of(unet: Any, block: Block) -> nn.Module:
    found = {"down": unet.down_blocks[-1], "mid": unet.mid_block, "up": unet.up_blocks[0]}[block]
    if found is None:
        raise ModelError("this denoiser has no middle block; set consistency.block=up, or down.")
    module: nn.Module = found
    return module


def _noise_of(scheduler: Any, name: str) -> tuple[Tensor, PredictionType]:
    """ᾱ as training sees it, and what is predicted."""
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ModelError(
            f"{name} has the scheduler {type(scheduler).__name__}, which is not one of a diffusion with ᾱ; what is "
            "trained here is a StableDiffusionPipeline of epsilon, v or sample prediction, no flow."
        )
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction", "sample"):
        raise ModelError(f"{name} predicts {kind!r}; gen2real trains epsilon, v_prediction and sample.")
    # Some schedulers put a small number in place of a terminal SNR of zero, to be able to draw.
    with libraries_quiet():
        alphas: Tensor = DDPMScheduler.from_config(scheduler.config).alphas_cumprod
    return alphas.detach().clone().float(), kind


def _side(unet: Any, name: str) -> int:
    size = unet.config.sample_size
    sides = set(size) if isinstance(size, (tuple, list)) else {size}
    if len(sides) != 1 or None in sides:
        raise ModelError(f"{name} draws {size} latents; gen2real trains denoisers of square ones, of a stated size.")
    return int(sides.pop())
