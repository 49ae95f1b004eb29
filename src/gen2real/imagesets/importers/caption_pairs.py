"""An image set's captions → documents of a picture and a text, in either order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from gen2real.errors import ImageSetError
from gen2real.imagesets.importers.samples import ImportedSamples, LeftOut, Order, document, write_samples
from gen2real.imagesets.interleaved import MARK, Interleaved
from gen2real.imagesets.manifest import ImageSet

ORDERS = ("image-first", "text-first", "drawn", "both")


def import_pairs(
    image_set: str | Path | ImageSet, out: str | Path, *, order: Order = "drawn", seed: int = 0
) -> ImportedSamples:
    """A document for every caption of every picture that curation kept.

    Args:
        out: a new JSON Lines file.
        order: drawn for each pair by (seed, picture's id, caption) whether picture or text is first (ours: with
            pictures always first, nothing would teach a text alone to be found by its picture); or always the one, or
            both as two documents.

    Raises: ImageSetError where there are no captions, one holds a mark, or `out` exists.
    """
    if order not in ORDERS:
        raise ImageSetError(f"order must be one of {', '.join(ORDERS)}; got {order!r}.")
    found = image_set if isinstance(image_set, ImageSet) else ImageSet.read(image_set)
    if not any(found.captions):
        raise ImageSetError(f"no picture of {found.manifest} has a caption; pairs are made of pictures and captions.")
    return write_samples(out, _samples(found.kept(), order, seed), on_fault="error")


def _samples(pictures: ImageSet, order: Order, seed: int) -> Iterator[Interleaved | LeftOut]:
    for id, path, captions in zip(pictures.ids, pictures.paths, pictures.captions, strict=True):
        for number, caption in enumerate(captions):
            name, text = f"{id}-{number}", " ".join(caption.split())
            if not text or MARK in text:
                yield LeftOut(name, f"a caption must be a text without marks; got {caption!r}", "captions")
                continue
            forms = {"image-first": f"{MARK} {text}", "text-first": f"{text} {MARK}"}
            if order == "both":
                for form, written in forms.items():
                    yield document(f"{name}-{form}", written, [path])
                continue
            drawn = list(forms)[random.Random(f"{seed}/{name}").randrange(2)]
            yield document(name, forms[drawn if order == "drawn" else order], [path])
