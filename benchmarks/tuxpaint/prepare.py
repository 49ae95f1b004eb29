"""Tux Paint's stamps as captioned image sets: train, validation and test, no object in two of them.

    python benchmarks/tuxpaint/prepare.py            download, unpack, write the sets, count them
    python benchmarks/tuxpaint/prepare.py --check    only count what is there

The stamps are a Debian package, `tuxpaint-stamps-default`; `apt-get download` and `dpkg` fetch it without root, or an
archive that was downloaded before is taken from `--packages FOLDER`. Every stamp of pixels with a caption is there; the
caption is the first line, in English, of its text file. README.md beside this file says what they are.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from PIL import Image  # noqa: E402

from fetching import STAMPS, STAMPS_INSIDE, Archives, FetchError, command, unpack_debian  # noqa: E402
from gen2real.files import atomic_folder, sha256_of  # noqa: E402
from gen2real.imagesets import ImageSet  # noqa: E402
from gen2real.imagesets.decoding import decode  # noqa: E402

DATA = HERE / "data"
SHARES = {"test": 0.3, "validation": 0.1, "train": 1.0}
"""Of all stamps; the last takes the rest."""
COUNTS = {"train": 472, "validation": 78, "test": 235}
SIDE, MARGIN = 128, 1 / 12
"""Pixels of the square that a stamp lies on, and the part of it that stays white on each of its sides."""


@dataclass(frozen=True)
class Stamp:
    """One stamp. path: inside the stamps' folder."""

    path: Path
    caption: str

    @property
    def keys(self) -> tuple[str, ...]:
        """Stamps that share one of these show one object, or are told apart by no caption."""
        words = re.findall(r"[a-z]+", self.path.stem.casefold()) or [self.path.stem]
        said = " ".join(re.findall(r"\w+", self.caption.casefold()))
        # Variants of an object begin with its name: frog, frog-1; A_filled, a_outline; heron_greatblue_flying.
        return f"name:{self.path.parts[0]}/{words[0]}", f"caption:{said}"

    @property
    def is_photograph(self) -> bool:
        """As far as its folders tell."""
        folders = {*self.path.parent.parts}
        coin = "money" in folders and "00_symbols" not in folders
        return "cartoon" not in folders and (coin or "symbols" not in folders)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    return command(__doc__, DATA, build, check, arguments)


def build(out: Path, archives: Archives) -> None:
    """Writes the sets that are not there yet, each whole or not at all."""
    missing = [name for name in SHARES if not (out / name).exists()]
    if not missing:
        return
    unpacked = out / ".unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir(parents=True)
    unpack_debian(archives.path(STAMPS), unpacked)
    stamps = read_stamps(unpacked / STAMPS_INSIDE)
    parts = split(stamps)
    for name in missing:
        with atomic_folder(out / name) as unfinished:
            rows = [_row(stamp) for stamp in parts[name]]
            for stamp, row in zip(parts[name], rows, strict=True):
                path = unfinished / str(row["path"])
                path.parent.mkdir(parents=True, exist_ok=True)
                on_white(unpacked / STAMPS_INSIDE / stamp.path).save(path)
                row["sha256"] = sha256_of(path)
            ImageSet.write(unfinished, rows, [])
            photographs = [row for row, stamp in zip(rows, parts[name], strict=True) if stamp.is_photograph]
            ImageSet.write(unfinished, photographs, [], name="photographs.parquet")
        print(f"wrote {out / name}: {len(rows)} pictures")
    shutil.rmtree(unpacked)


def check(out: Path) -> None:
    """Counts the sets. Raises: FetchError where they are not those that were measured on."""
    absent = [name for name in SHARES if not (out / name).exists()]
    if absent:
        raise FetchError(f"{out} has no {', '.join(absent)}. Run: python benchmarks/tuxpaint/prepare.py")
    for name, expected in COUNTS.items():
        found, photographs = ImageSet.read(out / name), ImageSet.read(out / name / "photographs.parquet")
        captions = {caption for own in found.captions for caption in own}
        print(f"{name}: {len(found)} pictures, {len(captions)} captions; {len(photographs)} photographs")
        if len(found) != expected:
            raise FetchError(
                f"{name}: {len(found)} found, {expected} expected: another build of {STAMPS.package} than the one "
                "measured, or a folder that was changed. Delete the data folder and run this again."
            )


def read_stamps(folder: Path) -> list[Stamp]:
    """Every PNG with a text file that has a first line, by path. Mirrored copies have no text of their own."""
    found = []
    for path in sorted(folder.rglob("*.png")):
        text = path.with_suffix(".txt")
        lines = text.read_text(encoding="utf-8").splitlines() if text.is_file() else []
        if lines and lines[0].strip():
            found.append(Stamp(path.relative_to(folder), lines[0].strip()))
    return found


def split(stamps: Sequence[Stamp]) -> dict[str, list[Stamp]]:
    """The parts of SHARES, filled object by object in the order of a hash, which has nothing to do with their names."""
    objects = sorted(together(stamps), key=lambda own: sha256(own[0].path.as_posix().encode()).hexdigest())
    parts: dict[str, list[Stamp]] = {name: [] for name in SHARES}
    for own in objects:
        part = next(name for name, share in SHARES.items() if len(parts[name]) + len(own) <= share * len(stamps))
        parts[part] += own
    return {name: sorted(own, key=lambda stamp: stamp.path) for name, own in parts.items()}


def together(stamps: Iterable[Stamp]) -> list[list[Stamp]]:
    """Stamps by object: those that share a key, and those that share one with these."""
    group_of: dict[str, list[Stamp]] = {}
    for stamp in stamps:
        merged = [stamp]
        for known in {id(group_of[key]): group_of[key] for key in stamp.keys if key in group_of}.values():
            merged += known
        for one in merged:
            group_of |= dict.fromkeys(one.keys, merged)
    groups = {id(own): own for own in group_of.values()}.values()
    return [sorted(own, key=lambda stamp: stamp.path) for own in groups]


def on_white(path: Path) -> Image.Image:
    """The stamp in the middle of a white square of SIDE pixels, its longer side fitting between the margins."""
    stamp = decode(path)
    scale = SIDE * (1 - 2 * MARGIN) / max(stamp.size)
    width, height = (max(1, round(length * scale)) for length in stamp.size)
    square = Image.new("RGB", (SIDE, SIDE), (255, 255, 255))
    square.paste(stamp.resize((width, height), Image.Resampling.BICUBIC), ((SIDE - width) // 2, (SIDE - height) // 2))
    return square


def _row(stamp: Stamp) -> dict[str, object]:
    return {
        "id": stamp.path.with_suffix("").as_posix().replace("/", "-"),
        "path": f"pictures/{stamp.path.as_posix()}",
        "origin": "real",
        "captions": [stamp.caption],
    }


if __name__ == "__main__":
    sys.exit(main())
