from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import gen2real

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
)


def asked_for() -> list[Requirement]:
    project = PROJECT["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]


def test_the_version_is_written_once_in_each_place() -> None:
    assert PROJECT["project"]["version"] == gen2real.__version__


def test_every_requirement_is_pinned_and_the_pin_fits() -> None:
    pins = {name.lower().replace("_", "-"): version for name, version in PINNED.items()}
    for requirement in asked_for():
        version = pins.get(requirement.name.lower().replace("_", "-"))
        assert version, f"constraints.txt has no pin for {requirement.name}"
        assert requirement.specifier.contains(version), f"{requirement.name} {version} is not {requirement.specifier}"


def test_torch_is_pinned_for_every_device() -> None:
    assert "+" not in PINNED["torch"]
    assert "torchvision" not in PINNED


def test_every_file_of_the_package_is_packed() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["gen2real"]
    source = ROOT / "src" / "gen2real"
    for path in source.rglob("*"):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        name = path.relative_to(source).as_posix()
        if path.suffix == ".py":
            assert (path.parent / "__init__.py").exists(), f"{path.parent} is no package: its files are not packed"
        packed = path.suffix == ".py" or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
        assert packed, f"{name} is neither Python nor in package-data"


def test_the_command_is_there() -> None:
    module, _, function = PROJECT["project"]["scripts"]["gen2real"].partition(":")
    path = ROOT / "src" / Path(*module.split(".")).with_suffix(".py")
    assert re.search(rf"^(def {function}\(|{function}\b.*=)", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_an_old_python_is_told_so(tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make")
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        [make, "python", f"PYTHON={old}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "gen2real needs Python 3.11 or newer" in done.stderr


def test_continuous_integration_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
