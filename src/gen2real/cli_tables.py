"""Tables that commands print."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A table on standard output; where that is a file or a pipe, a line of the table is a line of the output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)
