"""The eleven datasets that name-only transfer is measured on, laid out as CoOp's instructions lay them out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import Policy
from gen2real.imagesets.importers.writer import Entry, Link, write_entries
from gen2real.imagesets.manifest import ImageSet

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class CoopDataset:
    """Where one dataset lies: its folder, its pictures in there, its split file (None: it has lists of its own)."""

    folder: str
    pictures: str
    split_file: str | None
    classes: int


COOP_DATASETS: Mapping[str, CoopDataset] = {
    "imagenet": CoopDataset("imagenet", "images", None, 1000),
    "caltech-101": CoopDataset("caltech-101", "101_ObjectCategories", "split_zhou_Caltech101.json", 100),
    "dtd": CoopDataset("dtd", "images", "split_zhou_DescribableTextures.json", 47),
    "eurosat": CoopDataset("eurosat", "2750", "split_zhou_EuroSAT.json", 10),
    "fgvc_aircraft": CoopDataset("fgvc_aircraft", "images", None, 100),
    "food-101": CoopDataset("food-101", "images", "split_zhou_Food101.json", 101),
    "oxford_flowers": CoopDataset("oxford_flowers", "jpg", "split_zhou_OxfordFlowers.json", 102),
    "oxford_pets": CoopDataset("oxford_pets", "images", "split_zhou_OxfordPets.json", 37),
    "stanford_cars": CoopDataset("stanford_cars", "", "split_zhou_StanfordCars.json", 196),
    "sun397": CoopDataset("sun397", "SUN397", "split_zhou_SUN397.json", 397),
    "ucf101": CoopDataset("ucf101", "UCF-101-midframes", "split_zhou_UCF101.json", 101),
}


def import_coop(
    dataset: str,
    root: str | Path,
    out: str | Path,
    *,
    split: Split = "test",
    link: Link = False,
    on_unreadable: Policy = "error",
) -> ImageSet:
    """Takes in one split of one of `COOP_DATASETS` from the user's own copy.

    root: the folder that holds the dataset's folder, or that folder itself.
    split: "train", "val" or "test". ImageNet's "test" and "val" are both its validation pictures, as CoOp has it.

    Class names and their order are those of all splits together, so that the splits' labels agree.
    See `write_entries` for link and on_unreadable. Raises: ImageSetError, UnreadablePictures.
    """
    if dataset not in COOP_DATASETS:
        raise ImageSetError(f"dataset must be one of {', '.join(COOP_DATASETS)}; got {dataset!r}.")
    if split not in get_args(Split):
        raise ImageSetError(f"split must be one of {', '.join(get_args(Split))}; got {split!r}.")
    layout = COOP_DATASETS[dataset]
    root = Path(root)
    home = root / layout.folder if (root / layout.folder).is_dir() else root
    if dataset == "imagenet":
        names, entries = _imagenet(home, split)
    elif dataset == "fgvc_aircraft":
        names, entries = _aircraft(home, split)
    else:
        assert layout.split_file is not None
        names, entries = _by_split_file(home / layout.split_file, home / layout.pictures, split)
    return write_entries(out, entries, names, link=link, on_unreadable=on_unreadable)


def _by_split_file(file: Path, pictures: Path, split: str) -> tuple[list[str], Iterator[Entry]]:
    content: dict[str, list[tuple[str, int, str]]] = json.loads(_text(file))
    names: dict[int, str] = {}
    try:
        for part in content.values():
            for _, label, name in part:
                if names.setdefault(int(label), name) != name:
                    raise ImageSetError(f"{file}: label {label} is called both {names[int(label)]!r} and {name!r}.")
        rows = content[split]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ImageSetError):
            raise
        raise ImageSetError(f'{file} must be {{"train": [[path, label, name], …], "val": …, "test": …}}.') from error
    if sorted(names) != list(range(len(names))):
        raise ImageSetError(f"{file}: labels must be 0…{len(names) - 1} without gaps; got {sorted(names)[:10]}….")
    _folder(pictures)
    entries = (Entry(pictures / path, Path(path).stem, int(label)) for path, label, _ in rows)
    return [names[label] for label in range(len(names))], entries


def _aircraft(home: Path, split: str) -> tuple[list[str], Iterator[Entry]]:
    names = _lines(home / "variants.txt")
    lists = home / f"images_variant_{split}.txt"
    index = {name: label for label, name in enumerate(names)}
    rows = [line.split(" ", 1) for line in _lines(lists)]
    strange = sorted({row[-1] for row in rows if len(row) != 2 or row[1] not in index})
    if strange:
        raise ImageSetError(f"{lists}: variants that variants.txt does not have: {strange[:5]}.")
    pictures = _folder(home / "images")
    return names, (Entry(pictures / f"{number}.jpg", number, index[name]) for number, name in rows)


def _imagenet(home: Path, split: str) -> tuple[list[str], Iterator[Entry]]:
    file = home / "classnames.txt"
    pairs = [line.split(" ", 1) for line in _lines(file)]
    if any(len(pair) != 2 for pair in pairs):
        raise ImageSetError(f"{file}: each line must be a WordNet id and a name, e.g. 'n01440764 tench'.")
    pictures = _folder(home / "images" / ("train" if split == "train" else "val"))
    known = {folder for folder, _ in pairs}
    strange = sorted(item.name for item in pictures.iterdir() if item.is_dir() and item.name not in known)
    if strange:
        raise ImageSetError(f"{pictures}: folders that classnames.txt does not name: {strange[:5]}.")
    entries = (
        Entry(path, path.stem, label)
        for label, (folder, _) in enumerate(pairs)
        for path in _files_in(pictures / folder)
    )
    return [name.strip() for _, name in pairs], entries


def _files_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise ImageSetError(
            f"{path} is not there. Lay the dataset out as in CoOp's DATASETS.md and give the folder that holds it."
        )
    return path


def _text(file: Path) -> str:
    if not file.is_file():
        raise ImageSetError(
            f"{file} is not there. Lay the dataset out as in CoOp's DATASETS.md and give the folder that holds it."
        )
    return file.read_text(encoding="utf-8")


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in _text(file).splitlines() if line.strip()]
