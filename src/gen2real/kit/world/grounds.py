"""What toys stand on and what lies behind them, for many scenes at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from gen2real.kit.world.scenes import Clutter, Scene
from gen2real.kit.world.shapes import Plane, box

_STUDIO: Mapping[str, tuple[float, float, float]] = {
    "white studio": (0.96, 0.96, 0.97),
    "grey studio": (0.72, 0.73, 0.76),
    "cream studio": (0.96, 0.90, 0.78),
    "mint studio": (0.74, 0.90, 0.82),
    "sky studio": (0.70, 0.84, 0.95),
}


def draw_grounds(scenes: Sequence[Scene], side: int) -> Plane:
    """Backgrounds without toys: float32 [N side side 3] from 0 to 1."""
    together: dict[str, list[int]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        together[scene.ground].append(index)
    canvas = np.empty((len(scenes), side, side, 3), np.float32)
    for ground, places in together.items():
        canvas[places] = _draw(ground, [scenes[place] for place in places], side)
    return canvas


def _draw(ground: str, scenes: Sequence[Scene], side: int) -> Plane:
    unit = side / 64
    rows = (np.arange(side, dtype=np.float32) / np.float32(unit))[None, :, None]
    columns = (np.arange(side, dtype=np.float32) / np.float32(unit))[None, None, :]
    horizon = np.array([scene.horizon for scene in scenes], np.float32)[:, None, None]
    if ground in _STUDIO:
        return _studio(_STUDIO[ground], rows, columns, horizon)
    # Numbers that are each scene's own: shifts and turns of the texture. A story's pictures share them: what sets the
    # pictures of one place apart comes fourth.
    own = np.stack([np.random.default_rng([*scene.variety[:3], 3]).random(6, np.float32) for scene in scenes])
    own = own[:, :, None, None]
    if ground in _PAPERS:
        return _PAPERS[ground](rows, columns, own)
    floor, behind = _floor(ground, rows, columns, horizon, own), _wall(rows, horizon, own)
    near = np.clip((rows - horizon) * np.float32(unit) + np.float32(0.5), 0, 1)[..., None]
    for row, scene in enumerate(scenes):
        for thing in scene.clutter:
            _place(behind[row], thing, unit)
    return behind + near * (floor - behind)


def _studio(colour: tuple[float, float, float], rows: Plane, columns: Plane, horizon: Plane) -> Plane:
    """A paper roll: bright behind, a soft bend at the horizon, a pool of light in front."""
    bend = 1 / (1 + np.exp(-(rows - horizon) / np.float32(5.0)))
    pool = np.exp(-(((columns - 32) / 40) ** 2) - ((rows - 44) / 30) ** 2)
    light = np.float32(0.88) + np.float32(0.1) * (1 - bend) * (1 - rows / 90) + np.float32(0.12) * bend * pool
    return np.clip(light[..., None] * np.array(colour, np.float32), 0, 1)


def _striped_paper(rows: Plane, columns: Plane, own: Plane) -> Plane:
    stripe = _soft(np.abs(np.mod(columns + 8 * own[:, 0] + 0 * rows, 8) - 4) - 2)
    return _mix((0.97, 0.95, 0.90), _pick(_PASTELS, own[:, 1]), stripe) * _falling(rows)


def _dotted_paper(rows: Plane, columns: Plane, own: Plane) -> Plane:
    u, v = np.mod(columns + 9 * own[:, 0], 9) - 4.5, np.mod(rows + 9 * own[:, 2], 9) - 4.5
    return _mix(_pick(_PASTELS, own[:, 1]), (0.99, 0.98, 0.95), _soft(np.sqrt(u * u + v * v) - 1.9)) * _falling(rows)


_PASTELS = np.array([(0.82, 0.88, 0.95), (0.95, 0.84, 0.84), (0.86, 0.93, 0.84), (0.95, 0.90, 0.76)], np.float32)
_PAPERS: Mapping[str, Callable[[Plane, Plane, Plane], Plane]] = {
    "striped paper": _striped_paper,
    "dotted paper": _dotted_paper,
}


def _wall(rows: Plane, horizon: Plane, own: Plane) -> Plane:
    """A painted wall, out of focus, darker towards the floor."""
    paint = _pick(np.array([(0.78, 0.74, 0.66), (0.62, 0.68, 0.70), (0.72, 0.62, 0.56), (0.66, 0.70, 0.60)]), own[:, 5])
    light = np.float32(1.0) - np.float32(0.25) * np.clip(rows / horizon, 0, 1) ** 2
    across = np.broadcast_to(light, (len(own), rows.shape[1], rows.shape[1]))
    return across[..., None] * paint


def _floor(ground: str, rows: Plane, columns: Plane, horizon: Plane, own: Plane) -> Plane:
    """A level surface in perspective: u runs sideways, v away from the camera."""
    depth = np.maximum(rows - horizon, 0.5) / (70 - horizon)
    v = 1 / (depth + np.float32(0.12))
    u = (columns - 32) / 32 * (v * np.float32(0.55)) + 4 * (own[:, 0] - np.float32(0.5))
    v = v + 4 * own[:, 1]
    base = _FLOORS[ground](u, v, own)
    return base * (np.float32(0.8) + np.float32(0.22) * np.clip(depth, 0, 1))[..., None]


def _wood(u: Plane, v: Plane, own: Plane) -> Plane:
    plank = np.floor(v * np.float32(0.9))
    tone = np.mod(np.sin(plank * np.float32(12.9898) + own[:, 2] * 50) * np.float32(437.58), 1)
    grain = np.sin(u * np.float32(1.6) + np.sin(v * 9 + plank * 3) * 2 + np.sin(u * np.float32(0.7) + plank) * 3)
    seam = _soft((np.abs(np.mod(v * np.float32(0.9), 1) - np.float32(0.5)) * -1 + np.float32(0.47)) * 14)
    light = np.float32(0.82) + np.float32(0.2) * tone + np.float32(0.06) * grain
    return np.array((0.74, 0.51, 0.32), np.float32) * (light * (1 - np.float32(0.4) * seam))[..., None]


def _tiles(u: Plane, v: Plane, own: Plane) -> Plane:
    s, t = np.mod(u * np.float32(0.9), 1), np.mod(v * np.float32(0.9), 1)
    joint = np.minimum(np.minimum(s, 1 - s), np.minimum(t, 1 - t))
    tone = np.mod(
        np.sin(np.floor(u * np.float32(0.9)) * 7 + np.floor(v * np.float32(0.9)) * 13 + own[:, 2] * 9)
        * np.float32(91.7),
        1,
    )
    tile = _pick(np.array([(0.80, 0.80, 0.78), (0.64, 0.72, 0.76), (0.82, 0.70, 0.58)]), own[:, 3])
    return _mix(
        tile * (np.float32(0.92) + np.float32(0.1) * tone)[..., None], (0.5, 0.5, 0.48), _soft((joint - 0.05) * 30)
    )


def _cloth(u: Plane, v: Plane, own: Plane) -> Plane:
    dye = _pick(np.array([(0.74, 0.20, 0.22), (0.22, 0.38, 0.66), (0.26, 0.54, 0.36)]), own[:, 3])
    across = (np.mod(u * np.float32(1.1), 1) < 0.5).astype(np.float32)
    along = (np.mod(v * np.float32(1.1), 1) < 0.5).astype(np.float32)
    return _mix((0.93, 0.91, 0.87), dye, (across + along) / 2 * np.float32(0.85))


def _rug(u: Plane, v: Plane, own: Plane) -> Plane:
    wool = _pick(np.array([(0.56, 0.30, 0.28), (0.34, 0.40, 0.50), (0.70, 0.60, 0.46)]), own[:, 3])
    knots = np.sin(u * 23 + np.sin(v * 17) * 2) * np.sin(v * 29 + np.sin(u * 13) * 2)
    band = _soft((np.abs(np.mod(v * np.float32(0.5), 1) - np.float32(0.5)) - np.float32(0.12)) * 12)
    plain = wool * (np.float32(0.92) + np.float32(0.13) * knots)[..., None]
    return _mix(plain, (0.86, 0.78, 0.62), band * (np.float32(0.7) + np.float32(0.2) * knots))


def _lawn(u: Plane, v: Plane, own: Plane) -> Plane:
    blades = np.sin(u * 31 + np.sin(v * 11 + own[:, 2] * 7) * 3) * np.sin(v * 23 + np.sin(u * 19) * 2)
    patches = np.sin(u * np.float32(1.3) + own[:, 3] * 6) * np.sin(v * np.float32(1.1) + own[:, 4] * 6)
    light = np.float32(0.86) + np.float32(0.2) * blades + np.float32(0.12) * patches
    return np.array((0.36, 0.54, 0.24), np.float32) * light[..., None]


def _sheet(u: Plane, v: Plane, own: Plane) -> Plane:
    folds = np.sin(u * np.float32(1.2) + np.sin(v * np.float32(0.9) + own[:, 2] * 6) * np.float32(1.6) + own[:, 3] * 6)
    fine = np.sin(u * np.float32(2.7) - v * np.float32(1.9) + own[:, 4] * 6)
    light = np.float32(0.88) + np.float32(0.1) * folds + np.float32(0.05) * fine
    return _pick(np.array([(0.90, 0.88, 0.86), (0.78, 0.80, 0.90), (0.90, 0.80, 0.80)]), own[:, 5]) * light[..., None]


_FLOORS: Mapping[str, Callable[[Plane, Plane, Plane], Plane]] = {
    "wooden table": _wood,
    "tiled floor": _tiles,
    "checked cloth": _cloth,
    "woollen rug": _rug,
    "lawn": _lawn,
    "bed sheet": _sheet,
}


def _place(wall: Plane, thing: Clutter, unit: float) -> None:
    """Draws one thing out of focus; in place."""
    axis = np.arange(len(wall), dtype=np.float32) / np.float32(unit)
    distance = box(axis[None, :], axis[:, None], thing.x, thing.y, thing.width, thing.height, 1.5)
    cover = np.clip(np.float32(0.5) - distance / np.float32(2.5), 0, 1)[..., None]
    wall += cover * (np.array(thing.colour, np.float32) - wall)


def _pick(colours: Plane, own: Plane) -> Plane:
    """One of several colours by a number from 0 to 1: [n 1 1 3]."""
    return np.asarray(colours, np.float32)[(own * len(colours)).astype(int)]


def _mix(first: Plane | tuple[float, float, float], second: Plane | tuple[float, float, float], share: Plane) -> Plane:
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return a + share[..., None] * (b - a)


def _soft(distance: Plane) -> Plane:
    return np.clip(np.float32(0.5) - distance, 0, 1)


def _falling(rows: Plane) -> Plane:
    """Light falls off towards the camera a little."""
    return (np.float32(1.0) - np.float32(0.12) * rows / 64)[..., None]
