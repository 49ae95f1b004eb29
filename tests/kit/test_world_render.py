"""What the pictures look like. Templates, thumbnails and colours are compared with tolerance: numpy may round anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from gen2real.kit.world import COLOURS, KINDS, PATTERNS, Scene, render, sample_scene
from gen2real.kit.world.scenes import arrange
from gen2real.kit.world.vocabulary import HOME_GROUNDS, WEB_GROUNDS

Pictures = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def studio() -> Scene:
    """One toy in a grey studio."""
    scene = sample_scene("web", "test", 0, toys=1)
    return arrange(replace(scene, ground="grey studio"), scene.toys)


def posed(studio: Scene, kind: str, *, shift: float = 0.0, **looks: object) -> Scene:
    plain = {"colour": "blue", "pattern": "plain", "size": "medium", "angle": 0.0, "mirrored": False}
    scene = arrange(studio, (replace(studio.toys[0], kind=kind, **{**plain, **looks}),))
    return replace(scene, toys=(replace(scene.toys[0], x=scene.toys[0].x + shift),))


def test_pictures_are_eight_bits_and_64_pixels(web: list[Scene]) -> None:
    pictures = render(web[:3])
    assert pictures.shape == (3, 64, 64, 3)
    assert pictures.dtype == np.uint8
    assert render([]).shape == (0, 64, 64, 3)


def test_a_picture_depends_on_its_own_scene_only(web: list[Scene], home: list[Scene]) -> None:
    """Over a border of the blocks that are drawn together, in another order, among others, and alone."""
    scenes = [scene for pair in zip(web[:36], home[:36], strict=True) for scene in pair]
    together = render(scenes)
    assert np.array_equal(render(scenes[::-1])[::-1], together)
    for place in (0, 1, 17, 40, 63, 64, 71):
        assert np.array_equal(render([scenes[place]])[0], together[place])


def thumbnails(pictures: Pictures) -> npt.NDArray[np.float64]:
    """Means over 16 × 16 blocks of 4 pixels."""
    return pictures.reshape(len(pictures), 4, 16, 4, 16, 3).mean(axis=(2, 4))


def test_pictures_are_those_that_were_fixed(web: list[Scene], home: list[Scene]) -> None:
    """Whoever changes this changes every number that was ever measured on the kit."""
    golden = np.frombuffer(bytes.fromhex(GOLDEN), np.uint8).reshape(4, 4, 4, 3)
    assert np.abs(thumbnails(render([*web[:2], *home[:2]])) - golden).max() < 1


# Four pictures, four lines of colours each.
GOLDEN = (
    "dbdbdddfdfe1dfdfe1dbdbdddbdbdce1e1e3dfdabcd6d2c6e1b7b7dc8f8dd3c88dc5b989d2bfc0cdb4b5d2d2d3c7c7c8"
    "d9d9dcdfdfe2dfdfe1d9d9dcdadbdde2e2e4dbd9d9dadbdddcdddfe4dbd2d1b99cd9d1cad4d5d7d3c7bdbd976fbeb7b3"
    "7e7e6688876e75876b74815b7d6947997a428875517b694c836a3bddb32c91763f80684c6a573c725c367b65487e664a"
    "8e9f60aaac939fb197a59c87987a44a77e58aa94729b7150a66334c1885bcdaf8ea76334aa6535a8683ba87143a86434"
)


def test_pictures_are_neither_dark_nor_burnt(web: list[Scene], home: list[Scene]) -> None:
    for scenes in (web[:60], home[:60]):
        pictures = render(scenes)
        assert (pictures.mean((1, 2, 3)) > 60).all()
        assert (pictures == 255).mean() < 0.02
        assert (pictures.std((1, 2)).max(-1) > 8).all()


def test_every_ground_looks_different(studio: Scene) -> None:
    empty = [replace(studio, ground=ground, toys=()) for ground in (*WEB_GROUNDS, *HOME_GROUNDS)]
    seen = render(empty).astype(float)
    apart = np.abs(seen[:, None] - seen[None]).mean((2, 3, 4))
    assert apart[~np.eye(len(empty), dtype=bool)].min() > 4


@pytest.mark.parametrize("colour", ["red", "yellow", "purple"])
def test_every_kind_is_told_from_every_other(studio: Scene, colour: str) -> None:
    """Turned, shifted, mirrored and in another colour, each is still most like the template of its own kind."""
    (empty,) = render([replace(studio, toys=())]).astype(float)

    def outlines(scenes: list[Scene]) -> npt.NDArray[np.float64]:
        change = np.abs(render(scenes).astype(float) - empty).max(-1).reshape(len(scenes), -1)
        change -= change.mean(1, keepdims=True)
        return change / np.linalg.norm(change, axis=1, keepdims=True)

    templates = [posed(studio, kind, mirrored=mirrored) for kind in KINDS for mirrored in (False, True)]
    poses = [(6.0, False, 0.0), (-6.0, True, 0.0), (4.0, True, 0.5)]
    seen = [
        posed(studio, kind, colour=colour, angle=angle, mirrored=mirrored, shift=shift)
        for kind in KINDS
        for angle, mirrored, shift in poses
    ]
    nearest = (outlines(seen) @ outlines(templates).T).argmax(1) // 2
    assert [KINDS[place] for place in nearest] == [kind for kind in KINDS for _ in poses]


@pytest.mark.parametrize("ground", WEB_GROUNDS)
def test_a_ball_has_the_colour_that_it_is_said_to_have(studio: Scene, ground: str) -> None:
    place = replace(studio, ground=ground)
    scenes = [posed(place, "ball", colour=colour, size="large") for colour in COLOURS]
    toy = scenes[0].toys[0]
    half = int(0.7 * toy.extent)
    top, left = int(toy.y) - half, int(toy.x) - half
    window = render(scenes)[:, top : top + 2 * half, left : left + 2 * half] / 255
    apart = np.linalg.norm(window.mean((1, 2))[:, None] - np.array(list(COLOURS.values()))[None], axis=-1)
    assert [list(COLOURS)[nearest] for nearest in apart.argmin(1)] == list(COLOURS)


def test_every_pattern_is_seen(studio: Scene) -> None:
    seen = render([posed(studio, "ball", size="large", pattern=pattern) for pattern in PATTERNS]).astype(float)
    apart = np.abs(seen[:, None] - seen[None]).mean((2, 3, 4))
    assert apart[~np.eye(len(PATTERNS), dtype=bool)].min() > 4


def test_a_larger_toy_covers_more(studio: Scene) -> None:
    (empty,) = render([replace(studio, toys=())]).astype(float)
    seen = render([posed(studio, "star", size=size) for size in ("small", "medium", "large")])
    covered = (np.abs(seen - empty).max(-1) > 60).sum((1, 2))
    assert covered[1] > 1.5 * covered[0]
    assert covered[2] > 1.5 * covered[1]


def test_nothing_of_a_toy_is_cut_off(web: list[Scene]) -> None:
    """A toy alone leaves the outermost pixels as they are without it, but for the sensor's range."""
    alone = [scene for scene in web if len(scene.toys) == 1][:60]
    change = np.abs(render(alone).astype(int) - render([replace(scene, toys=()) for scene in alone])).max(-1)
    border = np.ones((64, 64), bool)
    border[1:-1, 1:-1] = False
    # The shadow of a large toy may reach the edge, softly.
    assert change[:, border].max() < 40
    assert (change.max((1, 2)) > 60).all()
