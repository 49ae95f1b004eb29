"""Questions about pictures (`read_questions`) → conversations to learn from: a picture's questions are its turns."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gen2real.errors import ImageSetError
from gen2real.imagesets.importers.samples import ImportedSamples, LeftOut, write_samples
from gen2real.imagesets.interleaved import MARK, Interleaved, Turn
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.questions import PictureQuestion, read_questions


def import_questions(
    source: str | Path,
    out: str | Path,
    *,
    image_set: str | Path | ImageSet | None = None,
    turns: int | None = None,
    seed: int = 0,
) -> ImportedSamples:
    """A conversation for every picture: it stands before the first question, and each answer is learnt.

    Args:
        source: JSON Lines as `read_questions` takes them; of several answers the most common one is learnt, the first
            among equals.
        out: a new JSON Lines file.
        image_set: whose pictures they are about, where the file names them by id.
        turns: at most so many questions of a picture, drawn by seed and picture; None: all, in the file's order.

    Raises: ImageSetError as `read_questions`, where texts hold a mark, and where `out` exists.
    """
    if turns is not None and turns < 1:
        raise ImageSetError(f"turns must be at least 1; got {turns}.")
    found = image_set if isinstance(image_set, ImageSet) or image_set is None else ImageSet.read(image_set)
    by_picture: dict[Path, list[PictureQuestion]] = {}
    for one in read_questions(source, found):
        by_picture.setdefault(one.picture, []).append(one)
    return write_samples(out, _samples(by_picture, turns, seed), on_fault="error")


def _samples(
    by_picture: dict[Path, list[PictureQuestion]], turns: int | None, seed: int
) -> Iterator[Interleaved | LeftOut]:
    for picture, every in by_picture.items():
        asked = every
        if turns is not None and turns < len(every):
            asked = random.Random(f"{seed}/{every[0].id}").sample(every, turns)
        answers = [Counter(one.answers).most_common(1)[0][0] for one in asked]
        if any(MARK in text for text in (*answers, *(one.question for one in asked))):
            yield LeftOut(every[0].id, f"questions and answers must be texts without the mark {MARK}", "marks")
            continue
        yield Interleaved(
            every[0].id,
            tuple(
                Turn((one.question,) if number else (picture, f"\n{one.question}"), answer)
                for number, (one, answer) in enumerate(zip(asked, answers, strict=True))
            ),
        )
