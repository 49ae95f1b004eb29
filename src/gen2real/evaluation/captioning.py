"""How well captions fit: BLEU-4, ROUGE-L and CIDEr-D against references, one value a picture.

METEOR and SPICE are Java programs; they are counted as well where pycocoevalcap and Java are installed.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np

from gen2real.errors import ImageSetError
from gen2real.evaluation.caption_measures import Values, Words, bleu, cider, rouge_l
from gen2real.evaluation.caption_words import caption_words
from gen2real.evaluation.statistics import bootstrap_interval


@dataclass(frozen=True, eq=False)
class CaptionScores:
    """What `caption_scores` finds.

    values: measure → [N], one value a picture; the mean is the corpus's measure, as coco-caption states it. `bleu4`,
        `rouge_l` and `cider` are always there, `meteor` and `spice` where they could be counted. Papers print each
        times 100: a cider of 1.0 is their 100.
    notes: what was not counted, and why.
    """

    values: Mapping[str, Values]
    notes: tuple[str, ...] = ()

    def means(self) -> dict[str, float]:
        """The corpus's measures."""
        return {name: float(values.mean()) for name, values in self.values.items()}

    def to_json(self) -> dict[str, Any]:
        """Measure → its interval over pictures, and the notes."""
        found = {name: bootstrap_interval(values).to_json() for name, values in self.values.items()}
        return {"pictures": len(self.values["cider"]), **found, "notes": list(self.notes)}


def caption_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Score one caption for each of N pictures against the picture's references, as coco-caption does.

    Args:
        candidates: N captions; an empty one is a caption that matches nothing.
        references: of each picture one or several; blank ones are left out.

    Words are those of `caption_words`. CIDEr-D counts how common an n-gram is over these references, so its values
    depend on which pictures are scored together. BLEU's are shared out among the pictures (`caption_measures.bleu`).

    Raises: ImageSetError for unequal lengths, no picture at all, or pictures without a reference.
    """
    if len(candidates) != len(references) or not candidates:
        raise ImageSetError(
            f"captions are scored picture by picture; got {len(candidates)} caption(s) and the references of "
            f"{len(references)} picture(s)."
        )
    present = [[reference for reference in own if reference.strip()] for own in references]
    without = [place for place, own in enumerate(present) if not own]
    if without:
        raise ImageSetError(
            f"{len(without)} of {len(present)} picture(s) have no reference caption to score against, the first at "
            f"place {without[0]}. Leave them out."
        )
    said = [caption_words(candidate) for candidate in candidates]
    known = [[caption_words(reference) for reference in own] for own in present]
    values = {"bleu4": bleu(said, known), "rouge_l": rouge_l(said, known), "cider": cider(said, known)}
    notes = []
    if len(said) == 1:
        notes.append("cider weighs words by how rare they are among the pictures: of one picture alone it is 0.")
    missing = []
    for name, score in (("meteor", _meteor), ("spice", _spice)):
        try:
            values[name] = _with_java(score, said, known)
        except ModuleNotFoundError:
            missing.append(name)
        except Exception as error:
            # Whatever goes wrong in there must not lose the other measures.
            notes.append(f"{name} was not counted: {type(error).__name__}: {error}")
    if missing:
        notes.append(
            f"{' and '.join(missing)} not counted: the package pycocoevalcap is not installed. Install it with pip "
            "install 'gen2real[captions]'; it needs Java."
        )
    return CaptionScores(values, tuple(notes))


_Score = Callable[[dict[int, list[str]], dict[int, list[str]]], Values]


def _with_java(score: _Score, said: Sequence[Words], known: Sequence[Sequence[Words]]) -> Values:
    references = {place: [" ".join(words) for words in own] for place, own in enumerate(known)}
    candidates = {place: [" ".join(words)] for place, words in enumerate(said)}
    with redirect_stdout(io.StringIO()):
        values = score(references, candidates)
    if values.shape != (len(said),) or not np.isfinite(values).all():
        raise ValueError(f"pycocoevalcap gave {values.size} values for {len(said)} pictures, or NaN")
    return values


def _meteor(references: dict[int, list[str]], candidates: dict[int, list[str]]) -> Values:
    corpus, single = (
        importlib.import_module("pycocoevalcap.meteor.meteor").Meteor().compute_score(references, candidates)
    )
    # The corpus's METEOR is counted from sums over the corpus; the pictures' own values are moved to that mean.
    values = np.asarray(single, dtype=np.float64)
    return values + (float(corpus) - values.mean())


def _spice(references: dict[int, list[str]], candidates: dict[int, list[str]]) -> Values:
    _, single = importlib.import_module("pycocoevalcap.spice.spice").Spice().compute_score(references, candidates)
    return np.array([one["All"]["f"] for one in single], dtype=np.float64)
