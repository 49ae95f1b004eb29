"""One picture again, from its manifest's row alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gen2real.config import parse_config
from gen2real.errors import GenerationError, ImageSetError
from gen2real.generation.drawing import Painter
from gen2real.generation.generators import load_generator
from gen2real.generation.pictures import encode_picture
from gen2real.generation.settings import GeneratorSettings
from gen2real.generation.writer import OF_THE_SET
from gen2real.imagesets.decoding import decode
from gen2real.imagesets.manifest import ImageSet
from gen2real.recipe import nearest

_NEEDED = ("prompt", "seed", "generator", "generator_sha256", "steps", "scheduler", "width", "height", "dtype")


@dataclass(frozen=True)
class Redrawn:
    """A picture drawn again: uint8 [H W 3], its row, and the largest difference from the stored one, in levels of 255.

    largest_difference: None where the stored picture is not there.
    """

    pixels: npt.NDArray[np.uint8]
    row: dict[str, Any]
    largest_difference: int | None

    def encode(self, picture_format: str = "png") -> bytes:
        """The bytes of a PNG or WebP file with its provenance inside, as the set has it."""
        words = {key: value for key, value in self.row.items() if key not in OF_THE_SET}
        return encode_picture(self.pixels, picture_format, words)


def redraw(image_set: ImageSet, picture_id: str, *, generator: str | None = None, device: str = "auto") -> Redrawn:
    """Draws the picture with the id `picture_id` again.

    generator: where the generator lies now, if not where the row says. Its files must be the same.

    On the device type that drew it the picture comes back within what another batch size changes; see `Painter`.

    Raises: ImageSetError for an unknown id or a row that does not say what is needed, GenerationError for a generator
        whose files have changed, ModelError for one that does not load.
    """
    row = next((row for row in image_set.rows() if row["id"] == picture_id), None)
    if row is None:
        near = nearest(picture_id, image_set.ids)
        raise ImageSetError(
            f"{image_set.manifest} has no picture {picture_id!r}" + (f"; did you mean {near!r}?" if near else "")
        )
    missing = [name for name in _NEEDED if row.get(name) is None]
    if missing:
        raise ImageSetError(
            f"the row of {picture_id!r} does not say {', '.join(missing)}, so it cannot be drawn again: "
            "`gen2real generate` has not made it."
        )
    values = {key: row[key] for key in ("scheduler", "steps", "guidance", "width", "height")}
    values |= {"negative_prompt": row["negative_prompt"] or "", "name": generator or row["generator"]}
    values["revision"] = None if generator else row["generator_revision"]
    settings = parse_config(GeneratorSettings, values, source=f"the row of {picture_id}")
    loaded = load_generator(settings, device=device, dtype=row["dtype"])
    if loaded.content != row["generator_sha256"]:
        raise GenerationError(
            f"{loaded.name} is not what drew {picture_id!r}: its files differ. Say where the same files are: "
            "--generator FOLDER"
        )
    (drawn,) = Painter(loaded).draw([row["prompt"]], [row["seed"]])
    stored = image_set.root / row["path"]
    difference = None
    if stored.is_file():
        before = np.asarray(decode(stored), dtype=np.int16)
        same_size = before.shape == drawn.pixels.shape
        difference = int(np.abs(before - drawn.pixels.astype(np.int16)).max()) if same_size else 255
    return Redrawn(drawn.pixels, row, difference)
