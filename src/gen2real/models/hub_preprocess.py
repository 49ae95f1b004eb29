"""From the hub's image-processor settings to a `Preprocess`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from gen2real.errors import ModelError
from gen2real.imagesets.transforms import Preprocess, Resample

_RESAMPLE: dict[int, Resample] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


def preprocess_from_hub(settings: Mapping[str, Any], *, model_name: str) -> Preprocess:
    """The `Preprocess` that does what an image processor with these settings does to a picture.

    `size` may be a number, `shortest_edge`, or `height` and `width`. With a centre crop the shorter edge is resized and
    the middle kept; with height and width alone the picture is stretched (SigLIP). A NaFlex processor (SigLIP 2:
    `max_num_patches`) gives the largest square of whole patches; pictures are stretched to it. A rescale factor other
    than 1/255 is folded into mean and std. A crop that is smaller than the resized picture cannot be said and warns.

    Raises: ModelError for an unknown resampling filter, and for settings that ask for a picture that is not square, or
    lack a size.
    """
    mean, std = (_three(settings.get(key, default)) for key, default in (("image_mean", 0.5), ("image_std", 0.5)))
    if not settings.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = 255 * float(settings.get("rescale_factor") or 1 / 255) if settings.get("do_rescale", True) else 255.0
    if not math.isclose(factor, 1.0, rel_tol=1e-6):
        mean, std = _three([value / factor for value in mean]), _three([value / factor for value in std])
    resample = _resample(settings.get("resample", 3), model_name)
    if "max_num_patches" in settings and "patch_size" in settings:
        size = math.isqrt(int(settings["max_num_patches"])) * int(settings["patch_size"])
        return Preprocess(size, mean, std, fit="stretch", resample=resample)
    resized = _edge(settings.get("size"), model_name)
    if not settings.get("do_center_crop", False):
        stretched = not _is_shortest_edge(settings.get("size"))
        return Preprocess(resized, mean, std, fit="stretch" if stretched else "crop", resample=resample)
    cropped = _edge(settings.get("crop_size") or settings.get("size"), model_name)
    if cropped != resized:
        warnings.warn(
            f"{model_name} resizes pictures to {resized} pixels and crops {cropped} from the middle; gen2real resizes "
            f"to {cropped} and so shows the model a little more of each picture.",
            stacklevel=2,
        )
    return Preprocess(cropped, mean, std, fit="crop", resample=resample)


def _resample(code: Any, model_name: str) -> Resample:
    if int(code) not in _RESAMPLE:
        raise ModelError(
            f"the image processor of {model_name} resamples with PIL's filter {code}; gen2real knows "
            f'{_RESAMPLE}. Set "resample": 3 in preprocessor_config.json.'
        )
    return _RESAMPLE[int(code)]


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(values),) * 3 if isinstance(values, int | float) else tuple(map(float, values))
    return red, green, blue


def _is_shortest_edge(size: Any) -> bool:
    return isinstance(size, Mapping) and size.get("shortest_edge") is not None


def _edge(size: Any, model_name: str) -> int:
    if isinstance(size, int):
        return size
    if _is_shortest_edge(size):
        return int(size["shortest_edge"])
    if isinstance(size, Mapping) and size.get("height") and size.get("height") == size.get("width"):
        return int(size["height"])
    raise ModelError(
        f"the image processor of {model_name} has the size {size!r}; gen2real needs a square: a number, "
        '{"shortest_edge": S}, or {"height": S, "width": S} in preprocessor_config.json.'
    )
