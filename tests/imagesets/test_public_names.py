from __future__ import annotations

import subprocess
import sys

import pytest

import gen2real.imagesets


def test_every_public_name_is_there() -> None:
    assert all(getattr(gen2real.imagesets, name) is not None for name in gen2real.imagesets.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Picture'"):
        _ = gen2real.imagesets.Picture


def test_the_room_is_entered_without_heavy_packages() -> None:
    heavy = "{'torch', 'pyarrow', 'PIL', 'numpy', 'datasets'} & set(sys.modules)"
    program = f"import sys, gen2real.imagesets; print({heavy} or '')"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_importing_needs_no_torch() -> None:
    program = "import sys, gen2real.imagesets.importers; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
