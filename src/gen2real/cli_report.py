"""gen2real report and gen2real inspect: pages that a person opens in a browser."""

from __future__ import annotations

import json as jsonlib
import warnings
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gen2real.cli_options import Json
from gen2real.errors import Gen2RealError


def report(
    runs: Annotated[list[Path], Parameter(help="the folder of a run or of a comparison, or of several runs")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="the file [default: report.html in the folder; of several runs, right here]")
    ] = None,
    json: Json = False,
) -> None:
    """Write one HTML file about finished runs, with pictures, that needs no network. Several runs are compared."""
    from gen2real.report import write_report

    written = write_report(runs, out)
    print(jsonlib.dumps({"report": str(written)}) if json else f"{written}: open it in a browser")


def report_on(folder: Path) -> str | None:
    """The report of what has just ended in `folder`. Where it cannot be written, the work is not lost: it warns."""
    from gen2real.report import write_report

    try:
        return str(write_report(folder))
    except (Gen2RealError, OSError) as error:
        warnings.warn(f"the report was not written: {error}\nAgain: gen2real report {folder}", stacklevel=2)
        return None


def inspect(
    image_set: Annotated[Path, Parameter(help="an image set, or one of its manifests, as SET/curated.parquet")],
    /,
    *,
    out: Annotated[
        Path | None, Parameter(help="an .html file, or a folder for gallery.html [default: the set's]")
    ] = None,
    json: Json = False,
) -> None:
    """Write a gallery of an image set: best and worst by score, near-duplicates, leaks, what was dropped and why."""
    from gen2real.imagesets import ImageSet
    from gen2real.report.gallery import make_gallery

    gallery = make_gallery(ImageSet.read(image_set), out)
    if json:
        print(jsonlib.dumps(gallery.to_json()))
        return
    print(f"{gallery.path}: {gallery.shown} of {gallery.pictures} pictures; open it in a browser")
