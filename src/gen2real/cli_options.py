"""Options that commands share."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

Json = Annotated[
    bool, Parameter(name="--json", help="one JSON object on standard output, for programs", show_default=False)
]
Policy = Annotated[
    Literal["error", "skip"], Parameter(help="pictures that do not decode: list all and stop, or leave them out")
]
