"""Does what alignment learns on some classes help on others? Five random halves of the 152 classes, each way round.

    python benchmarks/drawn2photo/halves.py               all runs and the table; resumes; an hour on one core
    python benchmarks/drawn2photo/halves.py --seeds 0     one half pair
    python benchmarks/drawn2photo/halves.py --publish     also writes the table to benchmarks/drawn2photo/results

One half's drawings and photographs, paired by class, are aligned on; the photographs of the other half are looked at.
Every arm has the same number of updates. Of a run only f_g is kept, and read here in three ways:

    prototypes   each unseen class is the mean of its drawings through f_g; photographs go through f_r
    head         RegFT's head, trained on drawings of all classes through f_g; photographs go through f_r
    photographs through f_g, against the names' zero-shot head

Over the two directions each photograph is unseen once a seed, so that every number is a mean over the same [seeds, 208]
and tests are paired. The transductive arms align drawings to all photographs as a distribution, without any label.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DATA = HERE / "data"
STYLES = ("noto", "twemoji", "fluent")
SEEDS = (0, 1, 2, 3, 4)
TEMPLATE = "a photo of a {}"
VIEWS = 4
"""Of each drawing, for the head; the 24 of recipes/head.yaml would take most of the time."""

ALIGNED = {"loss": "align+text", "align.moments": 10}
"""As on the kit, where equation 1 without the moments moved f_g away from f_r (benchmarks/kit)."""
ARMS: dict[str, dict[str, Any]] = {
    "no alignment": {"loss": "text"},
    "aligned": ALIGNED,
    "aligned, Algorithm 1": {"loss": "align"},
    "real": {"loss": "text", "data.train_on": "real"},
    "real, aligned": {**ALIGNED, "data.train_on": "real"},
    "mixed": {**ALIGNED, "data.train_on": "mixed"},
    "aligned, rank 2": {**ALIGNED, "lora.rank": 2, "lora.alpha": 4},
    "aligned, a third of the drawings": {**ALIGNED, "data.pictures": 100},
}
HEADS = {"RegFT on unaligned": "", "RegFT on aligned": "aligned"}
ON_EVERYTHING: dict[str, dict[str, Any]] = {
    "distributions aligned": {"loss": "distribution"},
    "distributions aligned, MMD": {"loss": "distribution", "align.form": "mmd"},
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    every = [*ARMS, *HEADS, *ON_EVERYTHING]
    parser.add_argument("--arms", nargs="*", choices=every, default=every, help="none: the table alone")
    parser.add_argument("--steps", type=int, help="updates of every arm, instead of the recipe's; to try it out")
    parser.add_argument("--publish", action="store_true", help="write the table, with its provenance, to results/")
    parser.add_argument("--output", type=Path, default=Path("runs/drawn2photo/halves"), help="where the runs go")
    options = parser.parse_args()

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import fetch
    from halves_table import table, to_json

    from publishing import provenance

    if fetch.main(["--check"]):
        raise SystemExit(1)
    bench = Bench(options.output, options.steps)
    for seed in options.seeds:
        for arm in options.arms:
            bench.run(seed, arm)
    found = bench.found(options.seeds)
    print(table(found))
    if options.publish:
        from gen2real.files import write_json, write_text

        stated = provenance("python benchmarks/drawn2photo/halves.py --publish")
        lines = "".join(f"{key}: {value}\n" for key, value in stated.items())
        write_text(HERE / "results" / "halves.md", f"{table(found)}\n```text\n{lines}```\n")
        write_json(HERE / "results" / "halves.json", {"provenance": stated, **to_json(found)})


class Bench:
    """The runs. What each one found lies beside it as `found.json`; a second call reads that."""

    def __init__(self, output: Path, steps: int | None) -> None:
        from gen2real.imagesets import ImageSet
        from gen2real.models import load_dual_encoder

        self.output = output
        self.more = [] if steps is None else [f"training.steps={steps}"]
        self.encoder = load_dual_encoder("benchmarks.drawn2photo.towers:build_kernel_towers")
        self.photos = ImageSet.read(DATA / "photos")
        self.drawings = [ImageSet.read(DATA / f"drawn-{style}") for style in STYLES]
        self.labels = self.photos.labels
        self.drawn_labels = np.concatenate([one.labels for one in self.drawings])
        self.names = self.photos.class_names
        self.raw = self.features("f_r", [self.photos])
        self.real = normalize(self.raw, dim=1)
        self.drawn = normalize(self.features("f_r", self.drawings), dim=1)
        with torch.no_grad():
            self.head = normalize(self.encoder.encode_text([TEMPLATE.format(name) for name in self.names]), dim=1)

    def run(self, seed: int, arm: str) -> None:
        """One arm of one seed, both ways round."""
        sides = write_halves(seed)
        if arm in ARMS:
            for side, seen in sides.items():
                folder = self.output / f"{seed}-{side}" / _folder(arm)
                if not (folder / "found.json").exists():
                    self._align(folder / "run", seed, {**paths(seed, side), **ARMS[arm]})
                    self._keep(folder / "found.json", self.looked_at(folder / "run", ~seen))
                    if arm not in HEADS.values():
                        self._forget(folder)
            return
        if aligned := HEADS.get(arm):
            for side, seen in sides.items():
                folder = self.output / f"{seed}-{side}" / _folder(aligned)
                if not (folder / "head.json").exists():
                    values = self.head_of(folder / "head", folder / "run", seed, [~seen])
                    self._keep(folder / "head.json", values)
                    self._forget(folder)
            return
        folder = self.output / f"{seed}-all" / _folder(arm)
        if (folder / "head.json").exists():
            return
        if arm in ON_EVERYTHING:
            sets = {
                "data.generated": [str(DATA / f"drawn-{style}") for style in STYLES],
                "data.real": str(DATA / "photos"),
                "align.same_partner": "literal",
            }
            self._align(folder / "run", seed, {**sets, **ON_EVERYTHING[arm]})
        start = folder / "run" if arm in ON_EVERYTHING else None
        self._keep(folder / "head.json", self.head_of(folder / "head", start, seed, list(sides.values())))
        self._forget(folder)

    def looked_at(self, run: Path, unseen_classes: np.ndarray) -> dict[str, list[float | None]]:
        """One value for each of the 208 photographs (NaN where its class was aligned on), read as the module says."""
        from gen2real.models.aligned import load_aligned

        tower = load_aligned(run).tower("f_g")
        photos = np.flatnonzero(unseen_classes[self.labels])
        drawings = np.flatnonzero(unseen_classes[self.drawn_labels])
        classes = np.flatnonzero(unseen_classes)
        through = normalize(self.features(tower, [self.photos.select(photos)]), dim=1)
        sizes = np.cumsum([0, *map(len, self.drawings)])
        parts = [drawings[(drawings >= low) & (drawings < high)] - low for low, high in itertools.pairwise(sizes)]
        chosen = [one.select(rows) for one, rows in zip(self.drawings, parts, strict=True)]
        drawn = normalize(self.features(tower, chosen), dim=1)
        found: dict[str, np.ndarray] = {}
        everything = np.arange(len(self.names))
        for name, own in (("f_r", self.real[photos]), ("f_g", through)):
            found[f"zero-shot {name}, unseen"] = self._top1(own @ self.head.T, classes, photos)
            found[f"zero-shot {name}, all"] = self._top1(own @ self.head.T, everything, photos)
        for name, own in (("before", self.drawn[drawings]), ("after", drawn)):
            means = torch.zeros(len(self.names), own.shape[1])
            means.index_add_(0, torch.from_numpy(self.drawn_labels[drawings]), own)
            found[f"prototypes {name}"] = self._top1(self.real[photos] @ normalize(means, dim=1).T, classes, photos)
            cosines = (self.real[photos] @ own.T).double().numpy()
            same = self.labels[photos][:, None] == self.drawn_labels[drawings][None]
            with np.errstate(invalid="ignore"):
                found[f"cosine of true pairs {name}"] = (cosines * same).sum(1) / same.sum(1)
            found[f"cosine of shuffled pairs {name}"] = (cosines * ~same).sum(1) / (~same).sum(1)
        return {name: self._spread(values, photos) for name, values in found.items()}

    def head_of(self, folder: Path, run: Path | None, seed: int, unseen: list[np.ndarray]) -> Any:
        """RegFT's head as recipes/head.yaml has it, on drawings through the run's f_g, else f_r; photographs: f_r."""
        from gen2real import RegFTConfig, load_recipe
        from gen2real import run as run_recipe
        from gen2real.files import read_tensors

        start = [] if run is None else ["encoder.name=null", f"encoder.init={run}", "encoder.generated_through=f_g"]
        changes = [f"output={folder}", f"data.views={VIEWS}", f"seed={seed}", "gap=false", *start]
        recipe = load_recipe(HERE / "recipes" / "head.yaml", {"regft": RegFTConfig}, changes)
        result: Any = run_recipe(recipe, quiet=True)
        photos = np.flatnonzero(np.any(unseen, axis=0)[self.labels])
        found = {
            f"{name}, all": result.correct(reading)[photos]
            for name, reading in (
                ("head", "tuned"),
                ("head + WSE", "blend"),
                ("head + WSE, mean of photographs", "transductive_blend"),
            )
        }
        blend = read_tensors(folder / "model" / "head.safetensors")
        logits = normalize(self.raw - blend["feature_mean"], dim=1)[photos] @ blend["weight"].T + blend["bias"]
        agreed = (self._top1(logits, np.arange(len(self.names)), photos) == found["head + WSE, all"]).mean()
        assert agreed > 0.99, f"{folder}: only {agreed:.1%} of the answers are those of the run"
        for classes in unseen:
            own = classes[self.labels[photos]]
            answers = self._top1(logits[torch.from_numpy(own)], np.flatnonzero(classes), photos[own])
            found.setdefault("head + WSE, unseen", np.zeros(len(photos), dtype=bool))[own] = answers
        shutil.rmtree(folder / "model")
        return {name: self._spread(values, photos) for name, values in found.items()}

    def features(self, branch: Any, sets: list[Any]) -> Tensor:
        """[N D] un-normalised features of image sets through a tower ("f_r": the original one, kept on disk)."""
        from gen2real.evaluation.features import FeatureCache, cached_views, encode_pictures
        from gen2real.imagesets import Pictures

        pictures = [Pictures(one, self.encoder.preprocess) for one in sets]
        if branch == "f_r":
            cache = FeatureCache()
            return torch.cat(
                [cached_views(self.encoder.vision, one, views=1, seed=0, cache=cache)[0] for one in pictures]
            )
        return torch.cat([encode_pictures(branch, one) for one in pictures])

    def found(self, seeds: list[int]) -> dict[str, dict[str, np.ndarray]]:
        """Arm → reading → [S 208], over the seeds that have ended in both directions."""
        arms: dict[str, dict[str, np.ndarray]] = {}
        for arm in ARMS:
            for name in ("found.json", "head.json"):
                pairs = [[self.output / f"{seed}-{side}" / _folder(arm) / name for side in "ab"] for seed in seeds]
                ended = [[_values(path) for path in pair] for pair in pairs if all(path.exists() for path in pair)]
                for reading in ended[0][0] if ended else ():
                    both = [np.where(np.isnan(a[reading]), b[reading], a[reading]) for a, b in ended]
                    arms.setdefault(arm, {})[reading] = np.stack(both)
        for arm in ("RegFT on unaligned", *ON_EVERYTHING):
            every = [self.output / f"{seed}-all" / _folder(arm) / "head.json" for seed in seeds]
            ended_heads = [_values(path) for path in every if path.exists()]
            for reading in ended_heads[0] if ended_heads else ():
                arms.setdefault(arm, {})[reading] = np.stack([one[reading] for one in ended_heads])
        return arms

    def _align(self, folder: Path, seed: int, changes: dict[str, Any]) -> None:
        from gen2real import load_recipe, run
        from gen2real.methods import CONFIGS

        written = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
        recipe = load_recipe(
            HERE / "recipes" / "halves.yaml", CONFIGS, [f"output={folder}", f"seed={seed}", *written, *self.more]
        )
        run(recipe, quiet=True)

    def _keep(self, path: Path, values: dict[str, list[float | None]]) -> None:
        from gen2real.files import write_json

        write_json(path, values)
        print(f"{path}: done", file=sys.stderr, flush=True)

    def _forget(self, folder: Path) -> None:
        # The whole encoder, 110 MB a run, of which only the adapter is this run's own.
        shutil.rmtree(folder / "run" / "model", ignore_errors=True)

    def _top1(self, scores: Tensor, among: np.ndarray, photos: np.ndarray) -> np.ndarray:
        answers: np.ndarray = among[scores[:, torch.from_numpy(among)].argmax(dim=1).numpy()]
        return answers == self.labels[photos]

    def _spread(self, values: np.ndarray, photos: np.ndarray) -> list[float | None]:
        row: list[float | None] = [None] * len(self.labels)
        for place, value in zip(photos.tolist(), values.tolist(), strict=True):
            row[place] = float(value) if np.isfinite(value) else None
        return row


def half(seed: int, classes: int) -> np.ndarray:
    """Bool [C]: the classes of side a; side b has the others."""
    order = np.random.default_rng(seed).permutation(classes)
    chosen = np.zeros(classes, dtype=bool)
    chosen[order[: classes // 2]] = True
    return chosen


def paths(seed: int, side: str) -> dict[str, Any]:
    """What a recipe's data say: the pairs of this side."""
    return {
        "data.generated": [str(DATA / f"drawn-{style}" / f"half-{seed}-{side}.parquet") for style in STYLES],
        "data.real": str(DATA / "photos" / f"half-{seed}-{side}.parquet"),
    }


def write_halves(seed: int) -> dict[str, np.ndarray]:
    """Side → bool [C]; beside the whole manifests, those of each side, where they are not there yet.

    A row of a drawn set is a pair: a drawing of a class and one of the class's photographs, all of them in turn.
    """
    from gen2real.imagesets import ImageSet

    photos = ImageSet.read(DATA / "photos")
    chosen = half(seed, len(photos.classes))
    sides = {"a": chosen, "b": ~chosen}
    for side, seen in sides.items():
        name = f"half-{seed}-{side}.parquet"
        classes = [entry for entry, own in zip(photos.classes, seen, strict=True) if own]
        text = {entry.label: [TEMPLATE.format(entry.name)] for entry in classes}
        real = [{**row, "captions": text[row["label"]]} for row in photos.rows() if row["label"] in text]
        if not (photos.root / name).exists():
            ImageSet.write(photos.root, real, classes, name=name)
        for style in STYLES:
            drawn = ImageSet.read(DATA / f"drawn-{style}")
            if not (drawn.root / name).exists():
                ImageSet.write(drawn.root, list(_pairs(drawn.rows(), real)), classes, name=name)
    return sides


def _pairs(drawings: Iterator[dict[str, Any]], real: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for drawing in drawings:
        for photo in real:
            if photo["label"] == drawing["label"]:
                both = {"id": f"{drawing['id']}--{photo['id']}", "pair_id": photo["id"]}
                yield {**drawing, **both, "captions": photo["captions"]}


def _values(path: Path) -> dict[str, np.ndarray]:
    from gen2real.files import read_json

    return {name: np.array(values, dtype=float) for name, values in read_json(path).items()}


def _folder(arm: str) -> str:
    return arm.replace(" ", "-").replace(",", "")


if __name__ == "__main__":
    main()
