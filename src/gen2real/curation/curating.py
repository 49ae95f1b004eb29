"""Curation: look at every picture, score it, find its doubles, and write down which to train on.

A second encoder scores (never the one to be trained: it would be taught its own opinion). What may leave a picture out:

    unreadable, blank   it does not decode, or every channel is flat
    unsafe              an image classifier says so
    leaked              it is in an evaluation set, or nearly: mirrored, cropped, recompressed
    duplicate           a better one of its class looks the same
    similarity          it does not show its text well enough
    margin              it shows another class as well as its own
    real-likeness       a linear classifier tells it from real pictures too easily

The first five hold without being asked for (safety and leakage where there is something to judge by). A grey hash
cannot tell a red cube from a blue one, so near-duplicates are looked for within a class.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from gen2real.config import to_json
from gen2real.curation import record, rules
from gen2real.curation.leakage import EvaluationPictures, find_leaks
from gen2real.curation.looking import Looks, look_at, same_picture_cosine, sample_of
from gen2real.curation.scores import SafetyModel, real_likeness, text_scores
from gen2real.curation.search import Index, connected, cosine_pairs, hamming_pairs
from gen2real.curation.settings import UNSAFE_WORDS, CurateConfig
from gen2real.errors import ImageSetError, ModelError
from gen2real.evaluation.features import FeatureCache, cached_views
from gen2real.files import write_json
from gen2real.imagesets.loading import Pictures
from gen2real.imagesets.manifest import ImageSet
from gen2real.models.dual_encoder import DualEncoder, load_dual_encoder
from gen2real.prompts import prompts_for


@dataclass(frozen=True)
class Curation:
    """A curation that was written: the set with its verdicts, and what `curation.json` says about it."""

    image_set: ImageSet
    report: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the keys are stable."""
        return {"manifest": str(self.image_set.manifest), **self.report}


def curate(config: CurateConfig, *, quiet: bool = True) -> Curation:
    """Writes a manifest beside the set's pictures that says which to keep, and why not the others.

    Nothing is deleted and no row is left out. The same settings again read what was written. What `kept` was false
    for in the set that is read stays left out, and is not looked at.

    quiet: False says on standard error what is being done.

    Raises: ImageSetError where a class would be left empty (unless `empty_classes` is "warn"), where a rule has
    nothing to judge by, where real pictures are those of an evaluation, or where another curation has the name;
    ModelError for models that do not load. Then nothing was written.
    """
    source = ImageSet.read(config.images)
    places = record.Places.of(source.root, config.name)
    inputs = _inputs(config, source)
    report = record.finished_report(places, config, inputs)
    if report is None:
        _Curator(config, source, quiet).write(places, inputs)
        report = record.finished_report(places, config, inputs)
        assert report is not None
    for warning in report["warnings"]:
        warnings.warn(warning, stacklevel=2)
    return Curation(ImageSet.read(places.manifest), report)


class _Curator:
    """One curation on its way."""

    def __init__(self, config: CurateConfig, source: ImageSet, quiet: bool) -> None:
        self.config, self.source = config, source
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        kept = source.table["kept"].to_pylist()
        self.active = np.array([one is not False for one in kept], dtype=bool)
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.resolved: dict[str, Any] = {}
        self.encoder: DualEncoder | None = None
        self.is_trained_one: bool | None = None

    def write(self, places: record.Places, inputs: dict[str, Any]) -> None:
        began = time.monotonic()
        config, source = self.config, self.source
        if not self.active.any():
            raise ImageSetError(f"{source.manifest} has no pictures that are kept; there is nothing to curate.")
        evidence = self._evidence()
        verdicts = rules.decide(config, source, evidence)
        counted = record.counts(source, verdicts)
        self._refuse_empty(counted)
        self._note_duplicates(counted)
        summaries = record.score_summaries(evidence, verdicts.kept)
        limits = {name: getattr(config, f"min_{name}") for name in ("similarity", "margin", "real_likeness")}
        limits["unsafe"] = config.max_unsafe
        seconds = time.monotonic() - began
        report = {
            "version": 1,
            "name": config.name,
            **counted,
            "thresholds": {**self._thresholds(), **self.resolved, **verdicts.thresholds},
            "duplicate_groups": len(np.unique(evidence.groups[evidence.groups >= 0])),
            "encoder": self._encoder_said(),
            "scores": summaries,
            "drawings": [f"{places.drawings.name}/score_{name}.svg" for name in summaries],
            "notes": self.notes,
            "warnings": self.warnings,
            "seconds": round(seconds, 3),
            "pictures_per_second": round(int(self.active.sum()) / max(seconds, 1e-9), 1),
            "config": to_json(config),
            "inputs": inputs,
        }
        record.draw_histograms(places.drawings, summaries, limits)
        write_json(places.report, report)
        # Last, so that a curation without its manifest is one that was killed, and is done again.
        table = record.curated_table(source, evidence, verdicts)
        ImageSet.write(source.root, table, source.classes, name=config.name)

    def _evidence(self) -> rules.Evidence:
        config, source = self.config, self.source
        rows = np.flatnonzero(self.active)
        self._say(f"looking at {len(rows):,} pictures")
        looks = look_at([source.paths[row] for row in rows])
        clear = np.array(looks.clear, dtype=np.int64)
        seen = source.select(rows[clear])
        if not len(seen):
            raise ImageSetError(
                f"none of the {len(rows)} pictures of {source.manifest} can be used: "
                f"{sum(fault is not None for fault in looks.faults)} cannot be read (the first: "
                f"{next((fault for fault in looks.faults if fault), 'none')}), {int(looks.blank.sum())} are blank."
            )
        self.encoder = encoder = load_dual_encoder(config.encoder)
        encoder.to("cuda" if torch.cuda.is_available() else "cpu")
        self._compare_encoders(encoder)
        self._say(f"encoding them with {encoder.name}")
        features = self._features(seen)
        templates = config.templates
        told = text_scores(
            features, seen, encoder, prompts_for(seen.class_names, templates=templates, file=config.prompts)
        )
        self._refuse_unknown("similarity", told.similarity, seen, "neither prompt, label nor caption")
        self._refuse_unknown("margin", told.margin, seen, "no text of their own, or no other class to be told from")
        found = {"similarity": told.similarity, "margin": told.margin}
        evaluation = [EvaluationPictures.of(path, self._features) for path in config.evaluation]
        if config.real is not None:
            found["real_likeness"] = self._real_likeness(features, seen, config.real, evaluation)
        if config.safety is not None:
            safety = SafetyModel(config.safety, config.unsafe_labels, UNSAFE_WORDS)
            self._say(f"judging safety: {', '.join(safety.unsafe_labels)}")
            self.resolved["unsafe_labels"] = safety.unsafe_labels
            found["unsafe"] = safety.probabilities(seen.paths)
        place = rows[clear]
        leaks = None
        if evaluation:
            self._say("looking for evaluation pictures among them")
            leaks = self._leaks(place, seen, features, looks, evaluation)
        groups = np.full(len(source), -1, dtype=np.int64)
        if config.duplicates:
            self._say("looking for near-duplicates")
            groups[place] = self._groups(seen, features, looks)
        return rules.Evidence(
            active=self.active,
            faults=_spread(len(source), rows, looks.faults),
            blank=np.isin(np.arange(len(source)), rows[np.flatnonzero(looks.blank)]),
            phash=_spread(len(source), rows, [hashes[0] or None for hashes in looks.hashes]),
            scores={name: _floats(len(source), place, values) for name, values in found.items()},
            groups=groups,
            leaks=leaks,
        )

    def _features(self, image_set: ImageSet) -> Tensor:
        assert self.encoder is not None
        pictures = Pictures(image_set, self.encoder.preprocess, cache="none")
        features = cached_views(self.encoder.vision, pictures, views=1, seed=0, cache=FeatureCache())[0]
        broken = torch.nonzero(~torch.isfinite(features).all(dim=1))[:, 0].tolist()
        if broken:
            raise ModelError(
                f"{self.encoder.name} gives NaN or infinity for {len(broken)} of {len(features)} pictures (the first: "
                f"{image_set.paths[broken[0]]}). Score with another encoder."
            )
        return features

    def _compare_encoders(self, encoder: DualEncoder) -> None:
        """Whoever scores should not be whoever is trained: its mistakes would be picked out for it to learn."""
        trained = self.config.trained_encoder
        if trained is None:
            self.notes.append(
                "it was not said which encoder will be trained, so whether it is the one that scores is not known "
                "(--trained-encoder NAME)."
            )
            return
        same = trained == self.config.encoder
        if not same:
            same = load_dual_encoder(trained).fingerprint() == encoder.fingerprint()
        self.is_trained_one = same
        if same:
            self.warnings.append(
                f"the encoder that scores, {self.config.encoder}, is the one that will be trained ({trained}): it "
                "keeps the pictures that it already understands, and what it takes for another class is never put "
                "right. Score with another one, larger if there is one."
            )

    def _real_likeness(
        self, features: Tensor, seen: ImageSet, real: Path, evaluation: list[EvaluationPictures]
    ) -> rules.Floats:
        photographs = ImageSet.read(real).kept()
        hashes = set(photographs.table["sha256"].to_pylist()) - {None}
        for tested in evaluation:
            shared = hashes & set(tested.image_set.table["sha256"].to_pylist())
            if shared:
                raise ImageSetError(
                    f"{len(shared)} picture(s) of {real} are also in the evaluation set {tested.name}. Pictures chosen "
                    "to look like those of the test make it no test; give other real pictures, or none."
                )
        looks = look_at(photographs.paths)
        self._note_unseen(real, looks)
        photographs = photographs.select(looks.clear)
        self._say(f"comparing with {len(photographs):,} real pictures")
        return real_likeness(features, self._features(photographs), seen.ids)

    def _leaks(
        self, place: Index, seen: ImageSet, features: Tensor, looks: Looks, evaluation: list[EvaluationPictures]
    ) -> rules.Leaks:
        for tested in evaluation:
            self._note_unseen(tested.name, tested.looks)
        assert self.encoder is not None
        limit = self.config.leak_cosine
        if limit == "auto":
            paths = [path for tested in evaluation for path in tested.image_set.paths]
            features_of_all = torch.cat([tested.features for tested in evaluation])
            different = sample_of(len(paths))[:, None] != torch.arange(len(paths))[None, :]
            limit = same_picture_cosine(self.encoder, paths, features_of_all, different)
        self.resolved["leak_cosine"] = limit
        leaks = find_leaks(
            len(self.source), place, seen, features, looks, evaluation, bits=self.config.leak_bits, cosine=limit
        )
        by_encoder = sum(reason is not None and reason.startswith("cosine") for reason in leaks.reasons)
        if by_encoder:
            self.notes.append(
                f"{by_encoder} picture(s) are taken for evaluation pictures by the encoder alone. Look at some; where "
                f"it is wrong, set leak_cosine above {limit:.3f}."
            )
        return leaks

    def _groups(self, seen: ImageSet, features: Tensor, looks: Looks) -> Index:
        """Of the pictures seen: equal numbers hang together, -1 is alone."""
        config = self.config
        limit = config.duplicate_cosine
        if limit == "auto":
            assert self.encoder is not None
            classes = torch.from_numpy(seen.labels)
            different = classes[sample_of(len(seen))][:, None] != classes[None, :]
            limit = same_picture_cosine(self.encoder, seen.paths, features, different)
        self.resolved["duplicate_cosine"] = limit
        labels, codes = seen.labels, looks.codes(looks.clear, 0)

        def alike() -> Any:
            for label in np.unique(labels):
                members = np.flatnonzero(labels == label)
                distinct, first, place = np.unique(codes[members], return_index=True, return_inverse=True)
                yield members, members[first[place]]
                for pairs in hamming_pairs(distinct, radius=config.duplicate_bits):
                    yield members[first[pairs.first]], members[first[pairs.second]]
            for pairs in cosine_pairs(features, limit, groups=labels):
                yield pairs.first, pairs.second

        root = connected(len(seen), alike())
        _, group, size = np.unique(root, return_inverse=True, return_counts=True)
        several = size[group] > 1
        number = np.cumsum(size > 1) - 1
        return np.where(several, number[group], -1)

    def _refuse_unknown(self, name: str, scores: rules.Floats, seen: ImageSet, why: str) -> None:
        asked = any(getattr(self.config, f"{kind}_{name}") is not None for kind in ("min", "keep"))
        unknown = np.flatnonzero(np.isnan(scores))
        if asked and len(unknown):
            raise ImageSetError(
                f"{len(unknown)} of {len(seen)} pictures have no {name} (the first: {seen.ids[unknown[0]]}): they have "
                f"{why}. Leave out the rule on {name}, or give them prompts, labels or captions."
            )

    def _refuse_empty(self, counted: dict[str, Any]) -> None:
        empty = record.empty_classes(counted)
        if not counted["kept"]:
            raise ImageSetError(
                "no picture would be left: "
                + ", ".join(f"{rule} {count}" for rule, count in counted["rules"].items())
                + f" of {counted['pictures']}. Loosen the rule that takes most."
            )
        if not empty:
            return
        listed = "\n".join(f"  {line}" for line in empty)
        said = f"{len(empty)} class(es) are left without a picture:\n{listed}"
        if self.config.empty_classes == "error":
            raise ImageSetError(
                f"{said}\nNothing was written. Loosen the rule that empties them, or go on without these classes: "
                "--empty-classes warn"
            )
        self.warnings.append(said)

    def _note_duplicates(self, counted: dict[str, Any]) -> None:
        for one in counted["classes"]:
            if 2 * one["rules"].get("duplicate", 0) > one["pictures"]:
                self.notes.append(
                    f"more than half of the pictures of {one['name']} are near-duplicates of others. Look at them; if "
                    f"they are not, set duplicate_cosine above {self.resolved['duplicate_cosine']:.3f}."
                )

    def _note_unseen(self, name: str | Path, looks: Looks) -> None:
        unseen = len(looks.faults) - len(looks.clear)
        if unseen:
            self.notes.append(
                f"{unseen} of {len(looks.faults)} pictures of {name} are unreadable or blank: passed over."
            )

    def _thresholds(self) -> dict[str, Any]:
        """What was asked for, of the rules that held."""
        config = self.config
        names = ["min_similarity", "min_margin", "min_real_likeness"]
        if config.safety is not None:
            names.append("max_unsafe")
        if config.duplicates:
            names.append("duplicate_bits")
        if config.evaluation:
            names.append("leak_bits")
        return {name: value for name in names if (value := getattr(config, name)) is not None}

    def _encoder_said(self) -> dict[str, Any]:
        assert self.encoder is not None
        return {
            "name": self.encoder.name,
            "fingerprint": self.encoder.fingerprint(),
            "trained_encoder": self.config.trained_encoder,
            "is_the_trained_one": self.is_trained_one,
        }

    def _say(self, text: str) -> None:
        self.console.print(f"curate: {text}")


def _inputs(config: CurateConfig, source: ImageSet) -> dict[str, Any]:
    """The content of every set that is read."""
    kept = source.table["kept"].to_pylist()
    return {
        "images": {"manifest": source.manifest.name, "fingerprint": source.fingerprint, "left_out": kept.count(False)},
        "evaluation": [ImageSet.read(path).fingerprint for path in config.evaluation],
        "real": None if config.real is None else ImageSet.read(config.real).fingerprint,
    }


def _spread(count: int, rows: Index, values: list[Any]) -> list[Any]:
    found: list[Any] = [None] * count
    for row, value in zip(rows.tolist(), values, strict=True):
        found[row] = value
    return found


def _floats(count: int, rows: Index, values: rules.Floats) -> rules.Floats:
    found = np.full(count, np.nan)
    found[rows] = values
    return found
