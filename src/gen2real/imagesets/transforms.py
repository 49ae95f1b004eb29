"""Pictures → what an encoder sees: the exact evaluation geometry, and random training crops."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from gen2real.errors import ImageSetError
from gen2real.imagesets import colour

Fit = Literal["crop", "stretch", "pad"]
Resample = Literal["bicubic", "bilinear", "lanczos"]
Size = tuple[int, int]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the square an encoder was trained on. Nothing here is random.

    size: side of the square in pixels.
    mean, std: of each channel, for values in 0…1.
    fit: "crop", the shorter side is resized to `size` and the middle cut out (CLIP); "stretch", both sides are
        resized to `size` (SigLIP); "pad", the whole picture lies in the middle of a square of `background`.
    margin: for "pad", the fraction of the square's side left free on each of the four sides, 0 ≤ margin < 0.5.
    background: RGB, 0…255.

    Raises: ImageSetError for a setting out of range.
    """

    size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    fit: Fit = "crop"
    margin: float = 0.0
    background: tuple[int, int, int] = (255, 255, 255)
    resample: Resample = "bicubic"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ImageSetError(f"size must be at least 1 pixel; got {self.size}.")
        if self.fit not in get_args(Fit):
            raise ImageSetError(f"fit must be one of {get_args(Fit)}; got {self.fit!r}.")
        if self.resample not in _FILTERS:
            raise ImageSetError(f"resample must be one of {get_args(Resample)}; got {self.resample!r}.")
        if not 0 <= self.margin < 0.5:
            raise ImageSetError(f"margin is free space on each side, 0 ≤ margin < 0.5; got {self.margin}.")
        if self.margin and self.fit != "pad":
            raise ImageSetError(f'margin is for fit="pad" only; got margin={self.margin} with fit={self.fit!r}.')
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise ImageSetError(f"mean and std need three values each, std above 0; got {self.mean}, {self.std}.")
        if len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise ImageSetError(f"background must be three values in 0…255; got {self.background}.")

    def geometry(self, picture: Image.Image) -> UInt8[Tensor, "3 size size"]:
        """An RGB picture as uint8 [3 size size]; for "crop" as transformers' CLIPImageProcessor."""
        return as_tensor(self.square(picture, self.size))

    def square(self, picture: Image.Image, side: int) -> Image.Image:
        """The RGB picture on a square of `side` pixels, by `fit`."""
        width, height = picture.size
        if self.fit == "stretch":
            return picture.resize((side, side), _FILTERS[self.resample])
        if self.fit == "crop":
            if max(picture.size) > 32 * min(picture.size):
                # A very long picture would be blown up to a giant first; what is far from the middle never matters.
                picture = _middle(picture, 32)
            new_width, new_height = shortest_to(picture.size, side)
            left, top = (new_width - side) // 2, (new_height - side) // 2
            whole = picture.resize((new_width, new_height), _FILTERS[self.resample])
            return whole.crop((left, top, left + side, top + side))
        room = max(1, round(side * (1 - 2 * self.margin)))
        scale = room / max(width, height)
        inner = (max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = Image.new("RGB", (side, side), self.background)
        canvas.paste(picture.resize(inner, _FILTERS[self.resample]), ((side - inner[0]) // 2, (side - inner[1]) // 2))
        return canvas

    def canvas_size(self, size: Size, shortest: int) -> Size:
        """(width, height) of what training crops are cut from, for a picture of `size` (width, height).

        "crop" keeps the picture's aspect, the shorter side being `shortest` pixels or what the picture has, if less.
        "stretch" and "pad" give the square that evaluation sees, at `shortest` pixels.
        """
        if self.fit != "crop":
            return shortest, shortest
        return size if min(size) <= shortest else shortest_to(size, shortest)

    def canvas(self, picture: Image.Image, shortest: int) -> UInt8[Tensor, "3 h w"]:
        """The RGB picture as uint8 [3 H W], of `canvas_size`."""
        if self.fit != "crop":
            return as_tensor(self.square(picture, shortest))
        wanted = self.canvas_size(picture.size, shortest)
        return as_tensor(picture if wanted == picture.size else picture.resize(wanted, _FILTERS[self.resample]))

    def normalize(self, pictures: UInt8[Tensor, "n 3 s s"]) -> Float32[Tensor, "n 3 s s"]:
        """Uint8 [N 3 S S] → float32 [N 3 S S]: (x / 255 − mean) / std, on the device the pictures are on."""
        scale = torch.tensor(self.std, device=pictures.device).mul(255).view(1, 3, 1, 1)
        shift = torch.tensor(self.mean, device=pictures.device).mul(255).view(1, 3, 1, 1)
        return pictures.to(torch.float32).sub_(shift).div_(scale)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready settings."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """The settings that `to_dict` gave. Raises: ImageSetError for names that are not settings."""
        return cls(**_settings(cls, values))


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training pictures. The defaults are RegFT's: a crop of 90–100 % of the area, nothing else.

    crop_scale: range of the crop's share of the picture's area. crop_ratio: range of its width / height.
    flip, grayscale, blur: probabilities of mirroring, of losing colour, of a Gaussian blur (sigma 0.1–2 pixels at
        224, in proportion at other sizes).
    brightness, contrast, saturation: b multiplies by a factor drawn evenly from [max(0, 1 − b), 1 + b].
    hue: h turns the colours by an angle drawn evenly from ±h of a full turn (at most 0.5), brightness kept.
    noise: standard deviation of Gaussian noise, for values in 0…1. rotation: largest angle either way in degrees;
        what comes into view at the corners is the picture mirrored.

    Raises: ImageSetError for a setting out of range.
    """

    crop_scale: tuple[float, float] = (0.9, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    rotation: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ImageSetError(f"crop_scale must be two numbers, 0 < low ≤ high ≤ 1; got {self.crop_scale}.")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ImageSetError(f"crop_ratio must be two numbers, 0 < low ≤ high; got {self.crop_ratio}.")
        most = {"flip": 1, "grayscale": 1, "blur": 1, "hue": 0.5, "rotation": 180}
        for item in fields(self)[2:]:
            value = getattr(self, item.name)
            if not 0 <= value <= most.get(item.name, math.inf):
                limit = f" ≤ {most[item.name]}" if item.name in most else ""
                raise ImageSetError(f"{item.name} must be a number, 0 ≤ {item.name}{limit}; got {value}.")

    def apply(
        self, pictures: Sequence[UInt8[Tensor, "3 _h _w"]], size: int, generator: torch.Generator
    ) -> UInt8[Tensor, "n 3 size size"]:
        """Pictures of any sizes, uint8 [3 H W], → uint8 [N 3 size size]. The same generator state, the same result."""
        if not pictures:
            return torch.empty((0, 3, size, size), dtype=torch.uint8)
        draws = torch.rand((len(pictures), 10, 4), generator=generator, dtype=torch.float64).numpy()
        crops = []
        for picture, draw in zip(pictures, draws, strict=True):
            top, left, height, width = self._crop(picture.shape[1], picture.shape[2], draw)
            crops.append(_resized(picture[:, top : top + height, left : left + width], size))
        batch = torch.stack(crops)
        if self.flip:
            batch = colour.mirrored(batch, self.flip, generator)
        if not any(
            (
                self.rotation,
                self.brightness,
                self.contrast,
                self.saturation,
                self.hue,
                self.grayscale,
                self.blur,
                self.noise,
            )
        ):
            return batch
        x = batch.to(torch.float32).div_(255)
        if self.rotation:
            x = colour.rotated(x, self.rotation, generator)
        if self.brightness:
            x = colour.brightened(x, self.brightness, generator)
        if self.contrast:
            x = colour.contrasted(x, self.contrast, generator)
        if self.saturation:
            x = colour.saturated(x, self.saturation, generator)
        if self.hue:
            x = colour.hue_turned(x, self.hue, generator)
        if self.grayscale:
            x = colour.greyed(x, self.grayscale, generator)
        if self.blur:
            x = colour.blurred(x, self.blur, size / 224, generator)
        if self.noise:
            x = x + self.noise * torch.randn(x.shape, generator=generator)
        return x.mul(255).round_().clamp_(0, 255).to(torch.uint8)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready settings."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Augmentation:
        """The settings that `to_dict` gave. Raises: ImageSetError for names that are not settings."""
        return cls(**_settings(cls, values))

    def _crop(self, height: int, width: int, draws: npt.NDArray[np.float64]) -> tuple[int, int, int, int]:
        """(top, left, height, width) from ten rows of four numbers in 0…1: the first that fits, else the middle."""
        for share, shape, across, down in draws:
            area = height * width * (self.crop_scale[0] + share * (self.crop_scale[1] - self.crop_scale[0]))
            low, high = math.log(self.crop_ratio[0]), math.log(self.crop_ratio[1])
            ratio = math.exp(low + shape * (high - low))
            crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top, left = int(down * (height - crop_height + 1)), int(across * (width - crop_width + 1))
                return top, left, crop_height, crop_width
        crop_width = min(width, max(1, round(height * self.crop_ratio[1])))
        crop_height = min(height, max(1, round(width / self.crop_ratio[0])))
        return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def as_tensor(picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
    """An RGB picture as uint8 [3 H W], contiguous."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def shortest_to(size: Size, shortest: int) -> Size:
    """(width, height) with the shorter side `shortest`, the longer in proportion, rounded down."""
    width, height = size
    if width <= height:
        return shortest, max(shortest, int(shortest * height / width))
    return max(shortest, int(shortest * width / height)), shortest


def _middle(picture: Image.Image, aspect: int) -> Image.Image:
    width, height = picture.size
    most = aspect * min(picture.size)
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return picture.crop((left, top, min(width, left + most), min(height, top + most)))


def _resized(picture: Tensor, size: int) -> Tensor:
    return torch.nn.functional.interpolate(
        picture.unsqueeze(0), (size, size), mode="bicubic", antialias=True, align_corners=False
    ).squeeze(0)


def _settings(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    known = [item.name for item in fields(kind)]
    foreign = sorted(set(values) - set(known))
    if foreign:
        raise ImageSetError(f"{kind.__name__} has no setting {foreign}; it has {known}.")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
