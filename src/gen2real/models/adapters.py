"""LoRA on any image tower, through peft: transformers' separate q, k, v projections, plain linear layers, convolutions.

W' = W + (α/r)·B·A with B zero at the start (Hu et al. 2022, equation 3), so step 0 is the original model exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gen2real.errors import ModelError
from gen2real.files import atomic_folder, read_tensors, write_tensors
from gen2real.models.dual_encoder import refuse_to_replace

ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
_ADAPTER = "default"


def adaptable(module: nn.Module) -> list[str]:
    """The names of the layers LoRA can adapt: linear layers and convolutions in two dimensions without groups.

    The projection inside `nn.MultiheadAttention` is left out: that module reads its weight and never calls it.
    """
    hidden = {
        f"{name}.{child}" if name else child
        for name, parent in module.named_modules()
        if isinstance(parent, nn.MultiheadAttention)
        for child, _ in parent.named_modules()
    }
    return [name for name, layer in module.named_modules() if name and name not in hidden and _can_adapt(layer)]


def default_targets(module: nn.Module) -> list[str]:
    """What `add_lora` adapts by default: the attention's q, k, v and output projections, or every adaptable layer where
    there are none by these names."""
    names = adaptable(module)
    return [name for name in names if name.rpartition(".")[2] in ATTENTION_PROJECTIONS] or names


def add_lora(
    module: nn.Module,
    *,
    rank: int,
    alpha: float | int,
    dropout: float | int = 0.0,
    targets: Sequence[str] | None = None,
) -> nn.Module:
    """Puts LoRA layers into `module`, in place, and freezes everything else; returns the same module.

    Args:
        rank: r, at least 1. alpha: the update is scaled by alpha / rank. dropout: of the adapter's input, in training.
        targets: whole names inside `module`, last parts of names ("q_proj"), or patterns ("*.mlp.*"); `default_targets`
            where None.

    Raises: ModelError for targets that match nothing (the layers there are get listed), for a module that has adapters
        already, and for a rank below 1.
    """
    from peft import LoraConfig, inject_adapter_in_model

    from gen2real.models.lora_linear import make_lean

    if rank < 1:
        raise ModelError(f"rank must be at least 1; got {rank}.")
    if lora_layers(module):
        raise ModelError("the module has LoRA layers already; call merge_lora(module) first.")
    chosen = default_targets(module) if targets is None else matching(module, targets)
    if not chosen:
        raise ModelError("the module has no linear layer and no convolution that LoRA could adapt.")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=float(dropout), target_modules=chosen, bias="none")
    was_training = module.training
    inject_adapter_in_model(config, module, adapter_name=_ADAPTER)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    return make_lean(module).train(was_training)


def merge_lora(module: nn.Module) -> nn.Module:
    """Adds each LoRA update to its weight and takes the LoRA layers out, in place; returns the same module.

    The state dict has its original keys again, and every parameter may be trained.

    Raises: ModelError where there is nothing to merge.
    """
    layers = lora_layers(module)
    if not layers:
        raise ModelError("the module has no LoRA layers to merge.")
    for name, layer in layers:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, layer.get_base_layer())
    vars(module).pop("peft_config", None)
    return module.requires_grad_(True)


def save_adapter(module: nn.Module, folder: str | Path) -> None:
    """Writes the LoRA layers as a peft adapter (adapter_config.json, adapter_model.safetensors).

    For an image tower of transformers, `peft.PeftModel.from_pretrained(CLIPModel…, folder)` loads it.

    Raises: ModelError where the module has no LoRA layers, or `folder` holds something else.
    """
    from peft import get_peft_model_state_dict

    if not lora_layers(module):
        raise ModelError("the module has no LoRA layers to save; call add_lora first.")
    target = Path(folder)
    if not (target / "adapter_config.json").is_file():
        refuse_to_replace(target)
    config: Any = module.peft_config
    state = get_peft_model_state_dict(module, adapter_name=_ADAPTER)
    with atomic_folder(target) as partial:
        config[_ADAPTER].save_pretrained(str(partial))
        # peft counts from its own wrapper, which is not here.
        named = {f"base_model.model.{name}": tensor for name, tensor in state.items()}
        write_tensors(partial / "adapter_model.safetensors", named, {"format": "pt"})


def load_adapter(module: nn.Module, folder: str | Path) -> nn.Module:
    """Puts the LoRA layers of a peft adapter's folder into `module`, in place; returns the same module.

    Raises: ModelError where the adapter is not whole, is a pickle, is not LoRA or does not fit the module.
    """
    from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict

    source = Path(folder)
    missing = [n for n in ("adapter_config.json", "adapter_model.safetensors") if not (source / n).is_file()]
    if missing:
        raise ModelError(f"{source} is not a whole peft adapter: it has no {' and no '.join(missing)}.")
    config = PeftConfig.from_pretrained(str(source))
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise ModelError(f"{source} is an adapter of the type {config.peft_type}; gen2real reads LoRA.")
    state = {
        name.removeprefix("base_model.model."): t
        for name, t in read_tensors(source / "adapter_model.safetensors").items()
    }
    try:
        # The layers begin as random numbers; loading must not change what a run draws afterwards.
        with torch.random.fork_rng(devices=[]):
            inject_adapter_in_model(config, module, adapter_name=_ADAPTER)
        report = set_peft_model_state_dict(module, state, adapter_name=_ADAPTER)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"the adapter in {source} does not fit the image tower: {error}") from error
    lost = [name for name in report.missing_keys if ".lora_" in name]
    if lost or report.unexpected_keys:
        odd = ", ".join([*lost, *report.unexpected_keys][:10])
        raise ModelError(f"the adapter in {source} does not fit the image tower; missing or unexpected: {odd}")
    return module.eval()


def _can_adapt(layer: nn.Module) -> bool:
    # A convolution of a class of its own has a constructor of its own, which peft cannot call.
    return isinstance(layer, nn.Linear) or (type(layer) is nn.Conv2d and layer.groups == 1)


def matching(module: nn.Module, targets: Sequence[str], *, where: str = "the image tower") -> list[str]:
    """The names of the layers inside `module` that LoRA targets mean. `where`: what the module is, for people.

    Raises: ModelError for a target that matches nothing; the layers there are get listed.
    """
    if isinstance(targets, str):
        raise ModelError(f"targets is a list of names; got the string {targets!r}. Write [{targets!r}].")
    names = adaptable(module)
    found: dict[str, None] = {}
    for target in targets:
        matched = [n for n in names if n == target or n.endswith(f".{target}") or fnmatchcase(n, target)]
        if not matched:
            endings = sorted({name.rpartition(".")[2] for name in names})
            shown = "\n  ".join(names[:40]) + (f"\n  … and {len(names) - 40} more" if len(names) > 40 else "")
            raise ModelError(
                f"no layer of {where} matches the LoRA target {target!r}. "
                f"The endings are {', '.join(endings)}; the layers are:\n  {shown}"
            )
        found.update(dict.fromkeys(matched))
    return list(found)


def lora_layers(module: nn.Module) -> list[tuple[str, Any]]:
    """Every LoRA layer (peft's) inside `module` with its name; empty where there are none."""
    from peft.tuners.lora import LoraLayer

    return [(name, layer) for name, layer in module.named_modules() if isinstance(layer, LoraLayer)]


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Within, `module` is as it was before its LoRA layers, bit for bit; afterwards they count again."""
    layers = [layer for _, layer in lora_layers(module)]
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
