from __future__ import annotations

import importlib
import json
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gen2real import doctor
from gen2real.doctor import Check, examine


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What gen2real's metadata asks for, to be filled by the test."""
    wanted: list[str] = []
    monkeypatch.setattr(doctor, "_asked_for", lambda: wanted)
    return wanted


def by_name(checks: list[Check]) -> dict[str, Check]:
    named = {check.name: check for check in checks}
    assert len(named) == len(checks), "every check has a name of its own"
    return named


def test_a_working_installation_passes(asked_for: list[str], tmp_path: Path) -> None:
    asked_for += ["torch>=2.9", "pillow>=11", "pyyaml>=6.0", 'nowhere>=1; extra == "dev"']
    checks = by_name(examine(tmp_path))
    for name in ("Python", "torch", "pillow", "pyyaml", "torchvision", "processor", "threads", "torchrun"):
        assert checks[name].ok, checks[name]
    assert checks["torch"].found == metadata.version("torch")
    assert checks["bfloat16"].ok is not False
    assert "nowhere" not in checks
    assert str(tmp_path) in checks["disk, working directory"].found
    json.dumps([check.as_json() for check in checks.values()])


def test_what_is_bad_says_how_to_mend_it_and_what_is_good_does_not(asked_for: list[str]) -> None:
    asked_for += ["torch>=2.9", "nowhere-at-all>=1"]
    checks = examine()
    assert all(check.mend for check in checks if check.ok is False)
    assert not any(check.mend for check in checks if check.ok)


def test_packages_that_are_missing_old_or_broken(asked_for: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for += ["nowhere-at-all>=1", "numpy>=999", "rich>=1"]
    real = importlib.import_module

    def broken(name: str, package: str | None = None) -> ModuleType:
        if name == "rich":
            raise RuntimeError("operator torchvision::nms\ndoes not exist")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", broken)
    checks = by_name(list(doctor._packages()))
    assert checks["nowhere-at-all"] == Check(
        "nowhere-at-all", False, "not installed", "pip install 'nowhere-at-all>=1'"
    )
    assert checks["numpy"].ok is False
    assert checks["numpy"].found == f"{metadata.version('numpy')}; gen2real asks for >=999"
    assert checks["rich"].ok is False
    assert "cannot be imported: RuntimeError: operator torchvision::nms does not exist" in checks["rich"].found
    assert checks["rich"].mend == f"pip install --force-reinstall 'rich=={metadata.version('rich')}'"


def test_gen2real_that_is_not_installed_is_said(asked_for: list[str]) -> None:
    assert not asked_for
    (only,) = doctor._packages()
    assert (only.name, only.ok) == ("gen2real", False)


def test_a_torchvision_built_for_another_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    (check,) = doctor._torchvision()
    assert check.ok is False
    assert "built for another torch" in check.found
    assert check.mend == "pip uninstall torchvision"


def test_an_extra_that_is_missing_is_neither_good_nor_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"fast": ("nowhere-at-all", "speed")})
    (check,) = doctor._extras()
    assert check == Check("[fast]", None, "not installed; it is for speed", "pip install 'gen2real[fast]'")


def test_the_extras_are_those_of_the_project() -> None:
    tomllib = importlib.import_module("tomllib")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(wanted) - {"dev"}
    for extra, (package, _) in doctor.EXTRAS.items():
        assert [text.partition(">")[0] for text in wanted[extra]] == [package]


def test_too_many_threads_are_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(doctor, "_usable_cores", lambda: 2)
    (check,) = doctor._threads()
    assert check.ok is False
    assert check.mend == "export OMP_NUM_THREADS=2"


def test_a_driver_that_torch_cannot_use_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    (check,) = [check for check in doctor._devices() if check.name == "cuda"]
    assert check.ok is False
    assert torch.__version__ in check.found


def test_a_full_disk_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 99, 1))  # type: ignore[attr-defined]
    folder, cache = doctor._disk(tmp_path / "not" / "yet")
    assert (folder.ok, cache.ok) == (False, False)
    assert "0.0 GiB free" in folder.found


def test_the_cache_is_found_by_the_hubs_rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert doctor.hub_cache() == Path("~/.cache/huggingface/hub").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert doctor.hub_cache() == tmp_path / "x" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    assert doctor.hub_cache() == tmp_path / "home" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert doctor.hub_cache() == tmp_path / "cache"


def test_offline_is_said_with_what_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models--openai--clip").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (check,) = doctor._hub()
    assert check.ok is None
    assert f"1 model(s) in {tmp_path}" in check.found
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (check,) = doctor._hub()
    assert check.ok


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch, asked_for: list[str]) -> None:
    def broken() -> list[Check]:
        raise OSError("no /proc here")

    monkeypatch.setattr(doctor, "_memory", broken)
    memory = by_name(examine())["memory"]
    assert memory.ok is False
    assert memory.found == "could not be examined: OSError: no /proc here"
