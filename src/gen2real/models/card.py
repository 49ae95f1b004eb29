"""The model cards of model folders: a classifier's, an encoder's aligned for generated pictures, a joint pair's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gen2real.models.dual_encoder import DualEncoder

_SHOWN = 50


def model_card(
    encoder: DualEncoder,
    class_names: Sequence[str],
    made_by: Mapping[str, Any],
    title: str,
    *,
    own_pixels: bool,
    findings: str = "",
) -> str:
    """README.md in the hub's form: YAML front matter, the classes, code that loads the model, and what made it.

    Args:
        findings: Markdown on what the model was made of and how well it does; it follows the title.
        own_pixels: the folder's preprocess.json says what preprocessor_config.json cannot; the card then tells so.

    Class names are shown as text, whatever they hold: they can neither become HTML nor end a table row.
    """
    model_class = _model_class(encoder)
    lines = _front_matter(encoder, model_class, ["gen2real", "image-classification", "trained-on-generated-images"])
    lines += [
        f"# {plain_text(title)}",
        "",
        f"An image classifier of {len(class_names)} classes, made with gen2real.",
        "",
    ]
    if findings:
        lines += [findings]
    lines += ["## Use", "", "```python", _WITH_GEN2REAL, "```", ""]
    if model_class:
        lines += [
            "The encoder alone, with the tuned image tower, loads in transformers without gen2real:",
            "",
            "```python",
            _WITH_TRANSFORMERS.replace("CLASS", model_class),
            "```",
            "",
        ]
    if model_class and own_pixels:
        lines += [
            "Pictures are prepared as preprocess.json says, which transformers does not read: results differ.",
            "",
        ]
    lines += ["## Classes", "", "| | name |", "|---|---|"]
    lines += [f"| {index} | {plain_text(name)} |" for index, name in enumerate(class_names[:_SHOWN])]
    if len(class_names) > _SHOWN:
        lines += ["", f"… and {len(class_names) - _SHOWN} more; all are in classes.json."]
    lines += ["", "## Made by", "", *_indented(json.dumps(dict(made_by), indent=2, ensure_ascii=False)), ""]
    return "\n".join(lines)


def aligned_card(
    encoder: DualEncoder,
    made_by: Mapping[str, Any],
    title: str,
    *,
    adapter: bool,
    projected: bool,
    findings: str = "",
) -> str:
    """README.md of an aligned model folder: what lies in it, and code that loads both image towers.

    Args:
        adapter: the tower for generated pictures is a peft adapter, not a difference of weights.
        projected: there is a trained projection for real pictures.
        findings: Markdown on what the model was made of and how well it does; it follows the title.
    """
    model_class = _model_class(encoder)
    front = _front_matter(encoder, model_class, ["gen2real", "feature-extraction", "trained-on-generated-images"])
    lines = [
        *front,
        f"# {plain_text(title)}",
        "",
        "A dual encoder with two image towers, made with gen2real: f_r for real pictures and f_g for generated ones.",
        "",
    ]
    if findings:
        lines += [findings]
    lines += ["## Use", "", "```python", _ALIGNED_WITH_GEN2REAL, "```", ""]
    if projected:
        lines += ['`.tower("projection")` is f_r with the projection that was trained for real pictures.', ""]
    if model_class:
        stock = _ALIGNED_WITH_PEFT if adapter else _ALIGNED_WITH_TRANSFORMERS
        lines += ["Without gen2real:", "", "```python", stock.replace("CLASS", model_class), "```", ""]
    lines += ["## Made by", "", *_indented(json.dumps(dict(made_by), indent=2, ensure_ascii=False)), ""]
    return "\n".join(lines)


def joint_card(part: Literal["model", "generator"], why: str, made_by: Mapping[str, Any], *, findings: str = "") -> str:
    """README.md of one of two models that were tuned together: code that loads it, and what made it.

    Args:
        part: the `CLIPModel` or the `StableDiffusionPipeline`. why: a sentence on how texts reach the denoiser.
        findings: Markdown on what the models were made of and how well they do; it follows the title.
    """
    is_clip = part == "model"
    front = {
        "library_name": "transformers" if is_clip else "diffusers",
        "pipeline_tag": "zero-shot-image-classification" if is_clip else "text-to-image",
        "tags": ["gen2real", "unidiff"],
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", "", f"# {part}", ""]
    lines += [
        f"A {'CLIPModel' if is_clip else 'StableDiffusionPipeline'}, tuned together with a "
        f"{'StableDiffusionPipeline' if is_clip else 'CLIPModel'} with gen2real. {why}",
        "",
        *([findings] if findings else []),
        "## Use",
        "",
        "```python",
        _CLIP_WITH_TRANSFORMERS if is_clip else _GENERATOR_WITH_DIFFUSERS,
        "```",
        "",
    ]
    lines += ["## Made by", "", *_indented(json.dumps(dict(made_by), indent=2, ensure_ascii=False)), ""]
    return "\n".join(lines)


def _model_class(encoder: DualEncoder) -> str | None:
    found: str | None = (getattr(getattr(encoder, "config", None), "architectures", None) or [None])[0]
    return found


def _front_matter(encoder: DualEncoder, model_class: str | None, tags: Sequence[str]) -> list[str]:
    front: dict[str, Any] = {
        "library_name": "transformers" if model_class else "gen2real",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": list(tags),
    }
    if model_class and encoder.name.count("/") == 1 and not Path(encoder.name).exists():
        front["base_model"] = encoder.name
    # JSON is YAML, and quotes whatever needs quoting.
    return ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", ""]


def plain_text(text: str) -> str:
    """`text` as Markdown that shows exactly it, on one line."""
    entities = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "`": "&#96;", "*": "&#42;", "_": "&#95;"}
    entities |= {"[": "&#91;", "]": "&#93;", "\\": "&#92;", "#": "&#35;", "~": "&#126;", "$": "&#36;"}
    return "".join(entities.get(letter, letter) for letter in " ".join(text.split()))


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]


_WITH_GEN2REAL = """import torch
from PIL import Image
from gen2real.models import load_classifier

loaded = load_classifier("this folder")
picture = Image.open("photo.jpg").convert("RGB")
pixels = loaded.encoder.preprocess.normalize(loaded.encoder.preprocess.geometry(picture)[None])
with torch.no_grad():
    logits, _ = loaded.classifier(pixels)
print(loaded.class_names[logits.argmax()])"""

_WITH_TRANSFORMERS = """import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, CLASS

folder = Path("this folder")
model, head = CLASS.from_pretrained(folder), load_file(folder / "head.safetensors")
pixels = AutoImageProcessor.from_pretrained(folder)(Image.open("photo.jpg").convert("RGB"), return_tensors="pt")
with torch.no_grad():
    features = model.get_image_features(**pixels).pooler_output - head["feature_mean"]
logits = torch.nn.functional.normalize(features, dim=-1) @ head["weight"].T + head["bias"]
print(json.loads((folder / "classes.json").read_text(encoding="utf-8"))[logits.argmax()])"""

_CLIP_WITH_TRANSFORMERS = """from transformers import AutoProcessor, CLIPModel

model, processor = CLIPModel.from_pretrained("this folder"), AutoProcessor.from_pretrained("this folder")"""

_GENERATOR_WITH_DIFFUSERS = """from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("this folder")
picture = pipeline("a photo of a dog").images[0]"""

_ALIGNED_WITH_GEN2REAL = """import torch
from PIL import Image
from gen2real.models import load_aligned

aligned = load_aligned("this folder")
preprocess = aligned.encoder.preprocess
pixels = preprocess.normalize(preprocess.geometry(Image.open("picture.png").convert("RGB"))[None])
with torch.no_grad():
    of_a_photo = aligned.tower("f_r")(pixels)
    of_a_generated_picture = aligned.tower("f_g")(pixels)
    text = aligned.encoder.encode_text(["a photo of a dog"])"""

_ALIGNED_WITH_PEFT = """from peft import PeftModel
from transformers import CLASS

f_r = CLASS.from_pretrained("this folder")
f_g = PeftModel.from_pretrained(CLASS.from_pretrained("this folder"), "this folder/generated")"""

_ALIGNED_WITH_TRANSFORMERS = """from safetensors.torch import load_file
from transformers import CLASS

f_r, f_g = CLASS.from_pretrained("this folder"), CLASS.from_pretrained("this folder")
parameters = dict(f_g.named_parameters())
for name, difference in load_file("this folder/generated/shift.safetensors").items():
    parameters[name].data += difference"""
