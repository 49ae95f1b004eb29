"""What is installed, what device there is, what would fail, and how to mend it. Nothing here raises."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OLDEST_PYTHON = (3, 11)

EXTRAS = {
    "datasets": ("datasets", "importing Hugging Face datasets"),
    "webdataset": ("webdataset", "reading and writing WebDataset tars"),
    "fast": ("simplejpeg", "decoding JPEG pictures about three times as fast"),
    "captions": ("pycocoevalcap", "METEOR and SPICE of captions, with Java"),
    "faiss": ("faiss-cpu", "looking up among hundreds of thousands about twice as fast"),
}
"""Optional extras: the package each one brings, and what for."""

MODULES = {"pillow": "PIL", "pyyaml": "yaml"}
"""Packages whose module has another name."""


@dataclass(frozen=True)
class Check:
    """One finding: `ok` is None where it is neither good nor bad; `mend` says what to type where it is bad."""

    name: str
    ok: bool | None
    found: str
    mend: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding as JSON-like values."""
        return asdict(self)


def examine(folder: Path | None = None) -> list[Check]:
    """Every check, from Python up; `folder` is where a run would write (default: the working directory)."""
    here = folder or Path.cwd()
    parts: tuple[tuple[str, Callable[[], Iterable[Check]]], ...] = (
        ("Python", _python),
        ("packages", _packages),
        ("torchvision", _torchvision),
        ("optional extras", _extras),
        ("devices", _devices),
        ("bfloat16", _bfloat16),
        ("threads", _threads),
        ("launcher", _launcher),
        ("memory", _memory),
        ("disk", lambda: _disk(here)),
        ("Hugging Face hub", _hub),
    )
    return [check for name, part in parts for check in _whatever_happens(name, part)]


def _whatever_happens(name: str, part: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    try:
        for check in part():
            yield replace(check, mend="") if check.ok else check
    except Exception as error:
        yield Check(name, False, f"could not be examined: {_said(error)}", "report this; nothing else depends on it")


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    wanted = ".".join(map(str, OLDEST_PYTHON))
    yield Check(
        "Python", sys.version_info >= OLDEST_PYTHON, found, f"make an environment with Python {wanted} or newer"
    )


def _packages() -> Iterator[Check]:
    """The versions of what gen2real asks for, and whether each can be imported."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in _asked_for()]
    if not wanted:
        yield Check(
            "gen2real", False, "not installed, only imported", "pip install -e . (in the folder of pyproject.toml)"
        )
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        mend = f"pip install '{requirement}'"
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Check(requirement.name, False, "not installed", mend)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield Check(requirement.name, False, f"{version}; gen2real asks for {requirement.specifier}", mend)
            continue
        try:
            importlib.import_module(MODULES.get(requirement.name, requirement.name))
        except Exception as error:
            again = f"pip install --force-reinstall '{requirement.name}=={version}'"
            yield Check(requirement.name, False, f"{version}, but it cannot be imported: {_said(error)}", again)
        else:
            yield Check(requirement.name, True, version)


def _asked_for() -> list[str]:
    try:
        return metadata.requires("gen2real") or []
    except metadata.PackageNotFoundError:
        return []


def _torchvision() -> Iterator[Check]:
    """gen2real does without torchvision; a broken one still makes transformers fail."""
    if find_spec("torchvision") is None:
        yield Check("torchvision", True, "not installed, and not needed")
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        found = f"installed, but built for another torch: {_said(error)}; transformers fails on it"
        yield Check("torchvision", False, found, "pip uninstall torchvision")
    else:
        yield Check("torchvision", True, f"{metadata.version('torchvision')}, not needed")


def _extras() -> Iterator[Check]:
    for extra, (package, purpose) in EXTRAS.items():
        try:
            version = metadata.version(package)
            importlib.import_module(package)
        except metadata.PackageNotFoundError:
            yield Check(f"[{extra}]", None, f"not installed; it is for {purpose}", f"pip install 'gen2real[{extra}]'")
        except Exception as error:
            found = f"{package} cannot be imported: {_said(error)}"
            yield Check(f"[{extra}]", False, found, f"pip install --force-reinstall '{package}'")
        else:
            yield Check(f"[{extra}]", True, f"{package} {version}, for {purpose}")


def _devices() -> Iterator[Check]:
    import torch

    yield Check("processor", True, f"{_usable_cores()} of {os.cpu_count()} cores, {_processor_features()}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            free = torch.cuda.mem_get_info(index)[0]
            found = f"{gpu.name}, {free / 2**30:.0f} of {gpu.total_memory / 2**30:.0f} GiB free"
            yield Check(f"cuda:{index}", True, found)
    elif shutil.which("nvidia-smi"):
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        mend = "install a torch built for the CUDA version that nvidia-smi shows, or train on the processor"
        yield Check("cuda", False, f"there is a driver, but torch {torch.__version__} {built} and cannot use it", mend)
    elif torch.backends.mps.is_available():
        yield Check("mps", True, "Apple GPU")
    else:
        yield Check("GPU", None, "none; training runs on the processor")


def _processor_features() -> str:
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return "features unknown"
    known = {"amx_bf16": "AMX bfloat16", "avx512_bf16": "AVX-512 bfloat16", "avx512f": "AVX-512", "avx2": "AVX2"}
    return ", ".join(name for flag, name in known.items() if flag in flags) or "no vector extensions known to us"


def _bfloat16() -> Iterator[Check]:
    """Whether bfloat16 is worth using, measured on one matrix product for well under a second."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    speeds = {dtype: _matrix_speed(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    ratio = speeds[torch.bfloat16] / speeds[torch.float32]
    found = (
        f"{ratio:.1f} × float32 on {device} ({speeds[torch.bfloat16]:.0f} against {speeds[torch.float32]:.0f} GFLOP/s)"
    )
    if ratio > 1.2:
        yield Check("bfloat16", True, found)
    else:
        yield Check("bfloat16", None, f"{found}; it saves memory here, but no time", "set the precision to float32")


def _matrix_speed(device: str, dtype: Any, size: int = 768, budget: float = 0.15) -> float:
    import torch

    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    _ = left @ right
    count, start = 0, time.perf_counter()
    while count < 2 or (time.perf_counter() - start < budget and count < 1000):
        result = left @ right
        _ = float(result[0, 0])
        count += 1
    return count * 2 * size**3 / (time.perf_counter() - start) / 1e9


def _threads() -> Iterator[Check]:
    import torch

    threads, cores = torch.get_num_threads(), _usable_cores()
    asked = os.environ.get("OMP_NUM_THREADS")
    found = f"{threads} in one operation, {cores} cores" + (f", OMP_NUM_THREADS={asked}" if asked else "")
    if threads > cores:
        mend = f"export OMP_NUM_THREADS={cores}"
        yield Check("threads", False, f"{found}: they wait for each other, many times slower", mend)
    else:
        yield Check("threads", True, found)


def _launcher() -> Iterator[Check]:
    """Whether several processes can train together."""
    import torch.distributed

    beside = Path(sys.executable).with_name("torchrun")
    launcher = str(beside) if beside.exists() else shutil.which("torchrun")
    if not torch.distributed.is_available():
        yield Check("torchrun", None, "this torch is built without distributed training; one process only")
    elif launcher is None:
        yield Check("torchrun", None, "not found", f"{sys.executable} -m torch.distributed.run does the same")
    else:
        backends = [name for name in ("nccl", "gloo") if torch.distributed.is_backend_available(name)]
        yield Check("torchrun", True, f"{launcher}, {' and '.join(backends) or 'no backend'}")


def _memory() -> Iterator[Check]:
    values = dict.fromkeys(("MemTotal", "MemAvailable"), 0)
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            name, _, rest = line.partition(":")
            if name in values:
                values[name] = int(rest.split()[0]) * 1024
    except OSError:
        yield Check("memory", None, "this system does not say")
        return
    free = values["MemAvailable"]
    found = f"{free / 2**30:.1f} of {values['MemTotal'] / 2**30:.1f} GiB free"
    yield Check("memory", free > 2**31, found, "close other programs, or lower the batch size: 2 GiB is the least")


def _disk(folder: Path) -> Iterator[Check]:
    for name, place in (("disk, working directory", folder), ("disk, model cache", hub_cache())):
        existing = next(parent for parent in (place.absolute(), *place.absolute().parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        writable = os.access(existing, os.W_OK)
        found = f"{free / 2**30:.1f} GiB free in {place}" + ("" if writable else ", which cannot be written to")
        mend = "free some space: 2 GiB is the least" if writable else "choose a folder that you can write to"
        if name.endswith("cache"):
            mend += ", or set HF_HOME to one elsewhere"
        yield Check(name, writable and free > 2**31, found, mend)


def hub_cache() -> Path:
    """Where models from the Hugging Face hub are kept, by the hub's own rules."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    home = Path(os.environ.get("HF_HOME") or home)
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def _hub() -> Iterator[Check]:
    cache = hub_cache()
    count = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    found = f"{count} model(s) in {cache}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        mend = "unset HF_HUB_OFFLINE to download others"
        yield Check("Hugging Face hub", None, f"offline (HF_HUB_OFFLINE): {found}; only these and folders load", mend)
    else:
        yield Check("Hugging Face hub", True, f"online; {found}")


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _said(error: BaseException) -> str:
    """The first line of an exception, short."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text if len(text) <= 160 else text[:157] + '…'}"
