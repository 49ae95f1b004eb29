"""COCO captions, plain or with Karpathy's splits → an image set."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import Policy
from gen2real.imagesets.importers.writer import Entry, Link, write_entries
from gen2real.imagesets.manifest import ImageSet


def import_coco(
    annotations: str | Path,
    pictures: str | Path,
    out: str | Path,
    *,
    split: str | Sequence[str] | None = None,
    origin: str = "real",
    link: Link = False,
    on_unreadable: Policy = "error",
) -> ImageSet:
    """Takes in the pictures and captions of a COCO JSON file.

    annotations: COCO's own `captions_*.json` (images, annotations), or Karpathy's `dataset_coco.json` (also of
        Flickr30k and Flickr8k; images with sentences and a split).
    pictures: the folder that the files' paths start from (Karpathy's: the one that holds `val2014` and `train2014`).
    split: for Karpathy's file, one or several of its splits, e.g. "test" or ["train", "restval"]; all if not given.
        It is kept in the column `split`.

    See `write_entries` for link, origin and on_unreadable. Raises: ImageSetError, UnreadablePictures.
    """
    annotations, pictures = Path(annotations), Path(pictures)
    if not annotations.is_file():
        raise ImageSetError(f"{annotations} does not exist. Give captions_*.json or Karpathy's dataset_coco.json.")
    if not pictures.is_dir():
        raise ImageSetError(f"{pictures} is not a folder. Give the folder that the pictures' file names start from.")
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ImageSetError(f"{annotations} is not JSON ({error}).") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise ImageSetError(
            f"{annotations} has no list \"images\", so it is neither COCO's captions nor Karpathy's file."
        )
    wanted = None if split is None else {split} if isinstance(split, str) else set(split)
    try:
        if "sentences" in images[0]:
            entries = list(_karpathy(annotations, images, pictures, wanted))
        else:
            entries = list(_plain(annotations, content, pictures, wanted))
    except (KeyError, TypeError) as error:
        raise ImageSetError(f"{annotations}: a picture or an annotation lacks {error}.") from error
    silent = sum(not entry.captions for entry in entries)
    if silent:
        warnings.warn(f"{silent} of {len(entries)} pictures in {annotations} have no caption", stacklevel=2)
    return write_entries(out, entries, [], origin=origin, link=link, on_unreadable=on_unreadable)


def _karpathy(
    annotations: Path, images: Sequence[Mapping[str, Any]], pictures: Path, wanted: set[str] | None
) -> Iterator[Entry]:
    splits = {image["split"] for image in images}
    if wanted is not None and not wanted <= splits:
        raise ImageSetError(
            f"{annotations} has no split {sorted(wanted - splits)}; it has {sorted(splits)}. "
            f"Choose among these: --split {sorted(splits)[0]}"
        )
    for image in images:
        if wanted is None or image["split"] in wanted:
            path = pictures / image.get("filepath", "") / image["filename"]
            captions = [" ".join(sentence["raw"].split()) for sentence in image["sentences"]]
            yield Entry(path, path.stem, None, captions, {"split": image["split"]})


def _plain(annotations: Path, content: Mapping[str, Any], pictures: Path, wanted: set[str] | None) -> Iterator[Entry]:
    if wanted is not None:
        raise ImageSetError(f"{annotations} has no splits: COCO has one file a split. Leave --split out.")
    if "annotations" not in content:
        raise ImageSetError(f'{annotations} has no list "annotations"; the file without captions is image_info_*.json.')
    captions: dict[Any, list[str]] = {}
    for annotation in content["annotations"]:
        if "caption" not in annotation:
            raise ImageSetError(f"{annotations} holds no captions (instances or keypoints?). Give captions_*.json.")
        captions.setdefault(annotation["image_id"], []).append(" ".join(annotation["caption"].split()))
    for image in content["images"]:
        path = pictures / image["file_name"]
        yield Entry(path, path.stem, None, captions.get(image["id"], []))
