"""What was measured besides and is no mean over pictures, so that it has no interval: median ranks, FID, CMMD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WAYS = {"image_to_text": "picture → text", "text_to_image": "text → picture"}
_DISTANCES = {"fid": ("FID", "distance"), "cmmd": ("CMMD", "distance")}


def further(details: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """(measure, its number under each reading or arm) from their `details`; of all of these lower is better."""
    found = [dict(_numbers(own)) for own in details]
    names = dict.fromkeys(name for own in found for name in own)
    return [(name, [own.get(name, "–") for own in found]) for name in names]


def counts(details: Mapping[str, Any]) -> str:
    """How many pictures, texts and questions there were, in words; empty where nothing is told of them."""
    words = [f"{value:,} {key.replace('_', ' ')}" for key, value in details.items() if isinstance(value, int)]
    for key, own in details.items():
        if not isinstance(own, Mapping):
            continue
        if "image_to_text" in own:
            pictures, texts = own["text_to_image"]["gallery"], own["image_to_text"]["gallery"]
            words.append(f"{pictures:,} pictures and {texts:,} texts ({key.replace('_', ' ')})")
        else:
            told = [
                f"{value:,} {name}" for name, value in own.items() if isinstance(value, int) and name != "dimension"
            ]
            words += [f"{' and '.join(told)} ({key.replace('_', ' ')})"] if told else []
    return ", ".join(words)


def _numbers(details: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, own in details.items():
        if not isinstance(own, Mapping):
            continue
        before = key.removesuffix("retrieval").strip("_").replace("_", " ")
        for way, name in _WAYS.items():
            rank = own[way].get("median_rank") if isinstance(own.get(way), Mapping) else None
            if rank is not None:
                yield f"median rank {name}{f', {before}' if before else ''}", f"{rank:g}"
        for measure, (name, part) in _DISTANCES.items():
            value = own.get(measure)
            if isinstance(value, Mapping):
                value = value.get(part)
            if isinstance(value, int | float):
                yield name, f"{value:.3g}"
