"""Where the pictures of an image set come from, counted: what a report and a model card say of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gen2real.imagesets.manifest import ImageSet

SHOWN_PROMPTS = 5
UNNAMED_REASON = "no reason given"


def describe(image_set: ImageSet) -> dict[str, Any]:
    """Plain values about a whole set, dropped rows included; nothing is read but the manifest.

    manifest: its path. rows, kept: how many. dropped: rules that were broken → rows, the commonest first.
    generators: name → rows. prompts, negative_prompts: how many different ones, and the first few.
    seeds: lowest, highest, and how many different; None without. guidance, steps: the different values.
    """
    table = image_set.table
    kept = pc.fill_null(table["kept"], True)
    dropped = table.filter(pc.invert(kept))
    return {
        "manifest": str(image_set.manifest),
        "rows": table.num_rows,
        "kept": table.num_rows - dropped.num_rows,
        "dropped": dict(Counter(_reasons(dropped)).most_common()),
        "origins": _counts(table["origin"]),
        "generators": _counts(table["generator"]),
        "prompts": _texts(table["prompt"]),
        "negative_prompts": _texts(table["negative_prompt"]),
        "seeds": _range(table["seed"]),
        "guidance": _values(table["guidance"]),
        "steps": _values(table["steps"]),
    }


def describe_file(path: Path) -> dict[str, Any]:
    """The same keys about a JSON Lines file, whose lines are its rows, with its name as `file`; nothing is known of
    where its pictures come from."""
    with path.open(encoding="utf-8-sig") as stream:
        lines = sum(bool(line.strip()) for line in stream)
    return {
        "manifest": str(path),
        "file": path.name,
        "rows": lines,
        "kept": lines,
        "dropped": {},
        "origins": {},
        "generators": {},
        "prompts": {"different": 0, "examples": []},
        "negative_prompts": {"different": 0, "examples": []},
        "seeds": None,
        "guidance": [],
        "steps": [],
    }


def _reasons(dropped: pa.Table) -> list[str]:
    """Curation's rules by name, as its reasons hold numbers; where there are none, the reason in full."""
    if "rules" in dropped.column_names:
        return [", ".join(rules or [UNNAMED_REASON]).replace("_", " ") for rules in dropped["rules"].to_pylist()]
    if "reason" in dropped.column_names:
        return [str(reason or UNNAMED_REASON) for reason in dropped["reason"].to_pylist()]
    return [UNNAMED_REASON] * dropped.num_rows


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(Counter(str(value) for value in column.to_pylist() if value is not None).most_common())


def _texts(column: pa.ChunkedArray) -> dict[str, Any]:
    different = list(dict.fromkeys(value for value in column.to_pylist() if value))
    return {"different": len(different), "examples": different[:SHOWN_PROMPTS]}


def _range(column: pa.ChunkedArray) -> dict[str, int] | None:
    given = [value for value in column.to_pylist() if value is not None]
    return {"lowest": min(given), "highest": max(given), "different": len(set(given))} if given else None


def _values(column: pa.ChunkedArray) -> list[float]:
    return sorted({value for value in column.to_pylist() if value is not None})
