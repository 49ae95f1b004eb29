"""Commands as a person types them: in this process, or in one of their own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gen2real import cli

SOURCE = Path(cli.__file__).parent


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """The one JSON object on standard output."""
        assert len(self.out.splitlines()) == 1, self.out
        return json.loads(self.out)


def gen2real_(*words: object) -> Done:
    """Types a command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("default")
        patch.setattr(sys, "argv", ["gen2real", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert isinstance(end.value.code, int)
    return Done(end.value.code, out.getvalue(), err.getvalue())


def program(*words: object, cwd: Path, code: str = "from gen2real.cli import main; main()", **more: Any) -> Done:
    """Types a command, in a process of its own."""
    found = os.pathsep.join([str(SOURCE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=cwd,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1"},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )
    return Done(done.returncode, done.stdout, done.stderr)
