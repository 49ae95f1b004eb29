"""gen2real curate: which pictures of a set are worth training on."""

from __future__ import annotations

import json as jsonlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from gen2real.cli_options import Json

if TYPE_CHECKING:
    from gen2real.curation import Curation


def curate(
    image_set: Annotated[Path, Parameter(help="an image set: its folder, or a manifest file")],
    /,
    *,
    encoder: Annotated[str, Parameter(help="whose eyes score; best not the one to be trained")],
    trained_encoder: Annotated[str | None, Parameter(help="the one to be trained, compared with it")] = None,
    evaluation: Annotated[
        tuple[Path, ...], Parameter(help="a set to be tested on, to leave out; may be repeated", show_default=False)
    ] = (),
    min_similarity: Annotated[float | None, Parameter(help="least cosine of picture and text")] = None,
    keep_similarity: Annotated[float | None, Parameter(help="share of each class, 0.8 say")] = None,
    min_margin: Annotated[float | None, Parameter(help="least lead over the best other class")] = None,
    keep_margin: Annotated[float | None, Parameter(help="share of each class")] = None,
    real: Annotated[Path | None, Parameter(help="unlabelled real pictures, for real-likeness")] = None,
    keep_real_likeness: Annotated[float | None, Parameter(help="share of each class")] = None,
    duplicates: Annotated[Literal["one", "all"], Parameter(help="of near-duplicates in a class, keep")] = "one",
    safety: Annotated[str | None, Parameter(help="an image classifier that knows unsafe pictures")] = None,
    unsafe_labels: Annotated[
        tuple[str, ...], Parameter(help="its labels that are [default: by name]", show_default=False)
    ] = (),
    empty_classes: Annotated[Literal["error", "warn"], Parameter(help="where a class loses all")] = "error",
    name: Annotated[str, Parameter(help="the manifest to write beside the pictures")] = "curated.parquet",
    set: Annotated[
        tuple[str, ...],
        Parameter(name="--set", help="any setting: duplicate_cosine=0.97; may be repeated", show_default=False),
    ] = (),
    json: Json = False,
) -> None:
    """Score, deduplicate, check for leaks and filter a set; writes another manifest, never deletes."""
    from gen2real.config import parse_config
    from gen2real.curation.settings import CurateConfig
    from gen2real.errors import RecipeError
    from gen2real.recipe import Recipe

    given: dict[str, Any] = {
        "images": str(image_set),
        "encoder": encoder,
        "trained_encoder": trained_encoder,
        "evaluation": [str(path) for path in evaluation],
        "min_similarity": min_similarity,
        "keep_similarity": keep_similarity,
        "min_margin": min_margin,
        "keep_margin": keep_margin,
        "real": None if real is None else str(real),
        "keep_real_likeness": keep_real_likeness,
        "duplicates": duplicates == "one",
        "safety": safety,
        "unsafe_labels": list(unsafe_labels),
        "empty_classes": empty_classes,
        "name": name,
    }
    changes = Recipe("gen2real curate", values={key: value for key, value in given.items() if value is not None})
    for text in set:
        changes.override(text)
    if changes.faults:
        raise RecipeError("\n".join(changes.faults))
    config = parse_config(CurateConfig, changes.values, source="gen2real curate")
    from gen2real.curation.curating import curate as run_curation

    done = run_curation(config, quiet=json or os.environ.get("RANK", "0") != "0")
    print(jsonlib.dumps(done.to_json(), allow_nan=False) if json else _told(done))


def _told(done: Curation) -> str:
    report = done.report
    lines = [f"{report['kept']} of {report['pictures']} pictures are kept."]
    lines += [f"{count:>8}  {rule.replace('_', ' ')}" for rule, count in report["rules"].items()]
    if len(report["rules"]) > 1:
        lines.append("A picture that broke several rules is counted under each.")
    least = sorted(report["classes"], key=lambda one: one["kept"] / max(one["pictures"], 1))[:3]
    if report["kept"] < report["pictures"] and least:
        shown = ", ".join(f"{one['name']} ({one['kept']} of {one['pictures']})" for one in least)
        lines.append(f"Classes that lost most: {shown}")
    lines += [f"Note: {note}" for note in report["notes"]]
    folder = done.image_set.root
    lines.append(f"{folder / report['name']}: train on it with data.generated='[{folder / report['name']}]'")
    return "\n".join(lines)
