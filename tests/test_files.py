from __future__ import annotations

import errno
import json
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gen2real import files
from gen2real.errors import CheckpointError, ModelError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_with_the_usual_rights(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "note.txt"
    umask = os.umask(0o027)
    try:
        with files.atomic_file(target) as partial:
            partial.write_text("whole")
            assert not target.exists()
            assert partial.suffix == ".txt", "writers that go by the suffix see the right one"
    finally:
        os.umask(umask)
    assert target.read_text() == "whole"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert names(target.parent) == ["note.txt"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    files.write_text(target, "old")

    def fail() -> None:
        with files.atomic_file(target) as partial:
            partial.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


def test_a_folder_appears_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for text in ("first", "second"):
        with files.atomic_folder(target) as partial:
            (partial / "inner").mkdir()
            (partial / "inner" / text).write_text(text)
        assert names(target / "inner") == [text]
        assert names(tmp_path) == ["model"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with files.atomic_folder(target) as partial:
        (partial / "old").touch()

    def fail() -> None:
        with files.atomic_folder(target) as partial:
            (partial / "new").touch()
            raise ValueError("on the way")

    with pytest.raises(ValueError, match="on the way"):
        fail()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["model"]


def test_a_folder_that_cannot_take_its_place_gives_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    with files.atomic_folder(target) as partial:
        (partial / "old").touch()
    real = os.replace

    def refuses(source: Path, destination: Path) -> None:
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, "the disk fails here")
        real(source, destination)

    monkeypatch.setattr(os, "replace", refuses)

    def fail() -> None:
        with files.atomic_folder(target) as partial:
            (partial / "new").touch()

    with pytest.raises(OSError, match="the disk fails here"):
        fail()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["model"]


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "note.txt"
    files.write_text(target, "old")
    code = (
        "import os, sys, signal, pathlib\nfrom gen2real import files\n"
        "with files.atomic_file(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert killed.returncode == -9
    assert target.read_text() == "old"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_explained(tmp_path: Path, number: int) -> None:
    def fail() -> None:
        with files.atomic_file(tmp_path / "note.txt"):
            raise OSError(number, "full")

    with pytest.raises(CheckpointError, match=r"the disk is full: .*note\.txt .*MB are free.* it resumes"):
        fail()
    assert names(tmp_path) == []


def test_a_disk_that_is_full_before_anything_is_written_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.tempfile, "mkstemp", full)
    monkeypatch.setattr(files.tempfile, "mkdtemp", full)
    with pytest.raises(CheckpointError, match="the disk is full"):
        files.write_text(tmp_path / "note.txt", "x")

    def folder() -> None:
        with files.atomic_folder(tmp_path / "model"):
            pass

    with pytest.raises(CheckpointError, match="the disk is full"):
        folder()


def test_another_error_comes_through_as_it_is(tmp_path: Path) -> None:
    def fail() -> None:
        with files.atomic_file(tmp_path / "note.txt"):
            raise OSError(errno.EACCES, "no")

    with pytest.raises(PermissionError):
        fail()


def test_json_keeps_its_order_and_its_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"z": 1, "a": ["猫", None, 0.1]})
    assert files.read_json(path) == {"z": 1, "a": ["猫", None, 0.1]}
    assert path.read_text(encoding="utf-8").startswith('{\n  "z": 1,\n  "a"')
    assert "猫" in path.read_text(encoding="utf-8")


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert names(tmp_path) == []


def test_digests_are_known_values_and_ignore_the_order_of_keys(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_of(tmp_path / "abc") == known
    assert files.digest({"a": 1, "b": [2]}, "x") == files.digest({"b": [2], "a": 1}, "x")
    assert files.digest("a", "b") != files.digest("ab")
    assert files.digest([1]) != files.digest(["1"])


def test_digests_of_tensors_see_name_type_shape_and_bytes() -> None:
    tensor = torch.arange(6, dtype=torch.float32)
    one = files.digest_tensors({"a": tensor, "b": tensor + 1})
    assert one == files.digest_tensors({"b": tensor + 1, "a": tensor.clone()})
    others = [
        {"a": tensor},
        {"x": tensor},
        {"a": tensor.view(2, 3)},
        {"a": tensor.view(torch.int32)},
        {"a": tensor.bfloat16()},
        {"a": torch.tensor(1.0)},
        {"a": torch.empty(0)},
        {"a": torch.tensor([True])},
        {},
    ]
    assert len({files.digest_tensors(named) for named in others}) == len(others)
    columns = torch.arange(6.0).view(2, 3).T
    assert files.digest_tensors({"a": columns}) == files.digest_tensors({"a": columns.contiguous()})


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    shared = torch.arange(6.0).view(2, 3)
    given = {
        "plain": shared,
        "same storage": shared,
        "transposed": shared.T,
        "half": shared.bfloat16(),
        "whole": torch.tensor([1, -1]),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 4),
        "trained": torch.nn.Parameter(torch.tensor([float("nan"), 1.0])),
    }
    files.write_tensors(path, given, {"made by": "a test"})
    back = files.read_tensors(path)
    assert set(back) == set(given)
    for name, tensor in given.items():
        assert back[name].dtype == tensor.dtype
        torch.testing.assert_close(back[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)
    assert names(tmp_path) == ["weights.safetensors"]


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps({"a": [1.0]}, protocol=protocol))
    with pytest.raises(ModelError):
        files.read_tensors(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "weights.safetensors"
    torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=r"is a pickle.*safetensors\.torch\.save_file"):
        files.read_tensors(path)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    files.write_tensors(path, {"a": torch.ones(100)})
    whole = path.read_bytes()
    for size in (0, 1, 7, 20, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match="not a whole safetensors file"):
            files.read_tensors(path)


def test_a_small_safetensors_file_is_no_pickle(tmp_path: Path) -> None:
    """The first byte of a safetensors file is the length of its header, which may be that of a pickle's mark."""
    path = tmp_path / "weights.safetensors"
    for length in range(560, 640, 4):
        files.write_tensors(path, {"n" * length: torch.ones(1)})
        if path.read_bytes()[:2] == b"\x80\x02":
            break
    else:
        pytest.fail("no name gives a header of 640 bytes")
    assert set(files.read_tensors(path)) == {"n" * length}


def test_metadata_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    files.write_tensors(path, {"a": torch.ones(1)}, {"step": "3"})
    size = int.from_bytes(path.read_bytes()[:8], "little")
    assert json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"] == {"step": "3"}
