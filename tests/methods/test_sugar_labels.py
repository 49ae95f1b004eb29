"""Sugar's labels against an oracle in plain Python, pair by pair and cell by cell; its teachers slice by slice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gen2real.errors import ModelError, UnreadablePictures
from gen2real.imagesets.decoding import decode
from gen2real.imagesets.interleaved import Part, Slice
from gen2real.methods.sugar import labels
from gen2real.methods.sugar.labels import Calibration, SliceFeatures, Teachers, calibrate, prefix_targets
from gen2real.methods.sugar.settings import KernelSettings, TeacherSettings
from gen2real.models import load_dual_encoder
from gen2real.models.text_encoder import load_text_encoder
from tiny import tiny_clip, tiny_siglip
from tiny_text import tiny_bert

# Prefixes of 1 to 5 slices, five of one slice (a picture, a text, …), of four samples.
PREFIXES = [[0], [0, 6], [0, 6, 1, 7, 2], [8], [8, 3], [4, 9, 5], [9], [4], [10, 11, 9, 5], [1, 7, 2, 0, 6, 6]]
OWNERS = [0, 0, 0, 1, 1, 2, 3, 4, 5, 6]


def features_of(seed: int = 3, pictures: int = 6, texts: int = 6) -> SliceFeatures:
    random = torch.Generator().manual_seed(seed)
    count = pictures + texts

    def unit(width: int) -> torch.Tensor:
        drawn = torch.randn(count, width, generator=random, dtype=torch.float64) + 0.4
        return (drawn / drawn.norm(dim=1, keepdim=True)).float()

    return SliceFeatures({}, torch.arange(count) < pictures, unit(7), unit(5))


def plain_distance(features: SliceFeatures, a: int, b: int, settings: KernelSettings, calibration: Any = None) -> float:
    """Equation 4, by coordinates."""
    if a == b:
        return 0.0
    pictures = features.pictures.tolist()
    alike = pictures[a] == pictures[b] and settings.local == "triple"
    space = (features.own if alike else features.joint).double().tolist()
    distance = sum((x - y) ** 2 for x, y in zip(space[a], space[b], strict=True))
    if calibration is not None:
        name = labels.BRANCHES[int(pictures[a]) + int(pictures[b])]
        mean, std = calibration.branches[name]
        distance = min(4.0, max(0.0, (distance - mean) / std * calibration.std + calibration.mean))
    return distance


def plain_kernel(distance: list[list[float]], bandwidth: float, normalize: str) -> float:
    """Equation 2, cell by cell; the number of alignments by the same recursion."""
    n, m = len(distance), len(distance[0])
    sigma = bandwidth * math.sqrt((n + m) / 2)
    summed = [[0.0] * (m + 1) for _ in range(n + 1)]
    paths = [[0.0] * (m + 1) for _ in range(n + 1)]
    summed[0][0] = paths[0][0] = 1.0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            scaled = distance[i - 1][j - 1] / (2 * sigma**2)
            local = math.exp(-(scaled + math.log(2 - math.exp(-scaled))))
            summed[i][j] = (summed[i - 1][j] + summed[i][j - 1] + summed[i - 1][j - 1]) * local
            paths[i][j] = paths[i - 1][j] + paths[i][j - 1] + paths[i - 1][j - 1]
    return summed[n][m] / paths[n][m] if normalize == "paths" else summed[n][m]


def plain_target(
    features: SliceFeatures, x: list[int], y: list[int], settings: KernelSettings, calibration: Any
) -> float:
    def between(left: list[int], right: list[int]) -> list[list[float]]:
        return [[plain_distance(features, a, b, settings, calibration) for b in right] for a in left]

    cells = between(x, y)
    if settings.alignment == "mean":
        return sum(1 - cell / 2 for row in cells for cell in row) / (len(x) * len(y))
    if len(x) == len(y) == 1:
        return 1 - cells[0][0] / 2
    if settings.normalize != "self":
        return plain_kernel(cells, settings.bandwidth, settings.normalize)
    alone = [plain_kernel(between(one, one), settings.bandwidth, "none") for one in (x, y)]
    return plain_kernel(cells, settings.bandwidth, "none") / math.sqrt(alone[0] * alone[1])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": "self"},
        {"normalize": "none", "bandwidth": 0.5},
        {"local": "joint"},
        {"alignment": "mean"},
        {"alignment": "mean", "local": "joint", "same_sample": False},
        {"same_sample": False, "bandwidth": 2.0},
        {"normalize": "self", "same_sample": False, "calibrate": True},
        {"calibrate": True, "local": "joint", "alignment": "mean"},
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()) or "default",
)
def test_targets_are_those_of_plain_python(options: dict[str, Any]) -> None:
    features, settings = features_of(), KernelSettings(**options)
    calibration = calibrate(features, settings)
    found = prefix_targets(features, PREFIXES, OWNERS, settings, calibration=calibration)
    assert found.dtype == torch.float32
    assert torch.equal(found, found.T)
    for i, x in enumerate(PREFIXES):
        for j, y in enumerate(PREFIXES):
            same = i == j or (settings.same_sample and OWNERS[i] == OWNERS[j])
            expected = 1.0 if same else plain_target(features, x, y, settings, calibration)
            assert float(found[i, j]) == pytest.approx(expected, rel=2e-6, abs=1e-6), (x, y)


def test_the_teacher_is_chosen_by_modality() -> None:
    # own: pictures 60° apart, texts 90°; joint: all of them 180° apart or 0°.
    own = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5], [1.0, 0.0], [0.0, 1.0]])
    joint = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    features = SliceFeatures({}, torch.tensor([True, True, False, False]), own, joint)
    alone = [[0], [1], [2], [3]]
    expected = torch.tensor([[1, 0.5, -1, 1], [0.5, 1, 1, -1], [-1, 1, 1, 0], [1, -1, 0, 1.0]])
    torch.testing.assert_close(prefix_targets(features, alone, range(4), KernelSettings()), expected)
    for alignment in ("gak", "mean"):
        control = KernelSettings(local="joint", alignment=alignment)
        torch.testing.assert_close(prefix_targets(features, alone, range(4), control), joint @ joint.T)


def test_same_prefixes_of_different_samples_are_alike_and_order_matters_to_the_kernel_alone() -> None:
    features = features_of()
    there, back = [0, 6, 1, 7], [7, 1, 6, 0]
    by_itself, paths, mean = (
        prefix_targets(features, [there, there, back], [0, 1, 2], KernelSettings(**options))
        for options in ({"normalize": "self"}, {}, {"alignment": "mean"})
    )
    assert float(by_itself[0, 1]) == pytest.approx(1, abs=1e-6)
    for kernel in (by_itself, paths):
        assert float(kernel[0, 2]) < float(kernel[0, 1]) - 0.01
    assert float(mean[0, 2]) == pytest.approx(float(mean[0, 1]), abs=1e-6)
    assert prefix_targets(features, [there], [0], KernelSettings()).tolist() == [[1.0]]
    assert prefix_targets(features, [], [], KernelSettings()).shape == (0, 0)


def test_calibration_brings_the_branches_to_one_mean_and_spread() -> None:
    features = features_of(pictures=40, texts=25)
    # Texts that are all much alike, as BGE's.
    features.own[40:] = torch.nn.functional.normalize(features.own[40:] + 9, dim=1)
    settings = KernelSettings(calibrate=True)
    found = calibrate(features, settings)
    assert found is not None
    cells: dict[str, list[float]] = {name: [] for name in labels.BRANCHES}
    for a in range(65):
        for b in range(a):
            name = labels.BRANCHES[int(a < 40) + int(b < 40)]
            cells[name].append(plain_distance(features, a, b, settings))
    everything = np.concatenate([np.array(own) for own in cells.values()])
    within = sum(((np.array(own) - np.mean(own)) ** 2).sum() for own in cells.values()) / len(everything)
    assert (found.mean, found.std) == pytest.approx((everything.mean(), math.sqrt(within)), rel=1e-4)
    for name, own in cells.items():
        assert found.branches[name] == pytest.approx((np.mean(own), np.std(own)), rel=1e-4, abs=1e-7)
    targets = prefix_targets(features, [[row] for row in range(65)], range(65), settings, calibration=found)
    for place, name in enumerate(labels.BRANCHES):
        kind = features.pictures.long()
        of = (kind[:, None] + kind == place) & ~torch.eye(65, dtype=torch.bool)
        distance = 2 - 2 * targets[of]
        assert float(distance.mean()) == pytest.approx(found.mean, abs=0.02), name
        assert float(distance.std()) == pytest.approx(found.std, abs=0.02), name
    assert found.to_json()["branches"]["text and text"] == {
        "mean": found.branches["text and text"][0],
        "std": found.branches["text and text"][1],
    }
    assert calibrate(features, KernelSettings()) is None
    only_pictures = SliceFeatures({}, torch.ones(9, dtype=torch.bool), features.own[:9], features.joint[:9])
    one_branch = calibrate(only_pictures, settings)
    assert one_branch is not None
    assert list(one_branch.branches) == ["picture and picture"]
    same = prefix_targets(only_pictures, [[row] for row in range(9)], range(9), settings, calibration=one_branch)
    torch.testing.assert_close(
        same, prefix_targets(only_pictures, [[row] for row in range(9)], range(9), KernelSettings())
    )


def test_what_does_not_fit_is_told() -> None:
    features, plain = features_of(), KernelSettings()
    with pytest.raises(ModelError, match="2 prefixes have 1 owners"):
        prefix_targets(features, [[0], [1]], [0], plain)
    with pytest.raises(ModelError, match="prefix 1 holds no slice"):
        prefix_targets(features, [[0], []], [0, 1], plain)
    for row in (12, -1):
        with pytest.raises(ModelError, match=r"must lie in 0…11"):
            prefix_targets(features, [[0], [1, row]], [0, 1], plain)
    with pytest.raises(ModelError, match=r"calibrate is True .* given is none"):
        prefix_targets(features, [[0]], [0], KernelSettings(calibrate=True))
    other = Calibration("joint", 1.0, 1.0, {})
    with pytest.raises(ModelError, match="one of 'joint' distances"):
        prefix_targets(features, [[0]], [0], KernelSettings(calibrate=True), calibration=other)
    with pytest.raises(ModelError, match="there are 1"):
        calibrate(features_of(pictures=1, texts=0), KernelSettings(calibrate=True))


@pytest.mark.parametrize("options", [{}, {"normalize": "self"}, {"alignment": "mean"}])
def test_pairs_are_computed_together(options: dict[str, Any]) -> None:
    """72 times as many pairs take hardly more operations."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls += 1
            return func(*args, **(kwargs or {}))

    random = np.random.default_rng(5)
    features = features_of(pictures=60, texts=60)
    calls = []
    for count in (8, 64):
        prefixes = [random.integers(0, 120, 6)[: 1 + place % 6].tolist() for place in range(count)]
        with Count() as mode:
            prefix_targets(features, prefixes, range(count), KernelSettings(**options))
        calls.append(mode.calls)
    assert calls[1] < 2 * calls[0]


def test_portions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_of()
    whole = prefix_targets(features, PREFIXES, OWNERS, KernelSettings())
    monkeypatch.setattr(labels, "_CELLS", 64)
    torch.testing.assert_close(prefix_targets(features, PREFIXES, OWNERS, KernelSettings()), whole, rtol=0, atol=1e-7)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("teachers")
    tiny_clip(root / "clip")
    tiny_siglip(root / "siglip", seed=1)
    tiny_bert(root / "bert")
    random = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(random.integers(0, 255, (36, 44, 3), dtype=np.uint8)).save(root / f"{number}.png")
    return root


def told(root: Path) -> list[Slice]:
    """Seven slices, of which five are different."""
    said: list[Part] = [
        "A duck came.",
        root / "0.png",
        "It went.",
        root / "1.png",
        "A duck came.",
        root / "2.png",
        root / "0.png",
    ]
    return [Slice("image" if isinstance(one, Path) else "text", one, 0, place) for place, one in enumerate(said)]


@torch.no_grad()
def test_teachers_features_are_those_of_each_slice_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = told(root)
    # Of two slices each, so that there are several.
    monkeypatch.setattr(labels, "_KEPT_TOGETHER", 2)
    settings = TeacherSettings(joint=str(root / "clip"), image=str(root / "siglip"), text=str(root / "bert"))
    features = Teachers(settings).features(given)
    assert (features.own.shape, features.joint.shape) == ((5, 32), (5, 20))
    assert features.prefix(given[:2]) == [3, 0]
    assert features.prefix(given) == [3, 0, 4, 1, 3, 2, 0]
    clip, siglip = load_dual_encoder(root / "clip"), load_dual_encoder(root / "siglip")
    bert = load_text_encoder(root / "bert")
    for one in given:
        row = features.rows[one.content]
        assert bool(features.pictures[row]) == (one.kind == "image")
        if isinstance(one.content, Path):
            pixels = decode(one.content)
            joint, own = (
                of.encode_image(of.preprocess.normalize(of.preprocess.geometry(pixels)[None]))[0]
                for of in (clip, siglip)
            )
        else:
            joint, own = clip.encode_text([one.content])[0], bert.encode_text([one.content])[0]
        torch.testing.assert_close(features.joint[row], joint / joint.norm())
        torch.testing.assert_close(features.own[row, : len(own)], own / own.norm())
        assert not features.own[row, len(own) :].any()


def test_a_joint_teacher_alone_is_every_teacher(root: Path) -> None:
    features = Teachers(TeacherSettings(joint=str(root / "clip"))).features(told(root))
    assert torch.equal(features.own, features.joint)
    triple, joint = (
        prefix_targets(features, [[0], [3], [1, 4]], [0, 1, 2], KernelSettings(local=local))
        for local in ("triple", "joint")
    )
    torch.testing.assert_close(triple, joint)


def test_features_are_computed_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEN2REAL_CACHE", str(tmp_path))
    teachers = Teachers(TeacherSettings(joint=str(root / "clip"), text=str(root / "bert")))
    first = teachers.features(told(root))
    moved = tmp_path / "moved"
    moved.mkdir()
    for number in range(3):
        (moved / f"{number}.png").write_bytes((root / f"{number}.png").read_bytes())
    # The same content in another folder; nobody looks or reads again.
    for encoder in (teachers.joint, teachers.text):
        monkeypatch.setattr(encoder, "encode_text", None)
    monkeypatch.setattr(teachers.joint.vision, "forward", None)
    again = teachers.features(told(moved))
    assert torch.equal(first.own, again.own)
    assert torch.equal(first.joint, again.joint)
    assert set(again.rows) == {one.content for one in told(moved)}


def test_slices_of_one_kind_and_none(root: Path) -> None:
    teachers = Teachers(TeacherSettings(joint=str(root / "clip"), text=str(root / "bert")))
    texts = teachers.features([one for one in told(root) if one.kind == "text"])
    assert (texts.own.shape, texts.joint.shape, texts.pictures.tolist()) == ((2, 24), (2, 20), [False] * 2)
    pictures = teachers.features([one for one in told(root) if one.kind == "image"])
    assert (pictures.own.shape, pictures.joint.shape, pictures.pictures.tolist()) == ((3, 20), (3, 20), [True] * 3)
    assert len(teachers.features([]).pictures) == 0


def test_what_cannot_be_seen_is_told(root: Path, tmp_path: Path) -> None:
    teachers = Teachers(TeacherSettings(joint=str(root / "clip")))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(UnreadablePictures, match=r"broken\.png"):
        teachers.features([*told(root), Slice("image", broken, 0, 9)])
    with torch.no_grad():
        next(teachers.joint.vision.parameters())[:] = float("nan")
    with pytest.raises(ModelError, match="3 of 3 slices features that are NaN"):
        teachers.features(told(root))
