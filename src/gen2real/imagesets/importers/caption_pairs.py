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
    image_set: str | Path | ImageSet,
    out: str | Path,
    *,
    order: Order = "drawn",
    column: str = "captions",
    seed: int = 0,
) -> ImportedSamples:
    """A document for every caption of every picture that curation kept.

    Args:
        out: a new JSON Lines file.
        order: drawn for each pair by (seed, picture's id, caption) whether picture or text is first (ours: with
            pictures always first, nothing would teach a text alone to be found by its picture); or always the one, or
            both as two documents.
        column: of the manifest, a text a row or a list of them; long captions may lie in another one than captions.

    Raises: ImageSetError where there is no such column, it holds no texts or one with a mark, or `out` exists.
    """
    if order not in ORDERS:
        raise ImageSetError(f"order must be one of {', '.join(ORDERS)}; got {order!r}.")
    found = image_set if isinstance(image_set, ImageSet) else ImageSet.read(image_set)
    if column not in found.table.column_names:
        raise ImageSetError(
            f"{found.manifest} has no column {column!r}; it has: {', '.join(found.table.column_names)}."
        )
    if not any(_texts(found, column)):
        raise ImageSetError(
            f"no picture of {found.manifest} has a text in the column {column!r}; pairs are made of pictures and texts."
        )
    return write_samples(out, _samples(found.kept(), order, column, seed), on_fault="error")


def _texts(pictures: ImageSet, column: str) -> list[list[str]]:
    given = pictures.table[column].to_pylist()
    texts = [one if isinstance(one, list) else [] if one is None else [one] for one in given]
    if others := [text for own in texts for text in own if not isinstance(text, str)]:
        raise ImageSetError(f"{pictures.manifest}: the column {column!r} must hold texts; it holds {others[0]!r}.")
    return texts


def _samples(pictures: ImageSet, order: Order, column: str, seed: int) -> Iterator[Interleaved | LeftOut]:
    for id, path, captions in zip(pictures.ids, pictures.paths, _texts(pictures, column), strict=True):
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
