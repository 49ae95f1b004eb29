from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import save, smooth

from gen2real.errors import ImageSetError, UnreadablePictures
from gen2real.imagesets import loading
from gen2real.imagesets.decoding import decode
from gen2real.imagesets.loading import Pictures, prefetch
from gen2real.imagesets.manifest import ImageSet
from gen2real.imagesets.transforms import Augmentation, Preprocess

PREPROCESS = Preprocess(size=16)


def image_set(root: Path, sizes: list[tuple[int, int]], suffix: str = "png") -> ImageSet:
    names = [f"{number}.{suffix}" for number in range(len(sizes))]
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        save(root / name, number, size)
    return ImageSet.write(root, [{"id": name, "path": name} for name in names], [])


@pytest.fixture
def four(tmp_path: Path) -> ImageSet:
    return image_set(tmp_path, [(40, 30), (30, 50), (24, 24), (20, 90)])


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded, in order."""
    names: list[str] = []

    def counted(path: Path, **settings: Any) -> Any:
        names.append(path.name)
        return decode(path, **settings)

    monkeypatch.setattr(loading, "decode", counted)
    return names


@pytest.mark.parametrize("cache", ["auto", "memory", "none"])
def test_evaluation_is_the_exact_geometry(four: ImageSet, cache: Any) -> None:
    pictures = Pictures(four, PREPROCESS, cache=cache, augmentation=Augmentation())
    wanted = torch.stack([PREPROCESS.geometry(smooth(24, 24, 2)), PREPROCESS.geometry(smooth(40, 30, 0))])
    for _ in range(2):
        assert torch.equal(pictures.evaluation([2, 0]), wanted)
    assert pictures.evaluation([]).shape == (0, 3, 16, 16)
    assert len(pictures) == 4


@pytest.mark.parametrize("cache", ["auto", "memory", "none"])
def test_training_is_the_augmented_canvas_whatever_is_cached(four: ImageSet, cache: Any) -> None:
    augmentation = Augmentation(crop_scale=(0.64, 1.0))
    pictures = Pictures(four, PREPROCESS, cache=cache, augmentation=augmentation)
    canvases = [PREPROCESS.canvas(smooth(30, 50, 1), 20), PREPROCESS.canvas(smooth(20, 90, 3), 20)]
    assert [tuple(canvas.shape) for canvas in canvases] == [(3, 33, 20), (3, 90, 20)]
    wanted = augmentation.apply(canvases, 16, torch.Generator().manual_seed(7))
    for _ in range(2):
        assert torch.equal(pictures.training([1, 3], torch.Generator().manual_seed(7)), wanted)


def test_training_without_augmentation_is_evaluation(four: ImageSet, generator: torch.Generator) -> None:
    pictures = Pictures(four, PREPROCESS)
    assert torch.equal(pictures.training([3, 1], generator), pictures.evaluation([3, 1]))


@pytest.mark.parametrize(("cache", "times"), [("memory", 1), ("auto", 1), ("none", 3)])
def test_each_picture_is_decoded_once_if_cached(four: ImageSet, cache: Any, times: int, decoded: list[str]) -> None:
    pictures = Pictures(four, PREPROCESS, cache=cache)
    for _ in range(3):
        pictures.evaluation([0, 1, 2, 3])
    assert len(decoded) == 4 * times


@pytest.mark.parametrize(("limit", "times"), [(4 * 3 * 16 * 16, 1), (4 * 3 * 16 * 16 - 1, 2)])
def test_auto_keeps_pictures_only_where_all_of_them_fit(
    four: ImageSet, limit: int, times: int, decoded: list[str]
) -> None:
    pictures = Pictures(four, PREPROCESS, memory_limit_bytes=limit)
    for _ in range(2):
        pictures.evaluation([0, 1, 2, 3])
    assert len(decoded) == 4 * times


def test_training_and_evaluation_share_the_limit(four: ImageSet, generator: torch.Generator) -> None:
    canvases = sum(3 * width * height for width, height in [(22, 17), (17, 28), (17, 17), (17, 76)])
    pictures = Pictures(four, PREPROCESS, augmentation=Augmentation(), memory_limit_bytes=canvases + 4 * 768 - 1)
    pictures.training([0, 1, 2, 3], generator)
    assert pictures._bytes_kept == canvases
    pictures.evaluation([0, 1, 2, 3])
    assert pictures._bytes_kept == canvases


def test_pad_trains_on_the_padded_square(four: ImageSet, generator: torch.Generator) -> None:
    preprocess = Preprocess(size=16, fit="pad", margin=0.25, background=(0, 255, 0))
    whole = Augmentation(crop_scale=(1, 1), crop_ratio=(1, 1))
    pictures = Pictures(four, preprocess, augmentation=whole)
    assert torch.equal(pictures.training([0, 1], generator), pictures.evaluation([0, 1]))
    assert pictures.evaluation([0])[0, :, 0, 0].tolist() == [0, 255, 0]


def test_large_jpegs_train_as_well_from_a_scaled_decoding(tmp_path: Path) -> None:
    jpegs = image_set(tmp_path, [(400, 300)], "jpg")
    whole = Augmentation(crop_scale=(1, 1), crop_ratio=(4 / 3, 4 / 3))
    pictures = Pictures(jpegs, Preprocess(size=64), augmentation=whole)
    found = pictures.training([0], torch.Generator().manual_seed(0))
    full = whole.apply([Preprocess().canvas(decode(tmp_path / "0.jpg"), 300)], 64, torch.Generator().manual_seed(0))
    assert (found.float() - full.float()).abs().mean() < 1


def test_missing_and_empty_files_are_listed_at_once(four: ImageSet) -> None:
    four.paths[0].unlink()
    four.paths[2].write_bytes(b"")
    with pytest.raises(UnreadablePictures) as caught:
        Pictures(four, PREPROCESS)
    assert [(offender.path.name, offender.reason) for offender in caught.value.offenders] == [
        ("0.png", "the file does not exist"),
        ("2.png", "the file is empty (0 bytes)"),
    ]


def test_broken_files_are_listed_when_met(four: ImageSet) -> None:
    for number in (0, 3):
        four.paths[number].write_bytes(four.paths[number].read_bytes()[:60])
    pictures = Pictures(four, PREPROCESS)
    with pytest.raises(UnreadablePictures) as caught:
        pictures.evaluation([0, 1, 3])
    assert [offender.path.name for offender in caught.value.offenders] == ["0.png", "3.png"]
    assert pictures.evaluation([1, 2]).shape[0] == 2


def test_skip_leaves_the_unreadable_out_and_says_so(four: ImageSet) -> None:
    four.paths[1].write_bytes(b"text")
    with pytest.warns(UserWarning, match="1 of 4 picture"):
        pictures = Pictures(four, PREPROCESS, on_unreadable="skip")
    assert pictures.image_set.ids == ["0.png", "2.png", "3.png"]
    assert torch.equal(pictures.evaluation([1])[0], PREPROCESS.geometry(smooth(24, 24, 2)))


def test_unknown_settings_are_refused(four: ImageSet) -> None:
    settings: Any = {"cache": "disk"}
    with pytest.raises(ImageSetError, match="disk"):
        Pictures(four, PREPROCESS, **settings)
    settings = {"on_unreadable": "ignore"}
    with pytest.raises(ImageSetError, match="ignore"):
        Pictures(four, PREPROCESS, **settings)


def test_many_threads_get_the_same_pictures(four: ImageSet) -> None:
    pictures = Pictures(four, PREPROCESS, augmentation=Augmentation())
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: pictures.evaluation([0, 1, 2, 3]), range(40)))
    assert all(torch.equal(batch, batches[0]) for batch in batches)
    assert pictures._bytes_kept == 4 * 768


def workers_alive() -> int:
    return sum(thread.name.startswith("gen2real-batches") for thread in threading.enumerate())


def test_prefetch_keeps_the_order() -> None:
    def slow_if_even(step: int) -> int:
        time.sleep(0.01 * (step % 2 == 0))
        return step * step

    assert list(prefetch(slow_if_even, range(3, 13), depth=3, workers=3)) == [step * step for step in range(3, 13)]
    assert workers_alive() == 0


def test_prefetch_makes_no_more_than_depth_ahead() -> None:
    made: list[int] = []
    batches = prefetch(made.append, range(100), depth=3, workers=1)
    next(batches)
    time.sleep(0.05)
    assert len(made) <= 4
    batches.close()  # type: ignore[attr-defined]
    assert len(made) <= 4


def test_prefetch_raises_at_the_step_that_failed_and_ends_its_threads() -> None:
    def broken_at_two(step: int) -> int:
        if step == 2:
            raise KeyError("two")
        return step

    batches = prefetch(broken_at_two, range(10))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(KeyError, match="two"):
        next(batches)
    assert workers_alive() == 0


def test_leaving_a_loop_ends_the_threads() -> None:
    for step in prefetch(lambda step: step, range(1000)):
        if step == 3:
            break
    batches = prefetch(lambda step: step, range(1000))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert workers_alive() == 0


def test_in_workers_torch_runs_on_one_core_and_here_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert list(prefetch(lambda _: torch.get_num_threads(), range(4))) == [1, 1, 1, 1]
        assert torch.get_num_threads() == 2
        fresh: list[int] = []
        thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert fresh == [2]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("settings", [{"depth": 0}, {"workers": 0}])
def test_prefetch_refuses_nothing_to_work_with(settings: dict[str, int]) -> None:
    with pytest.raises(ImageSetError, match="at least 1"):
        prefetch(lambda step: step, range(3), **settings)
