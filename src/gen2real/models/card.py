"""The model card of a classifier's model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
    model_class = (getattr(getattr(encoder, "config", None), "architectures", None) or [None])[0]
    front = {
        "library_name": "transformers" if model_class else "gen2real",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["gen2real", "image-classification", "trained-on-generated-images"],
    }
    if model_class and encoder.name.count("/") == 1 and not Path(encoder.name).exists():
        front["base_model"] = encoder.name
    # JSON is YAML, and quotes whatever needs quoting.
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()), "---", ""]
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
