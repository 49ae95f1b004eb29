"""CLIP, SigLIP and SigLIP 2 of transformers, as dual encoders.

The towers keep the hub's own names for their tensors, so a tower's state goes back into a hub checkpoint as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gen2real.errors import ModelError
from gen2real.files import write_json, write_tensors
from gen2real.imagesets.transforms import Preprocess
from gen2real.models import attention
from gen2real.models.dual_encoder import PREPROCESS_FILE, DualEncoder, stored_preprocess
from gen2real.models.hub_loading import explained, whole_model, without_progress_bars
from gen2real.models.hub_preprocess import preprocess_from_hub


class ClipVision(nn.Module):
    """CLIP's image tower with its projection: pixels [N 3 S S] → [N projection_dim]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.visual_projection = model.visual_projection
        self.image_size = int(model.config.vision_config.image_size)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        other_size = pixels.shape[-1] != self.image_size
        output = self.vision_model(pixel_values=pixels, interpolate_pos_encoding=other_size)
        return self.visual_projection(output.pooler_output)


class SiglipVision(nn.Module):
    """SigLIP's image tower, attention pooling included: pixels [N 3 S S] → [N hidden_size]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.image_size = int(model.config.vision_config.image_size)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        other_size = pixels.shape[-1] != self.image_size
        output = self.vision_model(pixel_values=pixels, interpolate_pos_encoding=other_size)
        return output.pooler_output


class Siglip2Vision(nn.Module):
    """SigLIP 2's NaFlex image tower on square pictures: pixels [N 3 S S] → [N hidden_size]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.patch_size = int(model.config.vision_config.patch_size)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        patches, rows, columns = patchify(pixels, self.patch_size)
        shapes = torch.tensor([[rows, columns]] * len(pixels), device=pixels.device)
        # No picture is padded, so no mask is needed.
        output = self.vision_model(pixel_values=patches, pixel_attention_mask=None, spatial_shapes=shapes)
        return output.pooler_output


def patchify(pixels: Float[Tensor, "n c h w"], patch_size: int) -> tuple[Float[Tensor, "n patches values"], int, int]:
    """Cuts pictures into rows × columns patches in reading order; a patch's values run over height, width, channel.

    Raises: ValueError where the patch size does not divide the picture's height and width.
    """
    count, channels, height, width = pixels.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"pictures of {height}×{width} do not divide into patches of {patch_size}×{patch_size}.")
    rows, columns = height // patch_size, width // patch_size
    grid = pixels.reshape(count, channels, rows, patch_size, columns, patch_size).permute(0, 2, 4, 3, 5, 1)
    return grid.reshape(count, rows * columns, -1), rows, columns


class ClipText(nn.Module):
    """CLIP's text tower with its projection: token ids [N L] and their mask → [N projection_dim]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.text_projection = model.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.text_model(input_ids=input_ids, attention_mask=attention_mask)
        return self.text_projection(output.pooler_output)


class SiglipText(nn.Module):
    """SigLIP's and SigLIP 2's text tower: token ids [N L] → [N hidden_size]. Padding is attended to, as in training."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_model = model.text_model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.text_model(input_ids=input_ids).pooler_output


@dataclass(frozen=True)
class _Family:
    model_class: str
    vision: type[nn.Module]
    text: type[nn.Module]
    pads_to_longest: bool


_FAMILIES = {
    "clip": _Family("CLIPModel", ClipVision, ClipText, pads_to_longest=True),
    "siglip": _Family("SiglipModel", SiglipVision, SiglipText, pads_to_longest=False),
    "siglip2": _Family("Siglip2Model", Siglip2Vision, SiglipText, pads_to_longest=False),
}


class TransformersEncoder(DualEncoder):
    """A dual encoder of transformers; `load_transformers` makes it."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, preprocess: Preprocess, name: str) -> None:
        family = _FAMILIES[model.config.model_type]
        vision = family.vision(model)
        dim = model.config.vision_config.hidden_size
        if family.vision is ClipVision:
            dim = model.config.projection_dim
        super().__init__(vision, model.logit_scale, preprocess, int(dim), name)
        self.text = family.text(model)
        self.logit_bias: nn.Parameter | None = None
        if hasattr(model, "logit_bias"):
            # The same for every pair, so only a sigmoid loss can learn it: whoever has one thaws it.
            bias = model.logit_bias.detach().float().reshape(()).clone()
            self.logit_bias = nn.Parameter(bias, requires_grad=False)
        self.config = model.config
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self._scale_shape = tuple(model.logit_scale.shape)

    @property
    def context_length(self) -> int:
        """Tokens a text may have, the special ones included."""
        return int(self.config.text_config.max_position_embeddings)

    def write_files(self, folder: Path, *, vision: nn.Module | None = None) -> None:
        """The hub's layout: config, model.safetensors, tokenizer and image processor; stock transformers loads it."""
        state = {**self._vision_state(vision), **self.text.state_dict()}
        state["logit_scale"] = self.logit_scale.detach().reshape(self._scale_shape)
        if self.logit_bias is not None:
            state["logit_bias"] = self.logit_bias.detach().reshape(self._scale_shape)
        write_tensors(folder / "model.safetensors", state, {"format": "pt"})
        self.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        if preprocess_from_hub(self.image_processor.to_dict(), model_name=self.name) != self.preprocess:
            write_json(folder / PREPROCESS_FILE, self.preprocess.to_dict())

    def _encode_texts(self, texts: list[str]) -> Tensor:
        if getattr(self.tokenizer, "init_kwargs", {}).get("do_lower_case"):
            texts = [text.lower() for text in texts]
        to_longest = _FAMILIES[self.config.model_type].pads_to_longest
        tokens = self.tokenizer(
            texts,
            padding="longest" if to_longest else "max_length",
            truncation=True,
            max_length=self.context_length,
            return_attention_mask=to_longest,
            return_tensors="pt",
        )
        device = next(self.text.parameters()).device
        inputs = {key: tokens[key].to(device) for key in ("input_ids", "attention_mask") if key in tokens}
        return self.text(**inputs)

    def _architecture(self) -> Any:
        unrelated = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"}

        def strip(value: Any) -> Any:
            if isinstance(value, dict):
                return {str(key): strip(entry) for key, entry in value.items() if key not in unrelated}
            return value

        return strip(self.config.to_dict())


def load_transformers(name: str, *, revision: str | None = None) -> TransformersEncoder:
    """The encoder in a folder or hub repository of transformers' layout; `load_dual_encoder` comes here.

    Raises: ModelError for what cannot be found, has no adapter, is a pickle, or lacks tensors.
    """
    import transformers

    folder = Path(name)
    with without_progress_bars():
        config = explained(name, transformers.AutoConfig.from_pretrained, revision=revision)
        family = _FAMILIES.get(config.model_type)
        if family is None:
            raise ModelError(
                f"{name} is of the type {config.model_type!r}; gen2real knows {', '.join(_FAMILIES)}. "
                "For another, write a function that returns gen2real.models.TwoTowers and give it as "
                '"package.module:function".'
            )
        model = whole_model(name, getattr(transformers, family.model_class), revision=revision)
        tokenizer = explained(name, transformers.AutoTokenizer.from_pretrained, revision=revision)
        image_processor = explained(name, transformers.AutoImageProcessor.from_pretrained, revision=revision)
    model.vision_model.set_attn_implementation(attention.register())
    model.config.dtype = torch.float32
    preprocess = stored_preprocess(folder) or preprocess_from_hub(image_processor.to_dict(), model_name=name)
    return TransformersEncoder(model, tokenizer, image_processor, preprocess, name)
