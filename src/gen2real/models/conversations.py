"""An interleaved sample as its model reads it: the rendered text, and where in it every part and answer stands.

    system … USER: <image>\\nA duck came. <image> It went.            a document, up to where its content ends
    system … USER: <image>\\nWhat is it? ASSISTANT: a duck</s>USER: … a conversation, turn after turn

Templates may move and trim what they are given, so the places are not looked for: a template is given a stand-in for
each text, and the texts are put where it leaves the stand-ins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from gen2real.errors import ModelError
from gen2real.imagesets.interleaved import MARK, Turn
from gen2real.models.multimodal import MultimodalModel, reply

_STAND_IN = re.compile("\ue000(\\d+)\ue001")
_KEPT = 4096
_SKELETONS: WeakKeyDictionary[MultimodalModel, dict[Any, tuple[str, tuple[tuple[int, int], ...]]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Conversation:
    """A rendered sample. Places are (begin, end) in `text`.

    Attributes:
        parts: of each turn, of each of its parts: its text without outer spaces; (0, 0) for pictures, whose tokens
            come in their order, and for a text of spaces alone.
        answers: of each answer, with the space before it and the token that ends it.
    """

    text: str
    parts: tuple[tuple[tuple[int, int], ...], ...]
    answers: tuple[tuple[int, int], ...]


def converse(model: MultimodalModel, turns: Sequence[Turn]) -> Conversation:
    """Turns as the model was taught to read them. The first without an answer is the last, and ends with its content.

    Raises: ModelError for a template that writes earlier turns anew when another follows.
    """
    texts: list[str] = []
    numbers: list[list[int | None]] = []
    said: list[tuple[str, str | None]] = []
    for turn in turns:
        question, own = _question(turn, texts)
        numbers.append(own)
        said.append((question, None if turn.answer is None else _stand_in(turn.answer.strip(), texts)))
        if turn.answer is None:
            break
    # Rendering takes longer than all else here, and most samples are alike but for their texts.
    known = _SKELETONS.setdefault(model, {})
    if (key := tuple(said)) not in known:
        if len(known) >= _KEPT:
            known.clear()
        known[key] = _skeleton(model, key)
    return _filled(*known[key], texts, numbers)


def _skeleton(
    model: MultimodalModel, said: Sequence[tuple[str, str | None]]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The rendered conversation with stand-ins for all texts, and the places in it of the answers."""
    messages: list[dict[str, Any]] = []
    bounds: list[tuple[int, int]] = []
    skeleton = written = ""
    for question, answer in said:
        messages.append(model.user(question, 0))
        asked = model.rendered(messages, opened=answer is not None)
        if not asked.startswith(written):
            raise ModelError(f"the chat template of {model.name} writes earlier turns anew; give it one turn a sample.")
        skeleton += asked[len(written) :]
        if answer is None:
            ends = [_STAND_IN.pattern, re.escape(model.processor.image_token)]
            end = max((found.end() for found in re.finditer("|".join(ends), skeleton)), default=len(skeleton))
            return skeleton[:end], tuple(bounds)
        messages.append(reply(answer))
        whole = model.rendered(messages)
        # Some templates write an earlier turn otherwise than one that is yet to come; then no other can follow.
        told = whole[len(asked) :] if whole.startswith(asked) else answer
        end = model.end_of(told)
        written = whole[: len(asked) + end] if end else whole
        begin = len(skeleton)
        skeleton += told[:end] or model.ended(told)
        bounds.append((begin, len(skeleton)))
    return skeleton, tuple(bounds)


def _question(turn: Turn, texts: list[str]) -> tuple[str, list[int | None]]:
    """The turn with marks and stand-ins, and the number of each part's stand-in."""
    pieces: list[str] = []
    own: list[int | None] = []
    for part in turn.parts:
        if isinstance(part, Path):
            pieces.append(MARK)
            own.append(None)
        elif core := part.strip():
            begin = part.index(core)
            own.append(len(texts))
            pieces += [part[:begin], _stand_in(core, texts), part[begin + len(core) :]]
        else:
            own.append(None)
            pieces.append(part)
    return "".join(pieces), own


def _stand_in(text: str, texts: list[str]) -> str:
    texts.append(text)
    return f"\ue000{len(texts) - 1}\ue001"


def _filled(
    skeleton: str, bounds: Sequence[tuple[int, int]], texts: Sequence[str], numbers: Sequence[Sequence[int | None]]
) -> Conversation:
    pieces: list[str] = []
    places: dict[int, tuple[int, int]] = {}
    # Where each stand-in ends in the skeleton, and by how much the text is longer than the skeleton from there on.
    grown = [(0, 0)]
    length = at = 0
    for found in _STAND_IN.finditer(skeleton):
        pieces += [skeleton[at : found.start()], texts[int(found[1])]]
        length += found.start() - at
        places[int(found[1])] = (length, length + len(pieces[-1]))
        length, at = length + len(pieces[-1]), found.end()
        grown.append((at, length - at))
    text = "".join([*pieces, skeleton[at:]])

    def moved(place: int) -> int:
        return place + next(more for end, more in reversed(grown) if end <= place)

    parts = tuple(tuple((0, 0) if n is None else places[n] for n in own) for own in numbers)
    return Conversation(text, parts, tuple((moved(begin), moved(end)) for begin, end in bounds))
