"""The set while it is being drawn: pictures, and a journal that survives a kill at any moment.

    OUT/pictures/<class>/<name>.png     whole or not there
    OUT/generation/recipe.json          what is drawn; another recipe is refused
    OUT/generation/journal/*.jsonl      a line for each finished picture, a file for each process; gone at the end
    OUT/manifest.parquet                written by whoever finds that nothing is left to do

A picture is finished when its line is in a journal. Its file comes first, so a kill in between means that it is drawn
again, to the same bytes. No two processes write one file, so nothing is locked.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from gen2real.config import differing_keys, dump
from gen2real.errors import ImageSetError, RecipeError
from gen2real.files import append_line, atomic_file, read_json, remove_leftovers, write_json, write_text
from gen2real.generation.pictures import encode_picture
from gen2real.generation.plan import Plan, PlannedPicture, columns_of
from gen2real.generation.settings import GenerateConfig
from gen2real.imagesets.hashing import perceptual_hash
from gen2real.imagesets.manifest import MANIFEST, ImageSet

PICTURES = "pictures"
# No slug begins with "_", so no class has this folder.
_UNLABELLED = "_unlabelled"
OF_THE_SET = {"path", "origin", "kept", "reason", "captions", "sha256", "phash"}
"""What a picture's own metadata leaves out: it is about the file, or changes when the set is curated."""


class SetWriter:
    """One process's hand on the output folder of a generation.

    Raises: RecipeError where the folder holds a generation of other settings, with the keys that differ; ImageSetError
        where it holds something else.
    """

    def __init__(self, config: GenerateConfig, plan: Plan) -> None:
        self.root = config.output
        self.plan = plan
        self._format = config.picture_format
        self._work = self.root / "generation"
        self._journals = self._work / "journal"
        self._journal = self._journals / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.jsonl"
        self._recipe = dump(config)
        self._settings = {**config.drawing, "content of source": plan.fingerprint}
        self._refuse_another()

    @property
    def finished(self) -> bool:
        """Whether the manifest is written, and with it the whole set."""
        return (self.root / MANIFEST).exists()

    def begin(self) -> None:
        """Makes the folder this generation's own; nothing is written before."""
        if not (self._work / "recipe.json").exists():
            write_text(self._work / "recipe.yaml", self._recipe)
            write_json(self._work / "recipe.json", self._settings)
        self._journals.mkdir(exist_ok=True)

    def done(self) -> dict[str, dict[str, Any]]:
        """id → row of every finished picture of all processes; a line torn by a kill is none."""
        found: dict[str, dict[str, Any]] = {}
        for row in self._lines():
            if row["id"] not in found and (self.root / row["path"]).is_file():
                found[row["id"]] = row
        return found

    def store(
        self, picture: PlannedPicture, pixels: npt.NDArray[np.uint8], drawn: Mapping[str, Any], reason: str | None
    ) -> int:
        """Writes a picture and then its line; gives the file's size in bytes. Called in a thread of its own.

        drawn: seed, redraws and the generator's columns. reason: why it is not kept, or None.
        """
        folder = picture.label or _UNLABELLED
        stored = f"{PICTURES}/{folder}/{picture.id.rpartition('/')[2]}.{self._format}"
        row = {**columns_of(picture), **drawn, "path": stored, "kept": reason is None, "reason": reason}
        content = encode_picture(pixels, self._format, {key: row[key] for key in row if key not in OF_THE_SET})
        with atomic_file(self.root / stored) as partial:
            partial.write_bytes(content)
        row |= {"sha256": hashlib.sha256(content).hexdigest(), "phash": perceptual_hash(Image.fromarray(pixels))}
        append_line(self._journal, json.dumps(row, ensure_ascii=False))
        return len(content)

    def finish(self) -> ImageSet | None:
        """The set, its manifest written if every picture is done; None while other processes still draw."""
        if not self.finished:
            done = self.done()
            if any(one.id not in done for one in self.plan.pictures):
                return ImageSet.read(self.root) if self.finished else None
            for folder in {(self.root / row["path"]).parent for row in done.values()}:
                remove_leftovers(folder)
            rows = [done[one.id] for one in self.plan.pictures]
            try:
                ImageSet.write(self.root, rows, self.plan.classes)
            except ImageSetError:
                # Another process has found the same at the same moment.
                if not self.finished:
                    raise
        made = ImageSet.read(self.root)
        shutil.rmtree(self._journals, ignore_errors=True)
        return made

    def _refuse_another(self) -> None:
        known = self._work / "recipe.json"
        if known.exists():
            changes = differing_keys(read_json(known), self._settings)
            if changes:
                listed = "\n".join(f"  {change}" for change in changes)
                raise RecipeError(
                    f"{self.root} holds a generation of other settings. What differs:\n{listed}\n"
                    f"Give this one a folder of its own (--out FOLDER), or remove {self.root} to start over."
                )
        # Another process may be a moment ahead with the same; a kill may have come before the recipe.
        elif self.root.exists() and (not self.root.is_dir() or {*self.root.iterdir()} - {self._work}):
            raise ImageSetError(
                f"{self.root} exists already and is no unfinished generation. Choose another folder with --out, or "
                f"remove it first: rm -r {self.root}"
            )

    def _lines(self) -> Iterator[dict[str, Any]]:
        for journal in sorted(self._journals.glob("*.jsonl")):
            try:
                content = journal.read_bytes()
            except FileNotFoundError:
                # Whoever wrote the manifest is clearing up.
                continue
            for line in content.split(b"\n"):
                # A line is whole or torn by a kill, perhaps in the middle of a letter.
                with suppress(ValueError):
                    yield json.loads(line)
