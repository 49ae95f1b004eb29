from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import save, smooth
from PIL import Image

from gen2real.errors import ImageSetError, UnreadablePictures
from gen2real.imagesets import decoding
from gen2real.imagesets.decoding import Unreadable, check_pictures, decode


def encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **settings)
    return stream.getvalue()


def colour(content: bytes, place: tuple[int, int] = (0, 0), **settings: Any) -> tuple[int, ...]:
    found = decode(content, **settings).getpixel(place)
    assert isinstance(found, tuple)
    return found


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of chunks written by hand, for what Pillow does not write."""
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def quarters() -> Image.Image:
    """16 × 8 pixels: red, green above blue, white."""
    picture = Image.new("RGB", (16, 8), "white")
    picture.paste((255, 0, 0), (0, 0, 8, 4))
    picture.paste((0, 255, 0), (8, 0, 16, 4))
    picture.paste((0, 0, 255), (0, 4, 8, 8))
    return picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_turns_the_picture_upright(orientation: int, kind: str) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quarters().transpose(undo[orientation]) if orientation in undo else quarters()
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    found = decode(encoded(stored, kind, exif=exif, **lossless))
    assert np.array_equal(np.asarray(found), np.asarray(quarters()))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_broken_exif_leaves_the_picture_as_it_lies() -> None:
    found = decode(encoded(smooth(16, 8), "JPEG", exif=b"Exif\0\0II*\0garbage that is no directory"))
    assert found.size == (16, 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_the_background(mode: str) -> None:
    black = (0, 0, 0) if mode == "RGBA" else (0,)
    content = encoded(Image.new(mode, (4, 4), (*black, 0)), "PNG")
    assert colour(content) == (255, 255, 255)
    assert colour(content, background=(9, 8, 7)) == (9, 8, 7)
    assert colour(encoded(Image.new(mode, (4, 4), (*black, 51)), "PNG")) == (204, 204, 204)


@pytest.mark.parametrize("clear", [0, b"\0\xff"])
def test_a_palette_with_transparency(clear: Any) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    content = encoded(picture, "PNG", transparency=clear)
    assert colour(content) == (255, 255, 255)
    assert colour(content, (1, 0)) == (200, 100, 50)


def test_a_transparent_colour_of_an_rgb_png() -> None:
    content = encoded(Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    assert colour(content, background=(0, 0, 0)) == (0, 0, 0)


def test_cmyk_is_converted() -> None:
    red, green, blue = colour(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert red > 250
    assert max(green, blue) < 5
    assert colour(encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "TIFF")) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    ramp = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    found = decode(encoded(Image.fromarray(ramp), kind))
    assert np.asarray(found)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_dim_16_bit_grey_stays_dim() -> None:
    found = decode(encoded(Image.fromarray(np.full((2, 2), 2570, np.uint16)), "PNG"))
    assert found.getpixel((0, 0)) == (10, 10, 10)


def test_a_transparent_grey_of_a_16_bit_png() -> None:
    header = struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HH", 25700, 65535))
    content = png((b"IHDR", header), (b"tRNS", struct.pack(">H", 25700)), (b"IDAT", pixels), (b"IEND", b""))
    assert colour(content, background=(1, 2, 3)) == (1, 2, 3)
    assert colour(content, (1, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 500_000, 1_000_000]], np.int32), [0, 128, 255]),
        (np.array([[0, 25_700, 65_535]], np.int32), [0, 100, 255]),
    ],
)
def test_deep_grey_is_scaled(values: Any, expected: list[int]) -> None:
    found = decode(encoded(Image.fromarray(values), "TIFF"))
    assert np.asarray(found)[0, :, 2].tolist() == expected


def test_lab_is_converted() -> None:
    assert min(colour(encoded(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF"))) > 250


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), shade) for shade in ("red", "blue")]
    red, green, blue = colour(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert red > 245
    assert max(green, blue) < 10


def test_one_bit_and_grey() -> None:
    assert colour(encoded(Image.new("1", (4, 4), 1), "PNG")) == (255, 255, 255)
    assert colour(encoded(Image.new("L", (4, 4), 77), "PNG")) == (77, 77, 77)


def test_the_extension_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded(smooth(8, 8), "PNG"))
    assert np.array_equal(np.asarray(decode(path)), np.asarray(smooth(8, 8)))


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))


MALFORMED: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero bytes": (lambda: b"", "the file is empty"),
    "text": (lambda: b"<html>404 not found</html>", "not a picture in a format"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture in a format"),
    "truncated jpeg": (lambda: encoded(smooth(64, 64), "JPEG")[:-300], "truncated"),
    "truncated png": (lambda: encoded(smooth(64, 64), "PNG")[:-300], "truncated"),
    "truncated gif": (lambda: encoded(smooth(64, 64), "GIF")[:-300], "truncated"),
    "truncated webp": (lambda: encoded(smooth(64, 64), "WEBP")[:-100], "."),
    "truncated avif": (lambda: encoded(smooth(64, 64), "AVIF")[:-100], "."),
    "truncated bmp": (lambda: encoded(smooth(64, 64), "BMP")[:-300], "truncated"),
    "truncated tiff": (lambda: encoded(smooth(64, 64), "TIFF")[:-300], "."),
    "header only": (lambda: encoded(smooth(64, 64), "JPEG")[:30], "."),
    "damaged png": (lambda: encoded(smooth(64, 64), "PNG").replace(b"IDAT", b"IDAT\xff\xff", 1), "."),
    "bomb above the warning": (lambda: bomb(12_000, 10_000), "bomb"),
    "bomb above the error": (lambda: bomb(60_000, 60_000), "bomb"),
    "not a number": (lambda: encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), "NaN"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_pictures_are_named_with_a_reason(kind: str, tmp_path: Path) -> None:
    make, reason = MALFORMED[kind]
    path = tmp_path / "picture.jpg"
    path.write_bytes(make())
    with pytest.raises(Unreadable, match=reason) as caught:
        decode(path)
    assert str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="does not exist"):
        decode(tmp_path / "nowhere.png")
    with pytest.raises(Unreadable, match="directory"):
        decode(tmp_path)


def test_a_limit_on_pixels_can_be_set() -> None:
    with pytest.raises(Unreadable, match="10 × 20 is more than"):
        decode(encoded(smooth(10, 20), "PNG"), max_pixels=199)
    assert decode(encoded(smooth(10, 20), "PNG"), max_pixels=200).size == (10, 20)


def test_all_offenders_are_listed_at_once(tmp_path: Path) -> None:
    good = save(tmp_path / "good.png")
    bad = [tmp_path / "empty.png", tmp_path / "text.png"]
    bad[0].write_bytes(b"")
    bad[1].write_bytes(b"text")
    with pytest.raises(UnreadablePictures) as caught:
        check_pictures([bad[0], good, bad[1]])
    assert [offender.path for offender in caught.value.offenders] == bad
    with pytest.warns(UserWarning, match="2 of 3 picture.s. left out: .*empty"):
        checked = check_pictures([bad[0], good, bad[1]], "skip")
    assert checked.readable == [1]
    assert checked.results == [None, (24, 20), None]


@pytest.mark.parametrize("with_simplejpeg", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_may_be_decoded_smaller(with_simplejpeg: bool, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not with_simplejpeg:
        monkeypatch.setattr(decoding, "_simplejpeg", lambda: None)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(smooth(400, 300).convert(mode), "JPEG", quality=95, exif=exif)
    whole = decode(content)
    small = decode(content, shortest_side=70)
    assert (whole.size, small.size) == ((300, 400), (75, 100))
    difference = np.asarray(whole.resize((75, 100), Image.Resampling.BOX), int) - np.asarray(small, int)
    assert np.abs(difference).mean() < 1
    assert decode(content, shortest_side=200).size == (300, 400)


def test_a_truncated_jpeg_is_found_when_decoded_smaller() -> None:
    with pytest.raises(Unreadable):
        decode(encoded(smooth(400, 300), "JPEG")[:-500], shortest_side=70)


def test_reading_a_picture_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(encoded(smooth(9, 9).quantize(), "PNG", transparency=bytes(9)))


def test_flat_and_broken_pixels_are_blank_and_a_dot_is_not() -> None:
    flat = np.full((40, 50, 3), 200, dtype=np.uint8)
    assert decoding.is_blank(flat)
    assert decoding.is_blank(flat.transpose(2, 0, 1) / 255.0)
    assert decoding.is_blank(np.zeros((8, 8, 3), dtype=np.float32))
    assert decoding.is_blank(np.empty((0, 0, 3), dtype=np.uint8))
    grainy = flat + np.random.default_rng(0).integers(0, 3, flat.shape, dtype=np.uint8)
    assert decoding.is_blank(grainy)
    assert not decoding.is_blank(grainy, tolerance=0.5)
    dotted = flat.copy()
    dotted[3, 4:6] -= 128
    assert not decoding.is_blank(dotted)
    assert not decoding.is_blank(dotted.transpose(2, 0, 1))
    one_channel = flat.copy()
    one_channel[:20, :, 2] = 0
    assert not decoding.is_blank(one_channel)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_no_number_makes_a_picture_blank(value: float) -> None:
    pixels = np.random.default_rng(0).random((6, 5, 3), dtype=np.float32)
    assert not decoding.is_blank(pixels)
    pixels[2, 3, 1] = value
    assert decoding.is_blank(pixels)


def test_is_blank_names_the_shape_it_cannot_read() -> None:
    with pytest.raises(ImageSetError, match=r"got shape \[8, 8\]"):
        decoding.is_blank(np.zeros((8, 8)))
