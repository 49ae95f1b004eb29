"""A CLIP and a Stable Diffusion to be tuned together; with one text tower where the two fit.

In Stable Diffusion 1.x the denoiser reads with the text tower of CLIP ViT-L/14. Where a pair is of this kind the tower
is one module in both (`joint.diffusion.text_encoder is joint.encoder.text.text_model`), so that it is trained once and
saved in both folders, `model/` (a `CLIPModel`) and `generator/` (a `StableDiffusionPipeline`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from gen2real.errors import ModelError
from gen2real.files import atomic_folder, write_json
from gen2real.models.adapters import add_lora, lora_layers, matching, merge_lora
from gen2real.models.card import joint_card
from gen2real.models.diffusion import Diffusion, load_diffusion, refuse_to_replace_pipeline
from gen2real.models.dual_encoder import load_dual_encoder, refuse_to_replace
from gen2real.models.transformers_encoders import TransformersEncoder

FORMAT_VERSION = 1
KIND = "joint"
UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
# Of a text tower's config, what its states depend on besides its weights.
_ARITHMETIC = ("hidden_act", "layer_norm_eps", "num_attention_heads")
# Two copies of one tower may be stored in different precisions; bfloat16 rounds by 2⁻⁹.
_ROUNDING = 2.0**-8

Part = Literal["image", "text", "unet"]
Mode = Literal["frozen", "lora", "full"]


@runtime_checkable
class Lora(Protocol):
    """How LoRA layers are put in; `gen2real.methods.settings.LoraSettings` is one."""

    @property
    def rank(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def dropout(self) -> float: ...
    @property
    def targets(self) -> Sequence[str] | None: ...


@dataclass(frozen=True)
class Joint:
    """The two models. Everything is frozen until `tune` says otherwise.

    Attributes:
        shared: whether the denoiser reads with CLIP's text tower. why: a sentence for people.
    """

    encoder: TransformersEncoder
    diffusion: Diffusion
    shared: bool
    why: str

    def part(self, name: Part) -> nn.Module:
        """CLIP's image tower with its projection, its text tower with its projection, or the denoiser."""
        parts: dict[Part, nn.Module] = {
            "image": self.encoder.vision,
            "text": self.encoder.text,
            "unet": self.diffusion.unet,
        }
        return parts[name]

    def tune(self, name: Part, mode: Mode, lora: Lora) -> list[nn.Parameter]:
        """Freezes a part, makes all of it trainable or puts LoRA layers into it; returns what of it is trained.

        LoRA goes into the attention's projections unless `lora.targets` names others (of the denoiser to_q, to_k, to_v
        and to_out.0).

        Raises: ModelError for targets that match nothing; the layers there are get listed.
        """
        module = self.part(name)
        if mode == "lora":
            targets = lora.targets
            if name == "unet":
                targets = matching(module, targets or UNET_TARGETS, where="the denoiser")
            add_lora(module, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=targets)
        else:
            module.requires_grad_(mode == "full")
        return [parameter for parameter in module.parameters() if parameter.requires_grad]

    @property
    def states_are_fixed(self) -> bool:
        """Whether the text states that the denoiser reads stay what they are: its text encoder is not in training."""
        return not any(parameter.requires_grad for parameter in self.diffusion.text_encoder.parameters())

    def gradient_checkpointing(self) -> None:
        """Trades time for memory in all that may be trained: activations are computed again in the backward pass."""
        self.encoder.gradient_checkpointing()
        self.diffusion.unet.enable_gradient_checkpointing()

    def to(self, device: torch.device | str) -> Joint:
        """Moves both to a device, in place; the shared tower stays one."""
        self.encoder.to(device)
        self.diffusion.to(device)
        return self

    def finish(self) -> None:
        """Ends the training: LoRA layers are merged, nothing wants a gradient, both are in evaluation mode."""
        for module in (self.encoder.vision, self.encoder.text, self.diffusion.unet):
            if lora_layers(module):
                merge_lora(module)
        for whole in (self.encoder, self.diffusion):
            whole.requires_grad_(False).eval()

    def save(self, folder: str | Path, *, made_by: Mapping[str, Any] | None = None, findings: str = "") -> None:
        """Writes folder/model, a plain `CLIPModel`, and folder/generator, a plain `StableDiffusionPipeline`.

        Each is written in one step and says in its gen2real.json what made it. Where the text tower is shared it lies
        in both. `finish` comes first.

        Args:
            made_by: config, versions, seeds, data fingerprints, as JSON. findings: Markdown for the model cards.

        Raises: ModelError where LoRA layers are not merged, or where what lies there is no model.
        """
        model, generator = Path(folder) / "model", Path(folder) / "generator"
        if any(lora_layers(module) for module in (self.encoder.text, self.encoder.vision, self.diffusion.unet)):
            raise ModelError("the models hold LoRA layers; call finish() before they are saved.")
        refuse_to_replace(model)
        refuse_to_replace_pipeline(generator)
        described = {"version": FORMAT_VERSION, "kind": KIND, "made_by": dict(made_by or {})}
        wholes: dict[Literal["model", "generator"], Any] = {"model": self.encoder, "generator": self.diffusion}
        for name, whole in wholes.items():
            with atomic_folder(Path(folder) / name) as partial:
                whole.write_files(partial)
                write_json(partial / "gen2real.json", described)
                card = joint_card(name, self.why, made_by or {}, findings=findings)
                (partial / "README.md").write_text(card, encoding="utf-8")


@runtime_checkable
class Names(Protocol):
    """Which models; `gen2real.methods.unidiff.settings.ModelSettings` is one."""

    @property
    def clip(self) -> str: ...
    @property
    def generator(self) -> str: ...
    @property
    def text_encoder(self) -> Literal["auto", "shared", "separate"]: ...


def load_joint(names: Names) -> Joint:
    """Both models on the CPU, float32, frozen, in evaluation mode; one text tower if that is asked for and fits.

    auto shares where vocabulary, shapes and weights agree (weights to the rounding of a checkpoint in half precision).

    Raises: ModelError, with what to type: where either does not load, where `clip` is no CLIP of transformers, and
        where `shared` is asked for and the two do not fit; it says in what they differ.
    """
    encoder = load_dual_encoder(names.clip)
    if not isinstance(encoder, TransformersEncoder) or encoder.config.model_type != "clip":
        kind = encoder.config.model_type if isinstance(encoder, TransformersEncoder) else "a tower of your own"
        raise ModelError(
            f"{names.clip} is {kind!r}; UniDiff tunes a CLIPModel of transformers. Set models.clip to one, such as "
            '"openai/clip-vit-large-patch14", whose text tower Stable Diffusion 1.x reads with.'
        )
    diffusion = load_diffusion(names.generator)
    differing = _difference(encoder, diffusion)
    if names.text_encoder == "shared" and differing:
        raise ModelError(
            f"{names.generator} cannot read with the text tower of {names.clip}: {differing}. Set "
            "models.text_encoder=separate, or give the CLIP that the generator was trained with."
        )
    shared = names.text_encoder != "separate" and not differing
    if shared:
        diffusion.text_encoder = encoder.text.text_model
        why = "The denoiser reads with CLIP's text tower: vocabulary, shapes and weights agree."
    elif differing:
        why = f"The denoiser reads with a text encoder of its own, which stays frozen: {differing}."
    else:
        why = "The denoiser reads with a text encoder of its own, which stays frozen: the recipe says separate."
    for whole in (encoder, diffusion):
        whole.requires_grad_(False).eval()
    return Joint(encoder, diffusion, shared, why)


def _difference(encoder: TransformersEncoder, diffusion: Diffusion) -> str:
    """In what the two text encoders differ, in words; empty where one can stand for the other."""
    ours: Any = encoder.text.text_model
    theirs = diffusion.text_encoder
    if encoder.tokenizer.get_vocab() != diffusion.tokenizer.get_vocab():
        sizes = len(encoder.tokenizer.get_vocab()), len(diffusion.tokenizer.get_vocab())
        return f"their vocabularies differ (CLIP's has {sizes[0]} tokens, the generator's {sizes[1]})"
    states = ours.state_dict(), _plain_names(theirs.state_dict())
    shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in states]
    odd = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
    if odd:
        told = ", ".join(f"{name} {shapes[0].get(name, 'none')} and {shapes[1].get(name, 'none')}" for name in odd[:2])
        return f"their text encoders differ in shape ({told}{' …' if len(odd) > 2 else ''})"
    for key in _ARITHMETIC:
        if getattr(ours.config, key) != getattr(theirs.config, key):
            both = getattr(ours.config, key), getattr(theirs.config, key)
            return f"their text encoders differ in {key} ({both[0]} and {both[1]})"
    for name, value in states[0].items():
        if not torch.allclose(value, states[1][name], rtol=_ROUNDING, atol=1e-6):
            furthest = (value - states[1][name]).abs().max().item()
            return f"their text encoders differ in weights ({name} by up to {furthest:.2g})"
    return ""


def _plain_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    # transformers 4 had the tower one level deeper in CLIPTextModel.
    return {name.removeprefix("text_model."): value for name, value in state.items()}
