"""A picture as a file: PNG or WebP, with where it came from inside."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gen2real.errors import ImageSetError

_KEY = "gen2real"
_EXIF_FOLDER, _USER_COMMENT, _SOFTWARE = 0x8769, 0x9286, 0x0131
_ASCII = b"ASCII\0\0\0"
# Of zlib's 1 to 9; beyond this a picture costs twice the time for two hundredths less space.
_PNG_LEVEL = 4
_WEBP_QUALITY = 90


def encode_picture(pixels: npt.NDArray[np.uint8], kind: str, provenance: Mapping[str, Any]) -> bytes:
    """The bytes of a PNG or WebP file of `pixels` [H W 3]; equal pixels and provenance give equal bytes.

    PNG: an iTXt chunk `gen2real` (JSON) and one `Description` (the prompt). WebP: EXIF with the JSON as UserComment.
    """
    stream = io.BytesIO()
    words = {key: value for key, value in provenance.items() if value is not None}
    picture = Image.fromarray(pixels)
    if kind == "png":
        chunks = PngInfo()
        chunks.add_itxt("Description", str(words.get("prompt", "")))
        chunks.add_itxt(_KEY, json.dumps(words, ensure_ascii=False))
        picture.save(stream, "PNG", pnginfo=chunks, compress_level=_PNG_LEVEL)
    else:
        exif = Image.Exif()
        exif[_SOFTWARE] = _KEY
        exif.get_ifd(_EXIF_FOLDER)[_USER_COMMENT] = _ASCII + json.dumps(words).encode("ascii")
        picture.save(stream, "WEBP", quality=_WEBP_QUALITY, exif=exif)
    return stream.getvalue()


def read_provenance(path: str | Path) -> dict[str, Any]:
    """What `encode_picture` wrote into a picture: prompt, seed, generator and all else that made it.

    Raises: ImageSetError for a picture without it.
    """
    with Image.open(path) as picture:
        picture.load()
        text = picture.info.get(_KEY)
        if text is None:
            comment = picture.getexif().get_ifd(_EXIF_FOLDER).get(_USER_COMMENT, b"")
            text = comment.removeprefix(_ASCII).decode("ascii") if comment.startswith(_ASCII + b"{") else None
    if text is None:
        raise ImageSetError(f"{path} does not say what drew it: it comes from elsewhere, or was saved anew since.")
    return dict(json.loads(text))
