"""What touches the disk: atomic writes, content hashes, tensors without pickles."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gen2real.errors import CheckpointError, ModelError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write to; on success it becomes `path` in one step, on failure nothing is left of it.

    Raises: CheckpointError where the disk is full, with the bytes that are free.
    """
    with _explained_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=f".partial{path.suffix}", dir=path.parent)
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            _sync(partial)
            partial.chmod(0o666 & ~_umask())
            os.replace(partial, path)
            _sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; on success it becomes `path` in one step (replacing an older one), on failure it is removed.

    Raises: CheckpointError where the disk is full, with the bytes that are free.
    """
    with _explained_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        try:
            yield partial
            for file in partial.rglob("*"):
                _sync(file)
            partial.chmod(0o777 & ~_umask())
            if path.exists():
                _exchange(partial, path)
            else:
                os.replace(partial, path)
            _sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed `atomic_file` and `atomic_folder` calls left in `folder`; nobody may be writing there."""
    for leftover in [*folder.glob(".*.partial*"), *folder.glob(".*.retired")]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Adds a line to a text file. A kill may leave the last line torn.

    Raises: CheckpointError where the disk is full.
    """
    with _explained_disk_errors(path), path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as readable JSON, atomically. NaN and infinity are refused: JSON has no word for them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, sort_keys=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*parts: Any) -> str:
    """Hex SHA-256 of JSON-like parts; equal parts give equal digests in any process."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 over names, dtypes, shapes and bytes of named tensors."""
    import torch

    whole = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        whole.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        whole.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes named tensors as safetensors, atomically."""
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_file(path) as partial:
        save_file(whole, str(partial), metadata=dict(metadata or {}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Named tensors of a safetensors file.

    Raises: ModelError for a pickle (by its bytes, whatever it is called) and for a file that is not whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    refuse_pickle(path)
    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise ModelError(f"{path} is not a whole safetensors file ({error}). Restore it or make it again.") from error


def refuse_pickle(path: Path) -> None:
    """Raises ModelError if the file is a pickle or a torch zip, told by its bytes."""
    with path.open("rb") as stream:
        head = stream.read(9)
    # A safetensors file begins with the length of its header in eight bytes, which may look like a pickle's mark.
    if head[4:] == b"\0\0\0\0{":
        return
    is_torch_zip = head[:2] == b"PK" and zipfile.is_zipfile(path)
    if is_torch_zip or (len(head) > 1 and head[0] == 0x80 and head[1] in range(2, 6)):
        raise ModelError(
            f"{path} is a pickle. gen2real reads safetensors and JSON only, because opening a pickle runs whatever "
            "program its maker put in it. Convert it once where you trust it: "
            'safetensors.torch.save_file(torch.load(path, weights_only=True), "model.safetensors").'
        )


@contextmanager
def _explained_disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # safetensors reports a full disk as its own exception, with the operating system's words inside.
        number = getattr(error, "errno", None)
        # Inside an unfinished folder: the path that the file would have had.
        path = Path(*(re.sub(r"^\.(.+)\.[^.]+\.partial$", r"\1", part) for part in path.parts))
        kept = "Nothing that was there before is lost."
        if number == errno.EFBIG or "File too large" in str(error):
            raise CheckpointError(
                f"{path} could not be written: this file system, or the limit of `ulimit -f`, takes no file as large. "
                f"{kept} Write to another file system, or raise the limit, and run the same command again: it resumes."
            ) from error
        if number in (errno.ENOSPC, errno.EDQUOT) or any(words in str(error) for words in _FULL):
            free = shutil.disk_usage(_nearest_folder(path)).free
            raise CheckpointError(
                f"the disk is full: {path} could not be written ({free / 1e6:.0f} MB are free in {path.parent}). "
                f"{kept} Free some space and run the same command again: it resumes."
            ) from error
        raise


_FULL = ("No space left", "Disk quota exceeded")


def _exchange(partial: Path, path: Path) -> None:
    """Puts the folder `partial` where the folder `path` is; if that fails, the old one goes back."""
    retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".retired", dir=path.parent))
    try:
        os.replace(path, retired / path.name)
        try:
            os.replace(partial, path)
        except BaseException:
            os.replace(retired / path.name, path)
            raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.exists())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
