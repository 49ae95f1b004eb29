"""Lessons as one batch of token rows: a prefix and branches that each see the prefix and themselves, nothing else.

Positions in a branch go on from the prefix, so every branch is computed as if it stood behind the prefix alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gen2real.kit.build.lessons import PICTURE, Lesson

_PADDING = -1


@dataclass(frozen=True)
class Rows:
    """A batch of lessons.

    ids, positions: [N L]. seen: bool [N L L], which tokens (last axis) a token may look at. learnt: bool [N L], tokens
    to be foretold by the one before them.
    """

    ids: Tensor
    positions: Tensor
    seen: Tensor
    learnt: Tensor

    def to(self, device: torch.device) -> Rows:
        """The same on a device."""
        return Rows(*(one.to(device) for one in (self.ids, self.positions, self.seen, self.learnt)))


def rows(lessons: Sequence[Lesson], tokenizer: Any, picture_tokens: int) -> Rows:
    """Tokens of lessons, padded on the right; each mark of a picture is as many tokens as a picture has."""
    pieces = [piece for lesson in lessons for stretch in (lesson.prefix, *lesson.branches) for piece in stretch]
    texts = [piece.text.replace(PICTURE, PICTURE * picture_tokens) for piece in pieces]
    encoded = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    columns: list[list[Tensor]] = [[], [], [], []]
    for lesson in lessons:
        # The token that begins every text belongs to the prefix.
        of_row = [[int(tokenizer.bos_token_id)], [0], [0], [0]]
        first = 1
        for number, stretch in enumerate((lesson.prefix, *lesson.branches)):
            place = first
            for piece in stretch:
                own = next(encoded)
                places = range(place, place + len(own))
                for values, more in zip(
                    of_row, (own, places, [number] * len(own), [piece.learnt] * len(own)), strict=True
                ):
                    values += more
                place += len(own)
            if number == 0:
                first = place
        for column, values in zip(columns, of_row, strict=True):
            column.append(torch.tensor(values))
    ids, positions, branches, learnt = (
        torch.nn.utils.rnn.pad_sequence(column, batch_first=True, padding_value=filler)
        for column, filler in zip(columns, (int(tokenizer.pad_token_id), 0, _PADDING, 0), strict=True)
    )
    is_own, in_prefix = branches[:, :, None] == branches[:, None, :], branches[:, None, :] == 0
    earlier = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    return Rows(ids, positions, (is_own | in_prefix) & earlier, learnt.bool())
