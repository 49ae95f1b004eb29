"""Generated pictures and their real partners: rows of two sets that belong together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gen2real.errors import ImageSetError
from gen2real.imagesets.manifest import ImageSet

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """generated, real: int64 [P], row numbers that belong together, in the generated set's order; a real row may come
    again. unmatched: ids of the generated rows that name no partner, or one that is not there."""

    generated: Rows
    real: Rows
    unmatched: list[str]

    def __len__(self) -> int:
        return len(self.generated)


def pair_up(generated: ImageSet, real: ImageSet) -> Pairs:
    """Each generated picture's real partner: the row of `real` whose id is the generated row's `pair_id`.

    Raises: ImageSetError, with what to type, where no row names a partner, and where no partner is in `real`.
    """
    place = {row_id: row for row, row_id in enumerate(real.ids)}
    partners = generated.table["pair_id"].to_pylist()
    named = [partner for partner in partners if partner is not None]
    if not named:
        raise ImageSetError(
            f"none of the {len(generated)} pictures in {generated.manifest} names its real partner (pair_id). "
            "Draw them from a captioned set of real pictures, which writes it: gen2real generate MY-PHOTOS "
            "--generator NAME --out FOLDER; or import them from a table with a column pair_id: gen2real import table."
        )
    found = [(row, place[partner]) for row, partner in enumerate(partners) if partner in place]
    if not found:
        raise ImageSetError(
            f"no partner that {generated.manifest} names is in {real.manifest}: it asks for ids such as {named[0]!r}, "
            f"and there are ids such as {real.ids[0] if len(real) else 'none'!r}. Give the set that it was drawn from."
        )
    matched = {row for row, _ in found}
    rows = np.array(found, dtype=np.int64)
    return Pairs(rows[:, 0], rows[:, 1], [row_id for row, row_id in enumerate(generated.ids) if row not in matched])
