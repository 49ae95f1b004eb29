"""Pictures of a run's image sets by their ids, where the sets are still there and still the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gen2real.errors import Gen2RealError
from gen2real.imagesets import ImageSet
from gen2real.report.frame import Shown
from gen2real.report.thumbnails import Thumbnails


class SetPictures:
    """Looks ids up in the sets that results name. `missing` tells what was not found, and why.

    Sets are read when first asked for.
    """

    def __init__(self, sets: Sequence[Mapping[str, Any]]) -> None:
        # JSON Lines files hold no pictures by id.
        self._sets = list({one["manifest"]: one for one in sets if "file" not in one}.values())
        self._paths: dict[tuple[str, str], Path] | None = None
        self._by_set: dict[tuple[str, str], Path] = {}
        self.missing: list[str] = []

    def shown(self, origin: str, name: str, alt: str, thumbs: Thumbnails) -> Shown:
        """The picture with the id `name` among those of an origin (`generated`, `real`)."""
        path = self._found().get((origin, name))
        return Shown(None if path is None else thumbs.of(path), f"{alt}: {name}")

    def of_set(self, manifest: str, name: str, alt: str, thumbs: Thumbnails) -> Shown:
        """The picture with the id `name` of one set."""
        self._found()
        path = self._by_set.get((manifest, name))
        return Shown(None if path is None else thumbs.of(path), alt)

    def _found(self) -> dict[tuple[str, str], Path]:
        if self._paths is None:
            self._paths = {}
            for one in self._sets:
                self._read(one)
        return self._paths

    def _read(self, one: Mapping[str, Any]) -> None:
        manifest = one["manifest"]
        try:
            found = ImageSet.read(manifest)
        except (Gen2RealError, OSError) as error:
            self.missing.append(f"Pictures of {manifest} are not shown: {str(error).splitlines()[0]}")
            return
        if found.kept().fingerprint != one["fingerprint"]:
            self.missing.append(
                f"{manifest} is not what it was when the run was made (pictures were added, removed or changed), so "
                "its pictures are not shown."
            )
            return
        assert self._paths is not None
        origins = found.table["origin"].to_pylist()
        for name, path, origin in zip(found.ids, found.paths, origins, strict=True):
            self._paths.setdefault((str(origin), name), path)
            self._by_set[manifest, name] = path
