"""Loading a text-to-image pipeline: safetensors only, on the device, in the precision that suits it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from gen2real.errors import ModelError
from gen2real.files import digest, read_json, sha256_of
from gen2real.generation.settings import SCHEDULERS, GeneratorSettings
from gen2real.pipelines import libraries_quiet, load_pipeline, pipeline_folder
from gen2real.training.memory import keep_freed_memory

_DEFAULT_STEPS = 20
# Their published step counts are 50 and more; DPM-Solver++ needs a fraction of that. A distilled model's scheduler
# (LCM, TCD, Euler with trailing steps) and a flow's belong to it and stay.
_SLOW = {"PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "LMSDiscreteScheduler", "DEISMultistepScheduler"}
_CONTENT = {".safetensors", ".json", ".txt", ".model"}
_PACKAGES = ("gen2real", "torch", "diffusers", "transformers")
# What of a denoiser's inputs it computes with; times, sizes and positions must keep their precision.
_COMPUTED = {"sample", "hidden_states", "encoder_hidden_states", "pooled_projections", "timestep_cond", "text_embeds"}


@dataclass(frozen=True)
class Generator:
    """A pipeline that is ready to draw, and everything about it that a manifest's row says.

    content: SHA-256 over the names and bytes of its files. revision: a hub repository's commit.
    encodes: whether prompts are encoded once and given as embeddings; else the pipeline gets plain text.
    """

    pipeline: Any
    name: str
    revision: str | None
    content: str
    scheduler: str
    steps: int
    guidance: float | None
    negative_prompt: str
    width: int
    height: int
    device: torch.device
    dtype: str
    encodes: bool

    @property
    def provenance(self) -> dict[str, Any]:
        """The columns of the manifest that all its pictures share."""
        return {
            "generator": self.name,
            "generator_revision": self.revision,
            "generator_sha256": self.content,
            "negative_prompt": self.negative_prompt,
            "guidance": self.guidance,
            "scheduler": self.scheduler,
            "steps": self.steps,
            "width": self.width,
            "height": self.height,
            "dtype": self.dtype,
            "versions": _versions(),
        }


def load_generator(
    settings: GeneratorSettings, *, device: str = "auto", dtype: str = "auto", local_rank: int = 0
) -> Generator:
    """The pipeline of `settings` on `device`, its denoiser in `dtype`.

    On a GPU, auto is bfloat16 (float16 where there is none); on a CPU, bfloat16 where it has instructions for it, and
    float32 elsewhere. On a CPU only the denoiser is cast, which does nearly all the work; latents, scheduler and
    decoder stay in float32. A decoder whose config says `force_upcast` decodes in float32 on any device.

    Raises: ModelError where there is no such pipeline, where it has no safetensors, where a package is missing that it
        needs, or where it takes no text.
    """
    folder, revision = pipeline_folder(settings.name, settings.revision)
    place = _device(device, local_rank)
    kind = _dtype(dtype, place)
    pipeline = load_pipeline(folder, torch.float32 if place.type == "cpu" else kind, settings.name)
    return _made_ready(pipeline, settings, place, kind, content=content_of(folder), revision=revision)


def generator_in_memory(
    pipeline: Any, settings: GeneratorSettings, *, content: str, device: torch.device, dtype: str = "auto"
) -> Generator:
    """A pipeline put together from modules in memory (a model in training), made ready as `load_generator` does.

    Args:
        pipeline: its denoiser is cast and its scheduler replaced, so give it a copy of what is still to be trained;
            its other parts stay on `device` and in their precision.
        settings: `name` is for people. content: what stands for the files' hash.
    """
    return _made_ready(pipeline, settings, device, _dtype(dtype, device), content=content, revision=None)


def denoiser_dtype(device: torch.device) -> torch.dtype:
    """What `auto` is on a device: see `load_generator`."""
    return _dtype("auto", device)


def _made_ready(
    pipeline: Any,
    settings: GeneratorSettings,
    place: torch.device,
    kind: torch.dtype,
    *,
    content: str,
    revision: str | None,
) -> Generator:
    takes = inspect.signature(type(pipeline).__call__).parameters
    if "prompt" not in takes or ("image" in takes and takes["image"].default is inspect.Parameter.empty):
        raise ModelError(
            f"{settings.name} is a {type(pipeline).__name__}, which does not draw from text alone. Give a "
            "text-to-image pipeline, such as a StableDiffusionPipeline."
        )
    pipeline.set_progress_bar_config(disable=True)
    encodes = _encodes(pipeline, takes)
    if place.type == "cpu":
        keep_freed_memory()
    with libraries_quiet():
        _place(pipeline, place, kind, encodes)
    name = _schedule(pipeline, settings)
    steps = settings.steps or (_DEFAULT_STEPS if settings.scheduler == "auto" and name == "dpm++" else None)
    height, width = _size(pipeline, settings, takes)
    return Generator(
        pipeline=pipeline,
        name=settings.name,
        revision=revision,
        content=content,
        scheduler=type(pipeline.scheduler).__name__ if name == "native" else name,
        steps=steps or int(_default(takes, "num_inference_steps", _DEFAULT_STEPS)),
        guidance=settings.guidance if settings.guidance is not None else _default(takes, "guidance_scale", None),
        negative_prompt=settings.negative_prompt,
        width=width,
        height=height,
        device=place,
        dtype=str(kind).removeprefix("torch."),
        encodes=encodes,
    )


@cache
def _versions() -> str:
    return " ".join(f"{package}={version(package)}" for package in _PACKAGES)


def content_of(folder: Path) -> str:
    """Hex SHA-256 over the names and bytes of the files that a pipeline loads from a folder.

    Notes beside them do not count, nor do single-file checkpoints and variants such as `model.fp16.safetensors`, which
    a hub repository's folder in the cache may hold or not.
    """
    index = folder / "model_index.json"
    parts = [folder / name for name in read_json(index) if not name.startswith("_")]
    found = [path for part in parts for path in part.rglob("*") if path.is_file() and path.suffix in _CONTENT]
    files = [index, *sorted(path for path in found if path.suffix != ".safetensors" or "." not in path.stem)]
    return digest([[path.relative_to(folder).as_posix(), sha256_of(path)] for path in files])


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", local_rank % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"{name!r} is no device; give cpu, cuda, cuda:1 or mps.") from error


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu":
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
        return torch.bfloat16 if native else torch.float32
    return torch.float16


def _encodes(pipeline: Any, takes: Mapping[str, Any]) -> bool:
    """Whether `encode_prompt` gives what the pipeline takes as embeddings, in one of the two usual orders."""
    if not hasattr(pipeline, "encode_prompt") or "prompt_embeds" not in takes:
        return False
    asks = inspect.signature(pipeline.encode_prompt).parameters
    masks = any("mask" in name for name in takes)
    return not masks and {"prompt", "device", "num_images_per_prompt", "do_classifier_free_guidance"} <= set(asks)


def _place(pipeline: Any, device: torch.device, kind: torch.dtype, encodes: bool) -> None:
    """Moves a pipeline to its device, and each part to its precision."""
    pipeline.to(device)
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    if not encodes or denoiser is None:
        pipeline.to(kind)
    elif kind != torch.float32:
        denoiser.to(kind)
        _casts(denoiser, kind)
    vae = getattr(pipeline, "vae", None)
    if vae is not None:
        if device.type == "cpu" or (kind == torch.float16 and getattr(vae.config, "force_upcast", False)):
            vae.to(torch.float32)
        _decodes_in_own_dtype(vae)


def _casts(denoiser: nn.Module, kind: torch.dtype) -> None:
    """Makes a denoiser take and give float32 and compute in `kind`: latents and the scheduler's sums keep precision."""

    def cast(value: Any) -> Any:
        return value.to(kind) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    def before(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        named = {key: cast(value) if key in _COMPUTED else value for key, value in named.items()}
        if isinstance(named.get("added_cond_kwargs"), dict):
            more = named["added_cond_kwargs"]
            named["added_cond_kwargs"] = {key: cast(one) if key in _COMPUTED else one for key, one in more.items()}
        return (*map(cast, given[:1]), *given[1:]), named

    def after(_: nn.Module, given: tuple[Any, ...], made: Any) -> Any:
        if isinstance(made, tuple):
            return tuple(one.float() if isinstance(one, torch.Tensor) else one for one in made)
        made.sample = made.sample.float()
        return made

    denoiser.register_forward_pre_hook(before, with_kwargs=True)
    denoiser.register_forward_hook(after)


def _decodes_in_own_dtype(vae: Any) -> None:
    """Latents come in the pipeline's dtype; diffusers does not cast them to the decoder's."""
    decode = vae.decode
    vae.decode = lambda latents, *given, **named: decode(latents.to(vae.dtype), *given, **named)


def _schedule(pipeline: Any, settings: GeneratorSettings) -> str:
    """Puts the scheduler in its place; gives its name in `SCHEDULERS`, or "native", or its class's name."""
    own = type(pipeline.scheduler).__name__
    name = settings.scheduler
    if name == "auto":
        # Euler comes with Stable Diffusion XL, and with trailing steps with what was distilled from it.
        is_slow = own in _SLOW or (
            own == "EulerDiscreteScheduler" and pipeline.scheduler.config.get("timestep_spacing") != "trailing"
        )
        name = "dpm++" if is_slow else "native"
    if name == "native":
        return name
    class_name = SCHEDULERS.get(name, name)
    found = getattr(diffusers, class_name, None)
    if found is None:
        raise ModelError(f"diffusers has no scheduler {class_name}; give one of {', '.join(SCHEDULERS)}.")
    if own.startswith("FlowMatch") != class_name.startswith("FlowMatch") and name in SCHEDULERS:
        raise ModelError(
            f"{settings.name} is a flow (its scheduler is {own}), which {class_name} does not integrate. Leave the "
            "scheduler out, or name a flow's: --scheduler FlowMatchEulerDiscreteScheduler"
        )
    more = {"algorithm_type": "sde-dpmsolver++" if name == "dpm++sde" else "dpmsolver++"} if "dpm++" in name else {}
    with libraries_quiet():
        pipeline.scheduler = found.from_config(pipeline.scheduler.config, **more)
    return name


def _size(pipeline: Any, settings: GeneratorSettings, takes: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width): as asked, else what the pipeline draws by itself."""
    whole = getattr(pipeline, "default_sample_size", None)
    denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    sample = whole or getattr(getattr(denoiser, "config", None), "sample_size", None)
    scale = getattr(pipeline, "vae_scale_factor", 1)
    high, wide = sample if isinstance(sample, (tuple, list)) else (sample, sample)
    asked = settings.height, settings.width
    if None in (high, wide) and None in asked:
        raise ModelError(f"{settings.name} does not say how large it draws; give --size, for example --size 512")
    return asked[0] or int(high) * scale, asked[1] or int(wide) * scale


def _default(takes: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    parameter = takes.get(name)
    known = parameter is not None and parameter.default not in (None, inspect.Parameter.empty)
    return parameter.default if known and parameter is not None else otherwise
