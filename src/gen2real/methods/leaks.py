"""A picture to be tested on must not be trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gen2real.errors import ImageSetError
from gen2real.imagesets.manifest import ImageSet


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
