"""Tuning a multimodal model by LoRA, and the folder that keeps what was tuned.

adapter_config.json, adapter_model.safetensors    LoRA on the language model, a peft adapter for the base model
projector.safetensors                             the projector by its names in the base model, where it was trained
shift.safetensors                                 ΔW of the image tower for generated pictures, where it was aligned
head.safetensors                                  the retrieval head, where it was taught to embed
gen2real.json, README.md                          the base model's name, what made it, and the model card

With the base model at hand that is all there is: a hundredth of its size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gen2real.errors import ModelError
from gen2real.files import atomic_folder, read_json, read_tensors, write_json, write_tensors
from gen2real.models.adapters import add_lora, load_adapter, lora_layers, matching, merge_lora, save_adapter
from gen2real.models.card import plain_text
from gen2real.models.dual_encoder import checkpointing_switch, refuse_to_replace
from gen2real.models.hub_loading import without_progress_bars
from gen2real.models.multimodal import Dtype, MultimodalModel, load_base
from gen2real.models.retrieval_head import load_head, save_head

FORMAT_VERSION = 1
PROJECTOR_FILE, SHIFT_FILE = "projector.safetensors", "shift.safetensors"


def make_trainable(
    model: MultimodalModel,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    projector: Literal["full", "frozen"] = "full",
) -> None:
    """Puts LoRA into the language model and thaws the projector, in place; all else, the image tower too, is frozen.

    What is trained is kept in float32, whatever the base model's precision.

    Args:
        targets: last parts of names of the language model's layers, or patterns; see `add_lora`.
        projector: whether the modules between image tower and language model are trained.

    Raises: ModelError for targets that match nothing.
    """
    inside = next(name for name, module in model.model.named_modules() if module is model.language_model)
    chosen = [f"{inside}.{name}" for name in matching(model.language_model, targets, where="the language model")]
    add_lora(model.model, rank=rank, alpha=alpha, dropout=dropout, targets=chosen)
    if projector == "full":
        for name in model.projectors:
            model.model.get_submodule(name).requires_grad_(True)
    for parameter in model.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def checkpoint_activations(model: MultimodalModel) -> None:
    """Makes training keep fewer activations and compute them again. Raises: ModelError where the model cannot."""
    switch = checkpointing_switch(model.model, enable=True)
    if switch is None:
        raise ModelError(f"{model.name} cannot train with gradient checkpointing; leave it out.")
    # The re-entrant kind needs inputs with a gradient, which frozen embeddings do not have.
    switch({"use_reentrant": False})


def save_multimodal(
    folder: str | Path, model: MultimodalModel, *, made_by: Mapping[str, Any], findings: str = ""
) -> None:
    """Writes what was tuned in one step; `load_multimodal(folder)` gives the same answers with the base model alone.

    Args:
        folder: new, empty, or an older model folder, which is replaced.
        made_by: what made it (config, versions, seeds, data fingerprints), as JSON; it becomes gen2real.json.
        findings: Markdown for the model card.

    Raises: ModelError where the model has no LoRA layers, or `folder` holds something that is not a model.
    """
    target = Path(folder)
    refuse_to_replace(target)
    thawed = {
        f"{name}.{key}": parameter
        for name in model.projectors
        for key, parameter in model.model.get_submodule(name).named_parameters()
        if parameter.requires_grad
    }
    base = {"name": _lasting(model.name), "revision": model.revision}
    with atomic_folder(target) as partial:
        save_adapter(model.model, partial)
        described = read_json(partial / "adapter_config.json")
        write_json(partial / "adapter_config.json", {**described, "base_model_name_or_path": base["name"]})
        if thawed:
            write_tensors(partial / PROJECTOR_FILE, thawed)
        if model.shift:
            write_tensors(partial / SHIFT_FILE, model.shift)
        save_head(partial, model.head)
        stored = {"version": FORMAT_VERSION, "kind": "multimodal", "base": base, "made_by": dict(made_by)}
        write_json(partial / "gen2real.json", stored)
        (partial / "README.md").write_text(
            _card(target.name, base, stored, findings, projector=bool(thawed), head=model.head is not None),
            encoding="utf-8",
        )


def load_tuned(folder: Path, *, dtype: Dtype = "float32", base: str | Path | None = None) -> MultimodalModel:
    """What `save_multimodal` wrote; `load_multimodal` comes here.

    Raises: ModelError where the base model is not found, the format is newer, or the parts do not fit each other.
    """
    stored = read_json(folder / "gen2real.json")
    if stored["version"] != FORMAT_VERSION:
        raise ModelError(
            f"{folder} has the format version {stored['version']!r}; this gen2real reads {FORMAT_VERSION}. "
            "Install the gen2real that wrote it."
        )
    name = str(base or stored["base"]["name"])
    try:
        model = load_base(name, revision=None if base else stored["base"]["revision"], dtype=dtype)
    except ModelError as error:
        raise ModelError(f"{folder} was tuned from {name}, which cannot be loaded: {error}") from error
    load_adapter(model.model, folder)
    model.model.requires_grad_(False)
    parameters = dict(model.model.named_parameters())
    projector = read_tensors(folder / PROJECTOR_FILE) if (folder / PROJECTOR_FILE).is_file() else {}
    shift = read_tensors(folder / SHIFT_FILE) if (folder / SHIFT_FILE).is_file() else {}
    own = dict(model.vision.named_parameters())
    for known, tensors in ((parameters, projector), (own, shift)):
        if odd := [n for n, t in tensors.items() if n not in known or known[n].shape != t.shape]:
            raise ModelError(f"{folder} does not fit its base model {name}: {', '.join(odd[:5])}")
    for key, value in projector.items():
        parameters[key].data = value
    for key, parameter in parameters.items():
        if ".lora_" in key:
            parameter.data = parameter.data.float()
    model.shift, model.head, model.made_by = shift, load_head(folder, model.width), stored["made_by"]
    return model


def merge(model: MultimodalModel) -> MultimodalModel:
    """Adds the LoRA updates to the weights and takes the layers out, in place; returns the same model.

    Raises: ModelError where there is nothing to merge.
    """
    merge_lora(model.model)
    model.model.requires_grad_(False)
    return model


def save_whole(folder: str | Path, model: MultimodalModel, *, made_by: Mapping[str, Any] | None = None) -> None:
    """Writes a merged model in the hub's layout with its processor; stock transformers loads it.

    Raises: ModelError where LoRA layers are not merged, or `folder` holds something that is not a model.
    """
    if lora_layers(model.model):
        raise ModelError("the model holds LoRA layers; call merge(model) before it is saved as a whole.")
    target = Path(folder)
    refuse_to_replace(target)
    with atomic_folder(target) as partial, without_progress_bars():
        model.model.save_pretrained(partial)
        model.processor.save_pretrained(partial)
        save_head(partial, model.head)
        stored = {"version": FORMAT_VERSION, "kind": "multimodal-merged", "made_by": dict(made_by or model.made_by)}
        write_json(partial / "gen2real.json", stored)


def _lasting(name: str) -> str:
    """A folder's whole path, so that the adapter finds its base from anywhere; a hub name as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def _of_generated(made_by: Mapping[str, Any]) -> bool:
    """Whether the recipe says that generated pictures were learnt from, by the model or by its tower's alignment; not
    where it does not say what its pictures are, as with interleaved samples.
    """
    recipe = made_by.get("recipe", {})
    return recipe.get("data", {}).get("train_on") in ("generated", "mixed") or recipe.get("aligned") is not None


def _card(
    title: str, base: Mapping[str, Any], stored: Mapping[str, Any], findings: str, *, projector: bool, head: bool
) -> str:
    front = {
        "library_name": "peft",
        "pipeline_tag": "image-text-to-text",
        "tags": ["gen2real", "lora", *(["trained-on-generated-images"] if _of_generated(stored["made_by"]) else [])],
    }
    if not Path(base["name"]).exists():
        front["base_model"] = base["name"]
    # JSON is YAML, and quotes whatever needs quoting.
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", ""]
    lines += [f"# {plain_text(title)}", "", "A multimodal model tuned by LoRA; it loads with its base model.", ""]
    lines += [findings, ""] if findings else []
    use = f"{_WITH_GEN2REAL}\n\n{_EMBEDDING}" if head else _WITH_GEN2REAL
    lines += ["## Use", "", "```python", use, "```", "", "In transformers and peft alone, for answers:", ""]
    lines += ["```python", *(line for line in _WITH_PEFT if projector or "projector" not in line), "```", ""]
    made = json.dumps(stored["made_by"], indent=2, ensure_ascii=False).splitlines()
    return "\n".join([*lines, "## Made by", "", *(f"    {line}" for line in made), ""])


_WITH_GEN2REAL = """from gen2real.models import load_multimodal

print(load_multimodal("this folder").answer(["photo.jpg"], ["What is shown?"]))"""

_EMBEDDING = """from pathlib import Path

from gen2real.models import Embedder

model = load_multimodal("this folder")
embeddings = Embedder(model, model.head).embed([[Path("photo.jpg")], ["A duck on a table."]])  # of unit length"""

_WITH_PEFT = (
    "from peft import PeftModel",
    "from safetensors.torch import load_file  # the projector",
    "from transformers import AutoModelForImageTextToText",
    "",
    'model = AutoModelForImageTextToText.from_pretrained("the base model")',
    'model.load_state_dict(load_file("this folder/projector.safetensors"), strict=False)',
    'model = PeftModel.from_pretrained(model, "this folder")',
)
