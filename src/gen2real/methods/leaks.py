"""A picture to be tested on must not be trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gen2real.errors import ImageSetError
from gen2real.files import sha256_of
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.named_pictures import named_pictures


def shared_pictures(one: ImageSet, other: ImageSet) -> set[str]:
    """SHA-256 of the pictures that are in both, byte for byte. Hashes are content, not labels."""
    hashes = [set(image_set.table["sha256"].to_pylist()) - {None} for image_set in (one, other)]
    return hashes[0] & hashes[1]


def refuse_leak(evaluation: Path, trained: Iterable[ImageSet]) -> None:
    """Raises: ImageSetError where a picture of the evaluation set is among those that are trained on."""
    tested = ImageSet.read(evaluation)
    for source in trained:
        if shared := shared_pictures(tested, source):
            raise ImageSetError(
                f"{len(shared)} picture(s) of {source.root} are also in the evaluation set {evaluation}, byte for byte "
                f"(first: sha256 {min(shared)[:12]}…). "
                "Accuracy on pictures that were trained on says nothing; remove them from one of the two."
            )


def refuse_leaked_files(evaluation: Path, trained: Iterable[Path]) -> None:
    """The same of what is measured on, an image set or a JSON Lines file, and the picture files that are trained on.

    Raises: ImageSetError where they share a picture, byte for byte; for a file that is not there or not JSON Lines.
    """
    tested = set(_pictures_of(evaluation))
    # Files of other sizes are other files: hardly one is read.
    sizes = {path.stat().st_size for path in tested}
    hashes = {sha256_of(path) for path in tested} if tested else set()
    shared = [path for path in trained if path.stat().st_size in sizes and sha256_of(path) in hashes]
    if shared:
        raise ImageSetError(
            f"{len(shared)} picture(s) that are trained on are also in {evaluation}, byte for byte (first: {shared[0]}"
            "). Numbers on pictures that were trained on say nothing; remove them from one of the two."
        )


def _pictures_of(path: Path) -> list[Path]:
    """Every picture that is there of an image set, or that a JSON Lines file names."""
    if path.is_dir() or path.suffix != ".jsonl":
        return [picture for picture in ImageSet.read(path).kept().paths if picture.is_file()]
    return named_pictures(path)
