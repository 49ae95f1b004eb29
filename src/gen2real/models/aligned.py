"""Generated pictures as a modality of their own: one set of weights, and what is added to them for generated pictures.

GMAIL (Mo and Yun, arXiv 2602.15368, section 3): f_r is the image tower for real pictures, f_g the same tower with
LoRA for generated ones, h the text tower. Both image towers lie in one model folder:

config.json, model.safetensors, tokenizer…    f_r and h, as stock transformers loads them
generated/adapter_…                           f_g as a peft adapter on f_r; or
generated/shift.safetensors                   f_g − f_r by tensor, where f_g was tuned as a whole
real_projection.safetensors                   weight [D D], where one was trained for real pictures
gen2real.json, README.md                      what made it, and the model card

What is measured is always W + ΔW (`ShiftedTower`), in training as after loading, so that the two are equal bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from gen2real.errors import ModelError
from gen2real.files import atomic_folder, read_json, read_tensors, write_json, write_tensors
from gen2real.models.adapters import load_adapter, lora_layers, save_adapter
from gen2real.models.card import aligned_card
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder, model_inside, refuse_to_replace

FORMAT_VERSION = 1
KIND = "aligned"
GENERATED = "generated"
SHIFT_FILE = "shift.safetensors"
PROJECTION_FILE = "real_projection.safetensors"
Branch = Literal["f_r", "f_g", "projection"]


class ShiftedTower(nn.Module):
    """f_g: an image tower whose weights W are read as W + ΔW. Pixels [N 3 S S] → embeddings [N D].

    The tower is held, not copied: it may be trained (gradients reach W, ΔW stays), and it may hold LoRA layers, which
    then work on top of the shift. Without a shift, or with one of zeros, the result is the tower's own bit for bit.
    ΔW is a persistent buffer, so that caches and checkpoints tell two shifts of one tower apart.

    Args:
        tower: pixels → embeddings; only parameters can be shifted, buffers (batch-norm statistics) are the tower's.
        shift: ΔW by parameter name in the tower as it was before LoRA layers.

    Raises: ModelError for names or shapes that the tower does not have; in `forward`, where the tower is trained with
        gradient checkpointing, which computes layers again after the shift is gone.
    """

    def __init__(self, tower: nn.Module, shift: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.tower = tower
        self._name_of = _places(tower, shift)
        for name, place in self._name_of.items():
            # A buffer's name may hold no dot.
            self.register_buffer(_buffer(name), shift[name].detach().to(tower.get_parameter(place).device))

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        if not self._name_of:
            output: Tensor = self.tower(pixels)
            return output
        if self.training and torch.is_grad_enabled():
            self._refuse_checkpointing()
        parameters = dict(self.tower.named_parameters())
        # f_g(x) = f(x; W + ΔW)
        shifted = {place: parameters[place] + self.get_buffer(_buffer(name)) for name, place in self._name_of.items()}
        return functional_call(self.tower, shifted, (pixels,))

    def extra_repr(self) -> str:
        """How many tensors are shifted; their names are in the state dict."""
        return f"shifted: {len(self._name_of)} tensors"

    def _refuse_checkpointing(self) -> None:
        if any(getattr(module, "gradient_checkpointing", False) is True for module in self.tower.modules()):
            raise ModelError(
                "gradient checkpointing computes layers again in the backward pass, when the shift of the weights is "
                "gone, and the gradients would be wrong. Train without it (training.gradient_checkpointing=false), or "
                "let generated pictures go through f_r (encoder.generated_through=f_r)."
            )


class TwoBranches(nn.Module):
    """Both image towers over one set of weights: each row of a batch goes through its own, and the order stays."""

    def __init__(self, tower: nn.Module, shift: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.shifted = ShiftedTower(tower, shift)

    @property
    def tower(self) -> nn.Module:
        """f_r, whose weights both share."""
        return self.shifted.tower

    def forward(self, pixels: Float[Tensor, "n 3 h w"], generated: Bool[Tensor, " n"]) -> Float[Tensor, "n dim"]:
        """Embeddings [N D]: f_g of the rows that are generated, f_r of the others."""
        if bool(generated.all()):
            return self.shifted(pixels)
        if not bool(generated.any()):
            return self.tower(pixels)
        order = torch.argsort(generated.long(), stable=True)
        real, drawn = self.tower(pixels[~generated]), self.shifted(pixels[generated])
        return torch.cat([real, drawn])[order.argsort()]


class ProjectedTower(nn.Module):
    """A tower whose embeddings are mapped by a square matrix P [D D]: pixels [N 3 S S] → f(x) · Pᵀ [N D]."""

    weight: Tensor

    def __init__(self, tower: nn.Module, weight: Float[Tensor, "dim dim"]) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("weight", weight.detach())

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        output: Tensor = self.tower(pixels)
        return output @ self.weight.T


@dataclass(frozen=True)
class Aligned:
    """Image towers for real and for generated pictures, and a text tower, in one space.

    Attributes:
        encoder: f_r as `encoder.vision`, and h, which may have been tuned.
        shift: ΔW by parameter name inside `encoder.vision`: (α/r)·B·A of LoRA, W_g − W_r of full tuning; empty where
            there is no tower of its own for generated pictures.
        real_projection: [D D], or None where none was trained.
        made_by: what made it (recipe, seeds, data), as JSON.
    """

    encoder: DualEncoder
    shift: dict[str, Tensor] = field(default_factory=dict)
    real_projection: Tensor | None = None
    made_by: dict[str, Any] = field(default_factory=dict)

    def tower(self, branch: Branch) -> nn.Module:
        """The image tower of a branch, pixels [N 3 S S] → [N D], sharing the encoder's weights.

        f_r: the encoder's own. f_g: with the shift; without one it is f_r. projection: f_r, then the real projection.

        Raises: ModelError for the projection where none was trained.
        """
        if branch != "projection":
            return shifted_tower(self.encoder.vision, self.shift if branch == "f_g" else {})
        if self.real_projection is None:
            raise ModelError(
                f"{self.encoder.name} has no projection for real pictures. Align with real_projection: true, or send "
                "real pictures through f_r or f_g."
            )
        return ProjectedTower(self.encoder.vision, self.real_projection).eval()


def shifted_tower(vision: nn.Module, shift: Mapping[str, Tensor]) -> nn.Module:
    """The tower with its weights read as W + ΔW, in the mode it is in; without a shift `vision` itself."""
    return ShiftedTower(vision, shift).train(vision.training) if shift else vision


def shift_of(tower: nn.Module) -> dict[str, Tensor]:
    """ΔW = (α/r)·B·A (Hu et al. 2022, equation 3) of every LoRA layer, by the name of the weight it is added to.

    On the CPU, as when the adapter is loaded from its file: a product's last bit depends on where it is computed.

    Raises: ModelError where the tower has no LoRA layers, or they are merged already.
    """
    layers = lora_layers(tower)
    if not layers or any(layer.merged for _, layer in layers):
        raise ModelError("the tower has no LoRA layers that are not merged; take their shift before merge_lora.")
    with torch.no_grad():
        return {
            f"{name}.weight": copy.deepcopy(layer).cpu().get_delta_weight(layer.active_adapters[0]).detach().clone()
            for name, layer in layers
        }


def difference(generated: nn.Module, real: nn.Module) -> dict[str, Tensor]:
    """ΔW = W_g − W_r of the parameters that differ between two towers of one architecture.

    Raises: ModelError where their keys, shapes or buffers differ: a buffer (batch-norm statistics) cannot be shifted.
    """
    own, other = real.state_dict(), generated.state_dict()
    shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in (own, other)]
    if differing := sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()}):
        raise ModelError(f"the two towers are not of one architecture; these differ: {', '.join(differing[:20])}")
    changed = [name for name in own if not torch.equal(own[name].cpu(), other[name].cpu())]
    parameters = {name for name, _ in real.named_parameters(remove_duplicate=False)}
    if moved := [name for name in changed if name not in parameters]:
        raise ModelError(
            f"the tower for generated pictures has other buffers than the one for real ones ({', '.join(moved[:5])}), "
            "and only parameters can be shifted. Keep batch-norm statistics as they are: freeze_batch_norm: true."
        )
    return {name: other[name].detach().cpu() - own[name].detach().cpu() for name in changed}


def save_aligned(
    folder: str | Path,
    encoder: DualEncoder,
    generated: nn.Module | Mapping[str, Tensor],
    *,
    real_projection: Tensor | None = None,
    made_by: Mapping[str, Any],
    findings: str = "",
) -> None:
    """Writes an aligned model folder in one step; `load_aligned` gives the same embeddings back bit for bit.

    Args:
        folder: new, empty, or an older model folder, which is replaced.
        encoder: f_r and h, both plain (a tuned text tower is merged first).
        generated: the tower f_g: with LoRA layers, which become a peft adapter, or of the encoder's own architecture;
            or ΔW by parameter name.
        real_projection: [D D], applied to embeddings of real pictures as f(x) · Pᵀ.
        made_by: what made it (config, versions, seeds, data fingerprints), as JSON; it becomes gen2real.json.
        findings: Markdown for the model card.

    Raises: ModelError where the towers do not fit each other, or `folder` holds something that is not a model.
    """
    target, lora = Path(folder), isinstance(generated, nn.Module) and bool(lora_layers(generated))
    shift: Mapping[str, Tensor] = {}
    if isinstance(generated, nn.Module):
        shift = {} if lora else difference(generated, encoder.vision)
    else:
        shift = generated
        _places(encoder.vision, shift)
    dim = encoder.embedding_dim
    if real_projection is not None and tuple(real_projection.shape) != (dim, dim):
        raise ModelError(f"real_projection has the shape {tuple(real_projection.shape)}; expected ({dim}, {dim}).")
    refuse_to_replace(target)
    with atomic_folder(target) as partial:
        encoder.write_files(partial)
        if lora:
            assert isinstance(generated, nn.Module)
            save_adapter(generated, partial / GENERATED)
        else:
            (partial / GENERATED).mkdir()
            write_tensors(partial / GENERATED / SHIFT_FILE, shift)
        if real_projection is not None:
            write_tensors(partial / PROJECTION_FILE, {"weight": real_projection})
        write_json(partial / "gen2real.json", {"version": FORMAT_VERSION, "kind": KIND, "made_by": dict(made_by)})
        card = aligned_card(
            encoder, made_by, target.name, adapter=lora, projected=real_projection is not None, findings=findings
        )
        (partial / "README.md").write_text(card, encoding="utf-8")


def load_aligned(folder_or_run: str | Path) -> Aligned:
    """What `save_aligned` wrote, in evaluation mode: a model folder, or the folder of the run that made it.

    Raises: ModelError, with what to type, where there is none, where it is a classifier or a plain encoder, is of a
        newer format, or its parts do not fit each other.
    """
    folder = model_inside(Path(folder_or_run).expanduser())
    if not is_aligned(folder):
        raise ModelError(_not_aligned(Path(folder_or_run), folder))
    stored = read_json(folder / "gen2real.json")
    if stored["version"] != FORMAT_VERSION:
        raise ModelError(
            f"{folder} has the format version {stored['version']!r}; this gen2real reads {FORMAT_VERSION}. "
            "Install the gen2real that wrote it."
        )
    encoder = load_dual_encoder(folder)
    plain = folder / GENERATED / SHIFT_FILE
    if plain.is_file():
        # A tensor mapped from a safetensors file starts at any byte; sums of it do not depend on that, products do.
        shift = {name: value.clone() for name, value in read_tensors(plain).items()}
    else:
        shift = shift_of(load_adapter(copy.deepcopy(encoder.vision), folder / GENERATED))
    _places(encoder.vision, shift)
    projection = folder / PROJECTION_FILE
    real_projection = read_tensors(projection)["weight"].clone() if projection.is_file() else None
    return Aligned(encoder, shift, real_projection, stored["made_by"])


def is_aligned(folder_or_run: str | Path) -> bool:
    """Whether there is an aligned model: in a model folder, or in a run's folder."""
    described = model_inside(Path(folder_or_run).expanduser()) / "gen2real.json"
    return described.is_file() and read_json(described).get("kind") == KIND


def _not_aligned(given: Path, folder: Path) -> str:
    if not given.exists():
        return (
            f"there is no folder {given}. Give the folder of an alignment run: gen2real train recipes/gmail/align.yaml."
        )
    if (folder / "head.safetensors").is_file():
        return (
            f"{given} is a classifier, not an aligned encoder: it has one image tower for all pictures. To start from "
            f"its image tower, name it as the encoder: encoder.name={folder} (and leave out encoder.init)."
        )
    if (folder / "config.json").is_file() or (folder / "towers.json").is_file():
        return (
            f"{given} is a dual encoder with one image tower for all pictures, not an aligned one; name it as the "
            f"encoder: encoder.name={folder} (and leave out encoder.init)."
        )
    if (given / "recipe.json").is_file():
        return (
            f"{given} is a run without a model: it has not ended, or was told save_model: false. Run its recipe again."
        )
    return f"{given} holds no aligned model. Give the folder of a finished run of method: gmail, or its model folder."


def _places(tower: nn.Module, shift: Mapping[str, Tensor]) -> dict[str, str]:
    """Each shifted name → its parameter's name in the tower, which LoRA layers put one level deeper."""
    shapes = {name: tuple(value.shape) for name, value in tower.named_parameters()}
    found, faults = {}, []
    for name, value in shift.items():
        layer, _, last = name.rpartition(".")
        place = next((known for known in (name, f"{layer}.base_layer.{last}") if known in shapes), None)
        if place is None or shapes[place] != tuple(value.shape):
            faults.append(
                f"{name} {tuple(value.shape)}" + ("" if place is None else f" (the tower's: {shapes[place]})")
            )
        else:
            found[name] = place
    if faults:
        listed = "\n  ".join(faults[:10]) + (f"\n  … and {len(faults) - 10} more" if len(faults) > 10 else "")
        raise ModelError(f"the shift does not fit the image tower, which has no such parameters:\n  {listed}")
    return found


def _buffer(name: str) -> str:
    return name.replace(".", "/")
