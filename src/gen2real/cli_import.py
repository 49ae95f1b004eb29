"""gen2real import FORMAT: pictures you have become an image set, or interleaved samples (JSON Lines)."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from gen2real.cli_options import Json, Policy

if TYPE_CHECKING:
    from gen2real.imagesets import ImageSet, ImportedBenchmark, ImportedSamples

imports = App(
    name="import",
    help="Make an image set of pictures you have, or samples of pictures and texts.",
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
)

Out = Annotated[Path, Parameter(help="the image set to make: a new folder")]
Origin = Annotated[Literal["real", "generated"], Parameter(help="where the pictures come from")]
Link = Annotated[
    Literal["copy", "link", "reference"],
    Parameter(help="copy the pictures, hard-link them, or refer to them where they are"),
]
Split = Annotated[str | None, Parameter(help="which split to take")]
_LINKS: dict[str, bool | Literal["reference"]] = {"copy": False, "link": True, "reference": "reference"}

Samples = Annotated[Path, Parameter(help="the file of samples to make, JSON Lines")]
Folder = Annotated[Path, Parameter(help="the pictures' folder; they stay there")]
OnFault = Annotated[
    Literal["error", "skip"], Parameter(help="samples that cannot be used: list all and stop, or leave them out")
]


@imports.command
def imagefolder(
    source: Annotated[Path, Parameter(help="a folder with one folder of pictures for each class")],
    /,
    *,
    out: Out,
    names: Annotated[Path | None, Parameter(help="class names: one a line, or folder, tab, name, or JSON")] = None,
    nested: Annotated[
        Literal["top", "leaf"], Parameter(help="folders in class folders: part of the class, or classes themselves")
    ] = "top",
    origin: Origin = "real",
    pictures: Link = "copy",
    on_unreadable: Policy = "error",
    json: Json = False,
) -> None:
    """A folder for each class."""
    from gen2real.imagesets.importers import import_imagefolder

    made = import_imagefolder(
        source, out, names=names, nested=nested, origin=origin, link=_LINKS[pictures], on_unreadable=on_unreadable
    )
    _report(made, json)


@imports.command
def table(
    source: Annotated[
        Path, Parameter(help="CSV, TSV or JSON Lines with paths, and captions or labels if there are any")
    ],
    /,
    *,
    out: Out,
    root: Annotated[Path | None, Parameter(help="what the paths are relative to; the table's folder")] = None,
    path_column: Annotated[str | None, Parameter(help="found by its name if not given, as the next two")] = None,
    caption_column: Annotated[str | None, Parameter(help="may be missing")] = None,
    label_column: Annotated[str | None, Parameter(help="may be missing")] = None,
    names: Annotated[Path | None, Parameter(help="class names and their order, one a line")] = None,
    origin: Origin = "real",
    pictures: Link = "copy",
    on_unreadable: Policy = "error",
    json: Json = False,
) -> None:
    """A table of paths with captions or labels."""
    from gen2real.imagesets.importers import import_table
    from gen2real.prompts import read_class_names

    made = import_table(
        source,
        out,
        path_column=path_column,
        caption_column=caption_column,
        label_column=label_column,
        root=root,
        classes=None if names is None else read_class_names(names),
        origin=origin,
        link=_LINKS[pictures],
        on_unreadable=on_unreadable,
    )
    _report(made, json)


@imports.command
def coco(
    annotations: Annotated[Path, Parameter(help="captions_*.json, or Karpathy's dataset_*.json")],
    folder: Annotated[Path, Parameter(help="the pictures' folder")],
    /,
    *,
    out: Out,
    split: Annotated[tuple[str, ...], Parameter(help="of Karpathy's; may be repeated", show_default=False)] = (),
    origin: Origin = "real",
    pictures: Link = "copy",
    on_unreadable: Policy = "error",
    json: Json = False,
) -> None:
    """COCO captions, with Karpathy's splits."""
    from gen2real.imagesets.importers import import_coco

    made = import_coco(
        annotations,
        folder,
        out,
        split=split or None,
        origin=origin,
        link=_LINKS[pictures],
        on_unreadable=on_unreadable,
    )
    _report(made, json)


@imports.command
def coop(
    dataset: Annotated[str, Parameter(help="one of the 11 datasets, as dtd or oxford_pets")],
    root: Annotated[Path, Parameter(help="the folder that holds the dataset's folder, as CoOp lays it out")],
    /,
    *,
    out: Out,
    split: Annotated[Literal["train", "val", "test"], Parameter(help="by split_zhou_*.json")] = "test",
    pictures: Link = "copy",
    on_unreadable: Policy = "error",
    json: Json = False,
) -> None:
    """The paper's 11 datasets in CoOp's layout."""
    from gen2real.imagesets.importers import import_coop

    made = import_coop(dataset, root, out, split=split, link=_LINKS[pictures], on_unreadable=on_unreadable)
    _report(made, json)


@imports.command
def huggingface(
    source: Annotated[Path, Parameter(help="a folder of save_to_disk, or one that load_dataset reads")],
    /,
    *,
    out: Out,
    split: Split = None,
    image_column: Annotated[str | None, Parameter(help="found by its type if not given")] = None,
    label_column: Annotated[str | None, Parameter(help="found by its type or name if not given")] = None,
    caption_column: Annotated[str | None, Parameter(help="found by its name if not given")] = None,
    origin: Origin = "real",
    pictures: Link = "copy",
    on_unreadable: Policy = "error",
    json: Json = False,
) -> None:
    """A Hugging Face dataset on disk (pip install 'gen2real[datasets]')."""
    from gen2real.imagesets.importers import import_huggingface

    made = import_huggingface(
        source,
        out,
        split=split,
        image_column=image_column,
        label_column=label_column,
        caption_column=caption_column,
        origin=origin,
        link=_LINKS[pictures],
        on_unreadable=on_unreadable,
    )
    _report(made, json)


@imports.command
def webdataset(
    source: Annotated[Path, Parameter(help="a tar, or a folder of tars")],
    /,
    *,
    out: Out,
    names: Annotated[Path | None, Parameter(help="class names in the order of .cls, one a line")] = None,
    origin: Annotated[Literal["real", "generated"] | None, Parameter(help="what the tars say, if not given")] = None,
    on_unreadable: Policy = "error",
    json: Json = False,
) -> None:
    """WebDataset tars."""
    from gen2real.imagesets.importers import import_webdataset
    from gen2real.prompts import read_class_names

    classes = None if names is None else read_class_names(names)
    made = import_webdataset(source, out, classes=classes, origin=origin, on_unreadable=on_unreadable)
    _report(made, json)


@imports.command
def llava(
    source: Annotated[Path, Parameter(help="conversations in LLaVA's JSON, as llava_v1_5_mix665k.json")],
    folder: Folder,
    /,
    *,
    out: Samples,
    on_fault: OnFault = "error",
    json: Json = False,
) -> None:
    """Samples to learn from: LLaVA's conversations."""
    from gen2real.imagesets.importers import import_llava

    _report_samples(import_llava(source, folder, out, on_fault=on_fault), json)


@imports.command
def mmc4(
    source: Annotated[Path, Parameter(help="docs_*.jsonl or docs_*.jsonl.zip, or a folder of them")],
    folder: Folder,
    /,
    *,
    out: Samples,
    place: Annotated[Literal["before", "after"], Parameter(help="a picture and its sentence")] = "before",
    min_similarity: Annotated[float, Parameter(help="pictures that fit their sentence less stay away")] = 0.0,
    on_fault: OnFault = "skip",
    json: Json = False,
) -> None:
    """Samples to learn from: Multimodal C4's web pages."""
    from gen2real.imagesets.importers import import_mmc4

    made = import_mmc4(source, folder, out, place=place, min_similarity=min_similarity, on_fault=on_fault)
    _report_samples(made, json)


@imports.command
def vist(
    annotations: Annotated[Path, Parameter(help="stories in sequence, *.story-in-sequence.json")],
    folder: Folder,
    /,
    *,
    out: Samples,
    order: Annotated[
        Literal["image-first", "text-first"], Parameter(help="of a picture and its sentence")
    ] = "image-first",
    on_fault: OnFault = "skip",
    json: Json = False,
) -> None:
    """Samples to learn from: VIST's stories."""
    from gen2real.imagesets.importers import import_vist

    _report_samples(import_vist(annotations, folder, out, order=order, on_fault=on_fault), json)


@imports.command
def pairs(
    image_set: Annotated[Path, Parameter(help="an image set with captions")],
    /,
    *,
    out: Samples,
    order: Annotated[
        Literal["image-first", "text-first", "drawn", "both"],
        Parameter(help="of picture and caption; both: two samples"),
    ] = "drawn",
    column: Annotated[str, Parameter(help="of the manifest: texts other than the captions")] = "captions",
    seed: Annotated[int, Parameter(help="of the orders that are drawn")] = 0,
    json: Json = False,
) -> None:
    """Samples to learn from: an image set's captions."""
    from gen2real.imagesets.importers import import_pairs

    _report_samples(import_pairs(image_set, out, order=order, column=column, seed=seed), json)


@imports.command
def questions(
    source: Annotated[Path, Parameter(help="JSON Lines: image, question, answers or answer")],
    /,
    *,
    out: Samples,
    image_set: Annotated[Path | None, Parameter(name="--set", help="whose pictures' ids the file names")] = None,
    turns: Annotated[int | None, Parameter(help="of a picture's questions at most so many [default: all]")] = None,
    seed: Annotated[int, Parameter(help="of the questions that are drawn")] = 0,
    json: Json = False,
) -> None:
    """Samples to learn from: questions about pictures, with answers."""
    from gen2real.imagesets.importers import import_questions

    _report_samples(import_questions(source, out, image_set=image_set, turns=turns, seed=seed), json)


@imports.command
def benchmark(
    name: Annotated[str, Parameter(help="which one; see above")],
    source: Annotated[Path, Parameter(help="the folder with its files, as it is published")],
    folder: Annotated[Path | None, Parameter(help="the folder with its pictures [default: the same]")] = None,
    /,
    *,
    out: Annotated[Path, Parameter(help="the task's file to make, JSON Lines")],
    split: Annotated[
        str | None, Parameter(help="as its files call it [default: the one with answers that is measured on]")
    ] = None,
    instruction: Annotated[
        str | None, Parameter(help='said after each question, "" for nothing [default: as LLaVA-1.5 was asked]')
    ] = None,
    distractors: Annotated[int, Parameter(help="webqa: so many sources that are not right among the facts")] = 0,
    on_fault: Annotated[
        Literal["error", "skip"], Parameter(help="items that cannot be read: list all and stop, or leave them out")
    ] = "error",
    json: Json = False,
) -> None:
    """Questions to measure on: a public benchmark.

    NAME, and what evaluate measures:

    questions: vqav2, gqa, vizwiz, textvqa

    yes-no: pope, mme

    choice: scienceqa, mmbench, mmmu, seed, demon-choice

    knowledge: webqa, demon

    position: webqa-position

    winoground: winoground

    judged by others, of what gen2real answer writes: mm-vet, llava-wild

    So are the hidden tests of vqav2 (--split test2015), vizwiz and mmbench (test).
    COCO's captions are for import coco, VIST's stories for import vist.
    """
    from gen2real.imagesets.importers import import_benchmark

    made = import_benchmark(
        name,
        source,
        out,
        pictures=folder,
        split=split,
        instruction=instruction,
        distractors=distractors,
        on_fault=on_fault,
    )
    _report_benchmark(made, json)


def _report_benchmark(made: ImportedBenchmark, as_json: bool) -> None:
    if as_json:
        print(jsonlib.dumps(made.to_json()))
        return
    missing = [f"left out: {count}, {why}" for why, count in made.left_out.items()]
    print("; ".join([f"{made.path}: {made.items} items, {made.pictures} pictures", *missing]))
    if made.unanswered:
        print(f"{made.unanswered} without a right answer, for others to judge: gen2real answer MODEL {made.path}")
    elif made.task is not None:
        print(f"gen2real evaluate MODEL {made.path} --task {made.task}")


def _report(made: ImageSet, as_json: bool) -> None:
    labelled = int((made.labels >= 0).sum())
    found = {"set": str(made.root), "pictures": len(made), "labelled": labelled, "classes": len(made.classes)}
    text = f"{made.root}: {len(made)} pictures, {labelled} of them labelled, {len(made.classes)} classes"
    print(jsonlib.dumps(found) if as_json else text)


def _report_samples(made: ImportedSamples, as_json: bool) -> None:
    missing = [f"left out: {count}, {why}" for why, count in made.left_out.items()]
    text = "; ".join([f"{made.path}: {made.samples} samples of {made.pictures} pictures", *missing])
    print(jsonlib.dumps(made.to_json()) if as_json else text)
