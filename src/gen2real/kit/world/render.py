"""Scenes to pictures: grounds, soft shadows, shaded toys, a camera. Many scenes at a time, in plain numpy.

All is drawn at twice the side and averaged. Toys of one kind and one window size are drawn together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gen2real.kit.world.grounds import draw_grounds
from gen2real.kit.world.scenes import Scene, Toy
from gen2real.kit.world.shapes import BODY, MATERIALS, SHADE, SHAPES, TINT, Part, Plane
from gen2real.kit.world.vocabulary import COLOURS, SIDE

Picture = npt.NDArray[np.uint8]

_SCALE = 2
_CANVAS = SIDE * _SCALE
# A toy leans and bulges over its unit square a little.
_REACH = 1.3
_AT_A_TIME = 64
# Two neighbouring windows share a size, so that more toys are drawn together.
_WINDOW_STEP = 12


def render(scenes: Sequence[Scene]) -> Picture:
    """Pictures of scenes: uint8 [N 64 64 3]. Each depends on its own scene only."""
    out = np.empty((len(scenes), SIDE, SIDE, 3), np.uint8)
    for start in range(0, len(scenes), _AT_A_TIME):
        out[start : start + _AT_A_TIME] = _render(scenes[start : start + _AT_A_TIME])
    return out


def toy_masks(scenes: Sequence[Scene]) -> Picture:
    """How much of each pixel a toy covers, before the camera: uint8 [N 64 64], 255 is all of it."""
    out = np.empty((len(scenes), SIDE, SIDE), np.uint8)
    for start in range(0, len(scenes), _AT_A_TIME):
        some = scenes[start : start + _AT_A_TIME]
        canvas = np.zeros((len(some), _CANVAS, _CANVAS, 1), np.float32)
        toys = [(index, toy) for index, scene in enumerate(some) for toy in scene.toys]
        for (index, toy), (_, cover) in zip(toys, _draw_toys(toys, some), strict=True):
            _paste(canvas[index], np.ones((*cover.shape, 1), np.float32), cover, toy)
        small = canvas.reshape(len(some), SIDE, _SCALE, SIDE, _SCALE).mean(axis=(2, 4))
        out[start : start + _AT_A_TIME] = (small * 255 + 0.5).astype(np.uint8)
    return out


def _render(scenes: Sequence[Scene]) -> Picture:
    canvas = draw_grounds(scenes, _CANVAS)
    toys = [(index, toy) for index, scene in enumerate(scenes) for toy in scene.toys]
    for index, toy in toys:
        _shadow(canvas[index], toy, scenes[index])
    patches = _draw_toys(toys, scenes)
    # Further toys first.
    for place in sorted(range(len(toys)), key=lambda place: toys[place][1].y + toys[place][1].extent):
        index, toy = toys[place]
        _paste(canvas[index], *patches[place], toy)
    small = canvas.reshape(len(scenes), SIDE, _SCALE, SIDE, _SCALE, 3).mean(axis=(2, 4))
    return _photograph(small, scenes)


def _window(toy: Toy) -> int:
    """Side of the square that a toy is drawn in, in canvas pixels; even."""
    side = 2 * _REACH * toy.extent * _SCALE
    return int(-(-side // _WINDOW_STEP) * _WINDOW_STEP)


def _draw_toys(toys: Sequence[tuple[int, Toy]], scenes: Sequence[Scene]) -> list[tuple[Plane, Plane]]:
    """Colour [W W 3] and coverage [W W] of each toy."""
    together: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, (_, toy) in enumerate(toys):
        together[toy.kind, _window(toy)].append(place)
    patches: dict[int, tuple[Plane, Plane]] = {}
    for (kind, side), places in together.items():
        chosen = [toys[place][1] for place in places]
        lights = np.array([(scenes[toys[place][0]].light, scenes[toys[place][0]].ambient) for place in places])
        colour, cover = _draw(kind, chosen, side, lights.astype(np.float32))
        patches.update({place: (colour[row], cover[row]) for row, place in enumerate(places)})
    return [patches[place] for place in range(len(toys))]


def _draw(kind: str, toys: Sequence[Toy], side: int, lights: Plane) -> tuple[Plane, Plane]:
    unit = np.array([toy.extent * _SCALE for toy in toys], np.float32)[:, None, None]
    x, y = _grid(toys, side)
    parts = SHAPES[kind](x, y)
    albedo = np.zeros((*x.shape, 3), np.float32)
    cover = np.zeros(x.shape, np.float32)
    height = np.zeros(x.shape, np.float32)
    own = _own_colours(toys, x, y)
    for part in parts:
        # Half a canvas pixel of softness at the edge.
        alpha = np.clip(np.float32(0.5) - part.distance * unit, 0, 1)
        albedo += alpha[..., None] * (_material(part, own) - albedo)
        height += alpha * (_bulge(part) - height)
        cover = np.maximum(cover, alpha)
    return _shade(albedo, height, unit, lights), cover


def _grid(toys: Sequence[Toy], side: int) -> tuple[Plane, Plane]:
    """Toy coordinates of each pixel of a window around each toy: two planes [n W W]."""
    steps = (np.arange(side, dtype=np.float32) - np.float32(side / 2 - 0.5)) / np.float32(_SCALE)
    centres = np.array([(toy.x, toy.y) for toy in toys], np.float32)
    # The window lies on whole pixels; what is left over moves the toy inside it.
    rest = centres - np.floor(centres * _SCALE) / _SCALE
    u = steps[None, None, :] - rest[:, 0, None, None]
    v = -(steps[None, :, None] - rest[:, 1, None, None])
    turn = np.radians(np.array([toy.angle for toy in toys], np.float32))[:, None, None]
    unit = np.array([toy.extent for toy in toys], np.float32)[:, None, None]
    mirror = np.array([-1.0 if toy.mirrored else 1.0 for toy in toys], np.float32)[:, None, None]
    x = (u * np.cos(turn) + v * np.sin(turn)) / unit * mirror
    y = (v * np.cos(turn) - u * np.sin(turn)) / unit
    return x, y


def _own_colours(toys: Sequence[Toy], x: Plane, y: Plane) -> Plane:
    """Each toy's colour with its pattern: [n W W 3]."""
    base = np.array([COLOURS[toy.colour] for toy in toys], np.float32)[:, None, None, :]
    other = np.array([_second_colour(toy.colour) for toy in toys], np.float32)[:, None, None, :]
    marks = np.zeros(x.shape, np.float32)
    for row, toy in enumerate(toys):
        if toy.pattern != "plain":
            soft = np.float32(toy.extent * _SCALE)
            marks[row] = np.clip(np.float32(0.5) - _marks(toy.pattern, x[row], y[row]) * soft, 0, 1)
    return base + marks[..., None] * (other - base)


def _second_colour(colour: str) -> tuple[float, float, float]:
    if colour == "white":
        return (0.45, 0.52, 0.62)
    if colour in ("yellow", "pink"):
        return (1.0, 0.98, 0.93)
    return (0.99, 0.95, 0.85)


def _marks(pattern: str, x: Plane, y: Plane) -> Plane:
    """Distance to a pattern's marks, in toy units."""
    period = np.float32(0.46)
    if pattern == "striped":
        return np.abs(np.mod(y, period) - period / 2) - period / 4
    if pattern == "dotted":
        u, v = np.mod(x, period) - period / 2, np.mod(y, period) - period / 2
        return np.sqrt(u * u + v * v) - np.float32(0.13)
    u, v = np.mod(x, period) - period / 2, np.mod(y, period) - period / 2
    return np.where(u * v > 0, np.float32(-1), np.float32(1)) * np.minimum(
        np.minimum(np.abs(u), period / 2 - np.abs(u)), np.minimum(np.abs(v), period / 2 - np.abs(v))
    )


def _material(part: Part, own: Plane) -> Plane:
    if part.material == BODY:
        return own
    if part.material == SHADE:
        return own * np.float32(0.72)
    if part.material == TINT:
        return own + np.float32(0.35) * (1 - own)
    return np.array(MATERIALS[part.material], np.float32)


def _bulge(part: Part) -> Plane:
    """A quarter circle from the edge inwards: h = r·√(1 − (1 − depth/r)²), flat further in."""
    depth = np.clip(-part.distance / np.float32(part.puff), 0, 1)
    return np.float32(part.height) + np.float32(part.puff) * np.sqrt(np.maximum(depth * (2 - depth), 0))


def _shade(albedo: Plane, height: Plane, unit: Plane, lights: Plane) -> Plane:
    """Lambert with a share of ambient light, a highlight after Blinn, and darker edges."""
    slope_x, slope_y = np.zeros_like(height), np.zeros_like(height)
    slope_x[:, :, 1:-1] = (height[:, :, 2:] - height[:, :, :-2]) * unit / 2
    slope_y[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * unit / 2
    # Steps between parts would be walls; half the slope keeps them soft.
    slope_x, slope_y = np.clip(slope_x, -1.6, 1.6) * np.float32(0.8), np.clip(slope_y, -1.6, 1.6) * np.float32(0.8)
    norm = 1 / np.sqrt(slope_x * slope_x + slope_y * slope_y + 1)
    lamp = np.stack([lights[:, 0], np.full(len(lights), -0.75, np.float32), np.full(len(lights), 0.9, np.float32)], 1)
    lamp /= np.linalg.norm(lamp, axis=1, keepdims=True)
    halfway = lamp + np.array([0, 0, 1], np.float32)
    halfway /= np.linalg.norm(halfway, axis=1, keepdims=True)

    def against(direction: Plane) -> Plane:
        dx, dy, dz = (direction[:, axis, None, None] for axis in range(3))
        return np.maximum((dz - slope_x * dx - slope_y * dy) * norm, 0)

    ambient = lights[:, 1, None, None]
    light = ambient + (np.float32(1.28) - ambient) * against(lamp)
    light *= np.float32(0.62) + np.float32(0.38) * norm
    highlight = against(halfway)
    highlight = highlight**2
    highlight = highlight**2
    highlight = highlight**2
    highlight = np.float32(0.38) * highlight**4
    return albedo * light[..., None] + highlight[..., None]


def _shadow(canvas: Plane, toy: Toy, scene: Scene) -> None:
    """Darkens the ground under a toy and away from the lamp; in place."""
    foot, wide = (toy.y + toy.extent * 0.96) * _SCALE, toy.extent * _SCALE
    shift = -scene.light * 0.45 * wide
    top, bottom = max(int(foot - wide * 0.6), 0), min(int(foot + wide * 0.6) + 1, _CANVAS)
    left, right = max(int(toy.x * _SCALE - 2 * wide), 0), min(int(toy.x * _SCALE + 2 * wide) + 1, _CANVAS)
    rows = np.arange(top, bottom, dtype=np.float32)[:, None]
    columns = np.arange(left, right, dtype=np.float32)[None, :]
    x, y = columns - np.float32(toy.x * _SCALE), rows - np.float32(foot)
    cast = np.exp(-(((x - np.float32(shift)) / np.float32(0.95 * wide)) ** 2) - (y / np.float32(0.2 * wide)) ** 2)
    contact = np.exp(-((x / np.float32(0.6 * wide)) ** 2) - (y / np.float32(0.09 * wide)) ** 2)
    depth = np.float32(0.62 * (1 - scene.ambient) + 0.08)
    canvas[top:bottom, left:right] *= (1 - depth * cast)[..., None] * (1 - np.float32(0.35) * contact)[..., None]


def _paste(canvas: Plane, colour: Plane, cover: Plane, toy: Toy) -> None:
    side = len(cover)
    left = int(np.floor(toy.x * _SCALE)) - side // 2
    top = int(np.floor(toy.y * _SCALE)) - side // 2
    a, b = max(top, 0), min(top + side, _CANVAS)
    c, d = max(left, 0), min(left + side, _CANVAS)
    under = canvas[a:b, c:d]
    window = slice(a - top, b - top), slice(c - left, d - left)
    under += cover[window][..., None] * (colour[window] - under)


def _photograph(light: Plane, scenes: Sequence[Scene]) -> Picture:
    """White balance, exposure, vignette, blur, sensor noise, tone curve."""

    def each(values: Sequence[float]) -> Plane:
        return np.array(values, np.float32)[:, None, None, None]

    warmth = np.array([scene.warmth for scene in scenes], np.float32)
    balance = np.stack([1 + warmth, np.ones_like(warmth), 1 - warmth], axis=1)[:, None, None, :]
    light = light * (balance * each([scene.exposure for scene in scenes]))
    axis = np.linspace(-1, 1, SIDE, dtype=np.float32)
    corner = (axis[:, None] ** 2 + axis[None, :] ** 2)[None, :, :, None] / 2
    light *= 1 - each([scene.vignette for scene in scenes]) * corner
    light = _blur(_blur(light, scenes, 1), scenes, 2)
    for row, scene in enumerate(scenes):
        sensor = np.random.default_rng([*scene.variety, 1])
        light[row] += np.float32(scene.noise) * sensor.standard_normal((SIDE, SIDE, 3), np.float32)
    # A soft shoulder, so that highlights do not clip.
    light = np.where(light > 0.8, 0.8 + 0.2 * np.tanh((light - 0.8) / 0.2), light)
    return (np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8)


def _blur(light: Plane, scenes: Sequence[Scene], axis: int) -> Plane:
    """A Gaussian of each picture's own width along one axis, seven taps, edges repeated."""
    taps = np.arange(4, dtype=np.float32)
    widths = np.array([scene.blur for scene in scenes], np.float32)
    weights = np.exp(-(taps[None, :] ** 2) / (2 * widths[:, None] ** 2))
    weights /= 2 * weights.sum(axis=1, keepdims=True) - weights[:, :1]
    around = [(0, 0), (0, 0), (0, 0), (0, 0)]
    around[axis] = (3, 3)
    padded = np.pad(light, around, mode="edge")
    moved = np.moveaxis(padded, axis, 1)
    total = weights[:, 0, None, None, None] * moved[:, 3 : 3 + SIDE]
    for tap in (1, 2, 3):
        total += weights[:, tap, None, None, None] * (
            moved[:, 3 + tap : 3 + tap + SIDE] + moved[:, 3 - tap : 3 - tap + SIDE]
        )
    return np.moveaxis(total, 1, axis)
