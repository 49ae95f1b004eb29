"""Pages for people: a run's or a comparison's report, and the gallery of an image set. One file each, no network.

run_report.py   write_report: result folders → report.html
gallery.py      write_gallery: an image set → gallery.html
arms.py         what an arm found, over its seeds: curve, classes, confusions, map
map_again.py    the map of a run that kept none
pictures.py     the pictures behind a run's answers
rows.py         the table that comes first
charts.py       numbers → places on a drawing
thumbnails.py   pictures → small data: URIs, up to a budget
page.py         templates → one file
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gen2real.late import late

if TYPE_CHECKING:
    from gen2real.report.gallery import write_gallery as write_gallery
    from gen2real.report.run_report import write_report as write_report

_WHERE = {"write_gallery": "gallery", "write_report": "run_report"}

__all__ = sorted(_WHERE)
__getattr__, __dir__ = late(__name__, _WHERE)
