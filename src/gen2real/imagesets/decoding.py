"""Picture files → RGB pictures, read right or named with a reason."""

from __future__ import annotations

import errno
import io
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from gen2real.errors import ImageSetError, Offender, UnreadablePictures

Policy = Literal["error", "skip"]
Colour = tuple[int, int, int]
T = TypeVar("T")

WHITE: Colour = (255, 255, 255)
# Pillow's own first limit: above it Pillow warns, so nothing larger passes silently.
MAX_PIXELS = 89_478_485
# Formats that only hold pixels. EPS is not among them: reading it runs Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "MPO", "QOI", "ICO", "HEIF")
_SYSTEM_FAULTS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Unreadable(ImageSetError):
    """One picture that does not decode; the text is the reason alone."""


def decode(
    source: str | Path | bytes,
    *,
    background: Colour = WHITE,
    max_pixels: int = MAX_PIXELS,
    shortest_side: int | None = None,
) -> Image.Image:
    """The picture in a file or in its bytes, as 8-bit RGB, turned as its EXIF says; the first frame of an animation.

    Transparency lies on `background`. 16-bit grey is scaled by 65535; integers beyond 16 bits and floating-point
    grey outside 0…1 and 0…255 by their own range. CMYK and palettes are converted; the extension is not looked at.

    shortest_side: pixels that the shorter side must keep. A JPEG may then be decoded at 1/2, 1/4 or 1/8 of its size,
        which is much faster; the picture is at least this large, or as large as it is.

    Raises: Unreadable (an ImageSetError), its text the reason.
    """
    content = source if isinstance(source, bytes) else read_picture_file(source)
    try:
        if not content:
            raise Unreadable("the file is empty (0 bytes)")
        with Image.open(io.BytesIO(content), formats=_formats()) as picture:
            _refuse_bomb(picture.size, max_pixels)
            pixels = None
            if shortest_side is not None and picture.format in ("JPEG", "MPO"):
                pixels = _scaled_jpeg(picture, content, shortest_side)
            if pixels is None:
                picture.load()
                pixels = _turned(picture, picture)
            return to_rgb(pixels, background)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        # Pillow's readers raise whatever a broken file leads them into: struct.error, KeyError, SyntaxError, ….
        raise Unreadable(_reason(error, content)) from error


def read_picture_file(path: str | Path) -> bytes:
    """A file's bytes. Raises: Unreadable, its text the reason; OSError where the system is at fault, not the file."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise Unreadable("the file does not exist") from error
    except OSError as error:
        if error.errno in _SYSTEM_FAULTS:
            raise
        raise Unreadable(error.strerror or str(error)) from error


def format_of(content: bytes) -> str:
    """Pillow's name of the format that a picture's bytes are in, e.g. "JPEG". Raises as Pillow does."""
    with Image.open(io.BytesIO(content), formats=_formats()) as picture:
        return str(picture.format)


def to_rgb(picture: Image.Image, background: Colour = WHITE) -> Image.Image:
    """An RGB picture of any mode's pixels: transparency composed on `background`, deep grey scaled to 8 bits."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep_grey(picture, background)
    if picture.mode == "LAB":
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        converted = ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
        assert converted is not None
        return converted
    if picture.mode in ("La", "RGBa"):
        picture = picture.convert("LA" if picture.mode == "La" else "RGBA")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        layers = picture.convert("RGBA")
        canvas = Image.new("RGBA", layers.size, (*background, 255))
        return Image.alpha_composite(canvas, layers).convert("RGB")
    return picture.convert("RGB")


def is_blank(pixels: npt.NDArray[Any], *, tolerance: float = 1.0) -> bool:
    """Whether a picture shows nothing: it holds NaN or infinity, or every channel is flat.

    pixels: [H W C] or [C H W], C of 1 to 4; integers 0…255, or floating-point 0…1 as a generator gives them.
    tolerance: the largest standard deviation of a flat channel, in levels of 255. One level is what an 8-bit codec
        leaves of a plain colour; a dot of a thousandth of the area at half the range has four.

    Raises: ImageSetError for an array of another shape.
    """
    if pixels.ndim != 3 or min(pixels.shape[0], pixels.shape[2]) > 4:
        raise ImageSetError(f"is_blank takes pixels [H W C] or [C H W]; got shape {list(pixels.shape)}.")
    if pixels.size == 0:
        return True
    floating = np.issubdtype(pixels.dtype, np.floating)
    if floating and not np.isfinite(pixels).all():
        return True
    channels = pixels.reshape(-1, pixels.shape[2]).T if pixels.shape[2] <= 4 else pixels.reshape(pixels.shape[0], -1)
    # Less the first pixel, so that single precision is enough where it matters: in a picture that is nearly flat.
    values = channels.astype(np.float32, order="C")
    values -= values[:, :1]
    variance = np.array([row @ row / row.size - row.mean() ** 2 for row in values])
    spread = float(np.sqrt(variance.max().clip(0))) * (255 if floating else 1)
    return bool(spread <= tolerance)


@dataclass(frozen=True)
class Checked(Generic[T]):
    """What came of looking at many pictures: `results` in order, None where the picture could not be read."""

    results: list[T | None]
    offenders: tuple[Offender, ...]

    @property
    def readable(self) -> list[int]:
        """Indices of the pictures that decode."""
        return [index for index, result in enumerate(self.results) if result is not None]


def check_pictures(
    paths: Sequence[Path],
    policy: Policy = "error",
    *,
    max_pixels: int = MAX_PIXELS,
    workers: int = 4,
) -> Checked[tuple[int, int]]:
    """Decodes every picture; results are (width, height) in pixels.

    Raises: UnreadablePictures listing all that do not decode, if policy is "error". "skip" warns with their number.
    """

    def size_of(path: Path) -> tuple[int, int]:
        return decode(path, max_pixels=max_pixels).size

    offenders: list[Offender] = []
    results: list[tuple[int, int] | None] = []
    for path, result in zip(paths, over_pictures(size_of, paths, workers=workers), strict=True):
        if isinstance(result, str):
            offenders.append(Offender(path, result))
            results.append(None)
        else:
            results.append(result)
    report_offenders(offenders, len(paths), policy)
    return Checked(results, tuple(offenders))


def over_pictures(look: Callable[[Any], T], sources: Any, *, workers: int = 4) -> Any:
    """Yields look(source) for each source in order, or the reason (a string) where it raised Unreadable.

    Sources may be a generator: only a few are in memory at a time.
    """

    def looked(source: Any) -> T | str:
        try:
            return look(source)
        except Unreadable as fault:
            return str(fault)

    with ThreadPoolExecutor(workers, thread_name_prefix="gen2real-pictures") as pool:
        waiting = []
        try:
            for source in sources:
                waiting.append(pool.submit(looked, source))
                if len(waiting) > 4 * workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def check_policy(policy: str) -> None:
    """Raises ImageSetError unless the policy is "error" or "skip"."""
    if policy not in ("error", "skip"):
        raise ImageSetError(f'on_unreadable must be "error" or "skip"; got {policy!r}.')


def report_offenders(offenders: Sequence[Offender], total: int, policy: Policy) -> None:
    """Raises UnreadablePictures (policy "error") or warns with number and reasons ("skip"), if there are any."""
    check_policy(policy)
    if not offenders:
        return
    if policy == "error":
        raise UnreadablePictures(offenders)
    shown = "; ".join(f"{offender.path}: {offender.reason}" for offender in offenders[:5])
    more = f"; and {len(offenders) - 5} more" if len(offenders) > 5 else ""
    warnings.warn(f"{len(offenders)} of {total} picture(s) left out: {shown}{more}", stacklevel=3)


@cache
def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _refuse_bomb(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        raise Unreadable(
            f"{size[0]} × {size[1]} is more than {max_pixels / 1e6:.0f} million pixels (a decompression bomb?)"
        )


def _turned(pixels: Image.Image, with_exif: Image.Image) -> Image.Image:
    try:
        orientation = with_exif.getexif().get(0x0112, 1)
    except Exception:
        # Broken EXIF says nothing about the pixels; every viewer shows such a picture as it lies.
        return pixels
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(orientation)
    if turn is None:
        return pixels
    turned = pixels.transpose(turn)
    if "transparency" in pixels.info:
        turned.info["transparency"] = pixels.info["transparency"]
    return turned


def _scaled_jpeg(picture: Image.Image, content: bytes, shortest_side: int) -> Image.Image | None:
    factor = min(picture.size) // max(shortest_side, 1)
    if factor < 2 or picture.mode not in ("RGB", "L"):
        return None
    simplejpeg = _simplejpeg()
    if simplejpeg is None:
        picture.draft(None, (picture.width // factor, picture.height // factor))
        picture.load()
        return _turned(picture, picture)
    colours = "RGB" if picture.mode == "RGB" else "GRAY"
    array = simplejpeg.decode_jpeg(content, colours, min_height=shortest_side, min_width=shortest_side, min_factor=2)
    return _turned(Image.fromarray(np.squeeze(array, axis=2) if colours == "GRAY" else array), picture)


@cache
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _from_deep_grey(picture: Image.Image, background: Colour) -> Image.Image:
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise Unreadable("its floating-point pixels hold NaN or infinity")
    low, high = float(values.min()), float(values.max())
    if picture.mode == "F" and low >= 0 and high <= 1:
        scaled = values * 255
    elif picture.mode == "F" and low >= 0 and high <= 255:
        scaled = values
    elif low >= 0 and high <= 65535 and picture.mode != "F":
        scaled = values / 257
    else:
        scaled = (values - low) * (255 / (high - low))
    grey = Image.fromarray(np.round(scaled).astype(np.uint8)).convert("RGB")
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        grey.paste(background, mask=Image.fromarray(((values == clear) * 255).astype(np.uint8)))
    return grey


def _reason(error: Exception, content: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not a picture in a format that is read here (it starts with {content[:8]!r})"
    return str(error) or type(error).__name__
