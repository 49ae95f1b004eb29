"""The one writer behind every importer of interleaved samples: samples or their faults in, a JSON Lines file out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from gen2real.errors import ImageSetError
from gen2real.imagesets.decoding import Policy, check_policy
from gen2real.imagesets.interleaved import Interleaved, Turn, parts_of, write_interleaved
from gen2real.imagesets.json_lines import Fault, MissingPicture

Order = Literal["image-first", "text-first", "drawn", "both"]
_SHOWN = 20
Sample = TypeVar("Sample")


@dataclass(frozen=True)
class LeftOut:
    """A sample that is not written.

    why: as a person is told it. kind: what is counted. meant: it is none that could be used, and no fault of the file.
    """

    id: str
    why: str
    kind: str
    meant: bool = False


@dataclass(frozen=True)
class ImportedSamples:
    """What was written. left_out: why → how many samples."""

    path: Path
    samples: int
    pictures: int
    left_out: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "file": str(self.path),
            "samples": self.samples,
            "pictures": self.pictures,
            "left_out": dict(self.left_out),
        }


def write_samples(out: str | Path, found: Iterable[Interleaved | LeftOut], *, on_fault: Policy) -> ImportedSamples:
    """Writes the samples to a JSON Lines file, in order; pictures stay where they are.

    An id that is there again is written as `id-2`, `id-3`, ….

    Args:
        on_fault: "error" lists the samples that cannot be used; "skip" leaves them out and counts them.

    Raises: ImageSetError where `out` exists, for faults, and where nothing is left.
    """
    out = new_file(out)
    samples, counted = without_faults(found, out, on_fault)
    write_interleaved(out, _with_own_ids(samples))
    pictures = {picture for sample in samples for picture in sample.pictures}
    return ImportedSamples(out, len(samples), len(pictures), counted)


def new_file(out: str | Path) -> Path:
    """The path of JSON Lines that are to be written. Raises: ImageSetError where it exists, or is called otherwise."""
    out = Path(out)
    if out.exists():
        raise ImageSetError(f"{out} exists already. Choose another file with --out, or remove it first: rm {out}")
    if out.suffix != ".jsonl":
        raise ImageSetError(f"{out} is to be a file of JSON Lines; name it {out.with_suffix('.jsonl')}.")
    return out


def without_faults(
    found: Iterable[Sample | LeftOut], out: Path, on_fault: Policy
) -> tuple[list[Sample], dict[str, int]]:
    """What can be used, in order, and why → how many were left out.

    Args:
        out: where it is to go, for messages. on_fault: "error" lists all that cannot be used; "skip" counts them.

    Raises: ImageSetError for faults, and where nothing is left.
    """
    check_policy(on_fault)
    samples: list[Sample] = []
    missing: list[LeftOut] = []
    for one in found:
        if isinstance(one, LeftOut):
            missing.append(one)
        else:
            samples.append(one)
    faults = [one for one in missing if not one.meant]
    if faults and (on_fault == "error" or not samples):
        more = [f"  … and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        advice = 'Mend them, or leave them out: on_fault="skip" (--on-fault skip).' if on_fault == "error" else ""
        raise ImageSetError(
            "\n".join(
                [
                    f"{len(faults)} of {len(faults) + len(samples)} samples cannot be used:",
                    *(f"  {one.id}: {one.why}" for one in faults[:_SHOWN]),
                    *more,
                    advice or "Nothing is left to write.",
                ]
            )
        )
    if not samples:
        raise ImageSetError(f"there is no sample to write to {out}.")
    return samples, dict(sorted(Counter(one.kind for one in missing).items()))


def document(id: str, text: str, pictures: Iterable[Path]) -> Interleaved:
    """A sample whose own text is learnt. Raises: Fault where marks and pictures differ."""
    return Interleaved(id, (Turn(parts_of(text, pictures)),))


def read_json_of(path: Path, example: str) -> Any:
    """A JSON file's value. Raises: ImageSetError where there is none."""
    if not path.is_file():
        raise ImageSetError(f"{path} does not exist. Give {example}.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ImageSetError(f"{path} is not JSON ({error}). Give {example}.") from error


def folder_of_pictures(path: str | Path) -> Path:
    """The folder, absolute. Raises: ImageSetError where it is none."""
    path = Path(path)
    if not path.is_dir():
        raise ImageSetError(f"{path} is not a folder. Give the folder that the pictures' names start from.")
    return path.absolute()


def left_out(id: str, fault: Fault, kind: str) -> LeftOut:
    """A sample with the fault that was found; missing pictures are a kind of their own."""
    return LeftOut(id, str(fault), "pictures are missing" if isinstance(fault, MissingPicture) else kind)


def _with_own_ids(samples: Iterable[Interleaved]) -> Iterator[Interleaved]:
    taken: set[str] = set()
    counts: Counter[str] = Counter()
    for sample in samples:
        id = sample.id
        while id in taken:
            counts[sample.id] += 1
            id = f"{sample.id}-{counts[sample.id] + 1}"
        taken.add(id)
        yield Interleaved(id, sample.turns)
