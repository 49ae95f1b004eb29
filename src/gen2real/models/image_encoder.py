"""Encoders that look at pictures, for measures that need nothing else: any dual encoder, or an image model alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.files import read_json
from gen2real.imagesets.transforms import Preprocess
from gen2real.models.dual_encoder import DualEncoder, is_hub_name, load_dual_encoder, stored_preprocess
from gen2real.models.hub_loading import explained, whole_model, without_progress_bars
from gen2real.models.hub_preprocess import preprocess_from_hub


@dataclass(frozen=True, eq=False)
class ImageEncoder:
    """What looks at pictures.

    vision: pixels [N 3 S S] → features [N D], not normalised. encoder: the dual encoder that it belongs to; None where
    it reads no texts.
    """

    vision: nn.Module
    preprocess: Preprocess
    encoder: DualEncoder | None
    name: str


class _ImageModel(nn.Module):
    """An image model of transformers: what it pools, or else its first token (the class token of a ViT)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        output = self.model(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        features: Tensor = output.last_hidden_state[:, 0] if pooled is None else pooled
        return features.flatten(1)


def load_image_encoder(name_or_folder: str | Path) -> ImageEncoder:
    """The encoder in a folder or under a hub name: a dual encoder, or an image model of transformers (DINOv2, ViT, …).

    Weights are float32, and the encoder is in evaluation mode.

    Raises: ModelError as `load_dual_encoder`, and for a model that looks at no pictures.
    """
    folder = Path(name_or_folder).expanduser()
    if not _is_image_model(name_or_folder):
        encoder = load_dual_encoder(name_or_folder)
        return ImageEncoder(encoder.vision, encoder.preprocess, encoder, encoder.name)
    import transformers

    name = str(folder) if folder.exists() else str(name_or_folder)
    with without_progress_bars():
        processor = explained(name, transformers.AutoImageProcessor.from_pretrained)
        model = whole_model(name, transformers.AutoModel, revision=None)
    if getattr(model, "main_input_name", "pixel_values") != "pixel_values":
        raise ModelError(
            f"{name} is a {type(model).__name__}, which looks at no pictures: it takes {model.main_input_name}. Give a "
            "dual encoder, or an image model such as DINOv2."
        )
    preprocess = stored_preprocess(folder) or preprocess_from_hub(processor.to_dict(), model_name=name)
    return ImageEncoder(_ImageModel(model).eval(), preprocess, None, name)


def _is_image_model(name_or_folder: str | Path) -> bool:
    """Whether it is a model of transformers with an image processor and without a text tower."""
    if is_hub_name(name_or_folder):
        from transformers import AutoConfig

        config = explained(str(name_or_folder), AutoConfig.from_pretrained).to_dict()
    else:
        folder = Path(name_or_folder).expanduser()
        if not (folder / "config.json").is_file() or not (folder / "preprocessor_config.json").is_file():
            return False
        config = read_json(folder / "config.json")
    return not ({"text_config", "logit_scale_init_value"} & set(config))
