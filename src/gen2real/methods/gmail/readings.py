"""What an alignment is worth: the ways to send real pictures through it are named, and held-out pairs looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from gen2real.evaluation.distances import modality_gap
from gen2real.evaluation.features import FeatureCache, cached_views, encode_pictures
from gen2real.evaluation.projection import sample_rows
from gen2real.evaluation.retrieval import retrieval_metrics
from gen2real.evaluation.statistics import bootstrap_interval, paired_bootstrap
from gen2real.methods.gmail.data import HeldOut
from gen2real.methods.gmail.settings import Inference
from gen2real.methods.readings import plane_of
from gen2real.models.aligned import Aligned

MEANINGS: dict[Inference, str] = {
    "f_r": "real pictures through f_r, which was never trained, and texts through the text tower of the run",
    "f_g": "real pictures through f_g, the tower that was tuned on generated ones",
    "projection": "real pictures through f_r and the projection trained for them",
}
BASELINE = "the encoder that the run began with"
_EXAMPLES = 6


@dataclass(frozen=True)
class Sides:
    """Un-normalised features of held-out pictures [N D], [R D] under the encoder that the run began with (`before`) and
    as the run left it (`after`: generated ones through f_g)."""

    before: Tensor
    after: Tensor
    real: Tensor


def look_at(held_out: HeldOut, start: Aligned, end: Aligned) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `result.json` says of alignment, and the map (`Result.plane`), on pictures that nothing was trained on.

    before, after: cosines of true and of shuffled pairs, the modality gap, and how often a generated picture finds its
    partner first among all held-out real ones. rise: how much more the cosines of true pairs rose than those of
    shuffled ones, pair by pair. Without pairs there is the gap alone.
    """
    cache = FeatureCache()
    sides = Sides(
        cached_views(start.tower("f_g"), held_out.generated, views=1, seed=0, cache=cache)[0],
        encode_pictures(end.tower("f_g"), held_out.generated),
        cached_views(start.tower("f_r"), held_out.real, views=1, seed=0, cache=cache)[0],
    )
    plane = plane_of({0.0: sides.before, 1.0: sides.after}, {0.0: sides.real, 1.0: sides.real}, frozen=False)
    told: dict[str, Any] = {
        name: {"modality_gap": _gap(generated, sides.real)}
        for name, generated in (("before", sides.before), ("after", sides.after))
    }
    told["pictures"] = {"generated": len(sides.before), "real": len(sides.real)}
    if held_out.partners is not None:
        _tell_pairs(told, held_out, sides)
    return told, plane


def _tell_pairs(told: dict[str, Any], held_out: HeldOut, sides: Sides) -> None:
    assert held_out.partners is not None
    partners = torch.from_numpy(held_out.partners)
    # The next real picture is nobody's partner here: every pair is a wrong one, and the same one before and after.
    others = (partners + 1) % len(sides.real)
    cosines = {}
    for name, generated in (("before", sides.before), ("after", sides.after)):
        true, shuffled = (cosine_similarity(generated, sides.real[rows]).double() for rows in (partners, others))
        cosines[name] = (true, shuffled)
        positives = torch.stack([torch.arange(len(generated)), partners], dim=1)
        found = retrieval_metrics(generated, sides.real, positives).image_to_text
        told[name] |= {
            "true_cosine": bootstrap_interval(true).to_json(),
            "shuffled_cosine": bootstrap_interval(shuffled).to_json(),
            "partner_recall@1": bootstrap_interval((found.ranks == 1).double()).to_json(),
            "partner_chance@1": found.chance[1],
        }
    true, shuffled = (after - before for before, after in zip(cosines["before"], cosines["after"], strict=True))
    told["pairs"] = len(partners)
    told["rise"] = paired_bootstrap(true, shuffled).to_json()
    told["examples"] = _examples(held_out, sides, {name: own[0] for name, own in cosines.items()})


def _examples(held_out: HeldOut, sides: Sides, cosines: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    assert held_out.partners is not None
    generated, real = held_out.generated.image_set.ids, held_out.real.image_set.ids
    unit = torch.nn.functional.normalize(sides.real, dim=1)
    shown = []
    for row in sample_rows(len(generated), _EXAMPLES).tolist():
        found = int((unit @ sides.after[row]).argmax())
        shown.append(
            {
                "generated": generated[row],
                "real": real[int(held_out.partners[row])],
                "found": real[found],
                "cosine_before": float(cosines["before"][row]),
                "cosine_after": float(cosines["after"][row]),
            }
        )
    return shown


def _gap(generated: Tensor, real: Tensor) -> float | None:
    # A centroid of one picture says nothing of a set.
    return modality_gap(generated, real).distance if min(len(generated), len(real)) > 1 else None
