"""Results as they are committed: the table, and what made it."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def publish(folder: Path, name: str, table: Any, *, command: str) -> None:
    """Writes `name`.md, .csv and .json of a comparison's table under `folder`, with their provenance."""
    from gen2real.files import write_json, write_text

    stated = provenance(command)
    lines = "".join(f"{key}: {value}\n" for key, value in stated.items())
    write_text(folder / f"{name}.md", f"{table.markdown()}\n```text\n{lines}```\n")
    write_text(folder / f"{name}.csv", table.comma_separated())
    write_json(folder / f"{name}.json", {"provenance": stated, **table.to_json()})
    print(f"published under {folder.relative_to(ROOT)}")


def provenance(command: str) -> dict[str, str]:
    """What made the numbers; the seeds stand in the table."""
    import torch

    commit, changed = (
        subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT, check=False).stdout.strip()
        for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "src", "benchmarks"])
    )
    return {
        "command": command,
        "commit": commit + (" with local changes" if changed else ""),
        "seeds": "as in the table's second column, from 0",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "software": f"Python {platform.python_version()}, torch {torch.__version__}",
    }


def processor() -> str:
    """The processor's name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
