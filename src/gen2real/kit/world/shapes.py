"""The toys' outlines, as signed distances to flat parts: negative inside, in units of half a toy's height.

Formulas of exact and bounded distances to plane figures are the well-known ones (constructive solid geometry).
x runs to the right, y upwards; a toy fills about −1 … 1 both ways and stands on y = −1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.floating[Any]]

BODY, SHADE, TINT, DARK, LIGHT, WOOD, GLASS, GOLD = range(8)
"""What a part is made of: the toy's own colour and pattern; that colour darker; lighter; fixed materials."""


@dataclass(frozen=True)
class Part:
    """One part, drawn over those before it. puff: how far from its edge it bulges; height: how far it stands out."""

    distance: Plane
    material: int = BODY
    puff: float = 0.5
    height: float = 0.0


def circle(x: Plane, y: Plane, cx: float, cy: float, r: float) -> Plane:
    """Disc of radius r."""
    return np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - np.float32(r)


def ellipse(x: Plane, y: Plane, cx: float, cy: float, a: float, b: float) -> Plane:
    """Ellipse with half axes a, b; the distance is first-order, exact at the edge."""
    u, v = (x - cx) / np.float32(a), (y - cy) / np.float32(b)
    k = np.sqrt(u * u + v * v)
    gradient = np.sqrt((u / a) ** 2 + (v / b) ** 2)
    return k * (k - 1) / np.maximum(gradient, 1e-4)


def box(x: Plane, y: Plane, cx: float, cy: float, a: float, b: float, r: float = 0.0) -> Plane:
    """Rectangle of half sides a, b, corners rounded by r."""
    u, v = np.abs(x - cx) - np.float32(a - r), np.abs(y - cy) - np.float32(b - r)
    outside = np.sqrt(np.maximum(u, 0) ** 2 + np.maximum(v, 0) ** 2)
    return outside + np.minimum(np.maximum(u, v), 0) - np.float32(r)


def capsule(x: Plane, y: Plane, ax: float, ay: float, bx: float, by: float, r: float) -> Plane:
    """Everything within r of the segment from a to b."""
    dx, dy = bx - ax, by - ay
    t = np.clip(((x - ax) * np.float32(dx) + (y - ay) * np.float32(dy)) / np.float32(dx * dx + dy * dy), 0, 1)
    return np.sqrt((x - ax - t * np.float32(dx)) ** 2 + (y - ay - t * np.float32(dy)) ** 2) - np.float32(r)


def polygon(x: Plane, y: Plane, corners: Sequence[tuple[float, float]], r: float = 0.0) -> Plane:
    """Convex polygon, corners anticlockwise, edges moved outwards by r (rounded where r > 0)."""
    edges = [_edge(x, y, a, b) for a, b in zip(corners, (*corners[1:], corners[0]), strict=True)]
    nearest = reduce(np.minimum, (away for away, _ in edges))
    inside = reduce(np.maximum, (side for _, side in edges))
    return np.where(inside < 0, inside, np.sqrt(nearest)) - np.float32(r)


def _edge(x: Plane, y: Plane, a: tuple[float, float], b: tuple[float, float]) -> tuple[Plane, Plane]:
    """Squared distance to the segment from a to b, and distance to its line: negative on the left."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = float(np.hypot(dx, dy))
    u, v = x - np.float32(a[0]), y - np.float32(a[1])
    t = np.clip((u * np.float32(dx) + v * np.float32(dy)) / np.float32(length * length), 0, 1)
    away = (u - t * np.float32(dx)) ** 2 + (v - t * np.float32(dy)) ** 2
    return away, (u * np.float32(dy) - v * np.float32(dx)) / np.float32(length)


def smooth_union(a: Plane, b: Plane, k: float) -> Plane:
    """Union of two parts with a fillet of size k."""
    h = np.clip(np.float32(0.5) + (b - a) / np.float32(2 * k), 0, 1)
    return b + (a - b) * h - np.float32(k) * h * (1 - h)


def _ball(x: Plane, y: Plane) -> list[Part]:
    return [Part(circle(x, y, 0, -0.06, 0.94), puff=0.94)]


def _block(x: Plane, y: Plane) -> list[Part]:
    # A cube seen from above and the left: front, top, right side.
    front = box(x, y, -0.16, -0.26, 0.7, 0.7, 0.06)
    top = polygon(x, y, [(-0.84, 0.46), (0.52, 0.46), (0.88, 0.86), (-0.46, 0.86)], 0.03)
    side = polygon(x, y, [(0.56, -0.92), (0.9, -0.5), (0.9, 0.86), (0.56, 0.42)], 0.03)
    return [Part(side, SHADE, 0.08), Part(top, TINT, 0.08), Part(front, puff=0.1)]


def _boat(x: Plane, y: Plane) -> list[Part]:
    hull = polygon(x, y, [(-0.58, -0.88), (0.52, -0.88), (0.92, -0.36), (-0.92, -0.36)], 0.08)
    mast = box(x, y, -0.02, 0.2, 0.05, 0.76)
    sail = polygon(x, y, [(0.12, -0.2), (0.78, -0.2), (0.12, 0.82)], 0.05)
    jib = polygon(x, y, [(-0.64, -0.2), (-0.14, -0.2), (-0.14, 0.6)], 0.05)
    return [
        Part(mast, WOOD, 0.05),
        Part(sail, LIGHT, 0.2),
        Part(jib, LIGHT, 0.2),
        Part(hull, puff=0.35, height=0.1),
    ]


def _car(x: Plane, y: Plane) -> list[Part]:
    body = box(x, y, 0, -0.38, 0.98, 0.34, 0.2)
    cabin = polygon(x, y, [(-0.58, -0.2), (0.5, -0.2), (0.26, 0.3), (-0.36, 0.3)], 0.14)
    window = polygon(x, y, [(-0.44, -0.08), (-0.1, -0.08), (-0.1, 0.24), (-0.28, 0.24)], 0.05)
    screen = polygon(x, y, [(0.06, -0.08), (0.4, -0.08), (0.2, 0.24), (0.06, 0.24)], 0.05)
    parts = [
        Part(smooth_union(body, cabin, 0.1), puff=0.3),
        Part(np.minimum(window, screen), GLASS, 0.1),
        Part(circle(x, y, 0.9, -0.34, 0.1), GOLD, 0.1, 0.1),
    ]
    for cx in (-0.5, 0.52):
        parts += [
            Part(circle(x, y, cx, -0.7, 0.3), DARK, 0.15, 0.15),
            Part(circle(x, y, cx, -0.7, 0.13), LIGHT, 0.12, 0.2),
        ]
    return parts


def _cat(x: Plane, y: Plane) -> list[Part]:
    side = np.abs(x)
    body = ellipse(x, y, 0, -0.62, 0.58, 0.4)
    head = ellipse(x, y, 0, 0.12, 0.72, 0.6)
    ears = polygon(side, y, [(0.2, 0.5), (0.68, 0.32), (0.62, 0.9)], 0.06)
    inner = polygon(side, y, [(0.36, 0.52), (0.58, 0.44), (0.56, 0.74)], 0.02)
    tail = capsule(x, y, 0.5, -0.78, 0.86, -0.3, 0.11)
    eyes = ellipse(side, y, 0.28, 0.2, 0.1, 0.14)
    nose = polygon(x, y, [(0, -0.1), (0.09, 0.0), (-0.09, 0.0)], 0.02)
    whiskers = capsule(side, y, 0.34, -0.1, 0.84, -0.02, 0.02)
    return [
        Part(tail, SHADE, 0.1),
        Part(body, puff=0.4),
        Part(ears, SHADE, 0.15),
        Part(inner, LIGHT, 0.1),
        Part(head, puff=0.6, height=0.15),
        Part(whiskers, DARK, 0.02, 0.6),
        Part(eyes, DARK, 0.1, 0.6),
        Part(nose, DARK, 0.05, 0.6),
    ]


def _cup(x: Plane, y: Plane) -> list[Part]:
    handle = np.abs(circle(x, y, 0.56, -0.16, 0.34)) - np.float32(0.11)
    body = polygon(x, y, [(-0.52, -0.86), (0.36, -0.86), (0.54, 0.5), (-0.7, 0.5)], 0.1)
    rim = ellipse(x, y, -0.08, 0.54, 0.72, 0.24)
    drink = ellipse(x, y, -0.08, 0.52, 0.58, 0.16)
    return [
        Part(handle, SHADE, 0.11),
        Part(body, puff=0.32),
        Part(rim, TINT, 0.08, 0.1),
        Part(drink, WOOD, 0.05),
    ]


def _duck(x: Plane, y: Plane) -> list[Part]:
    body = smooth_union(
        ellipse(x, y, -0.12, -0.48, 0.84, 0.5), polygon(x, y, [(-0.9, -0.4), (-0.5, -0.4), (-0.94, 0.1)], 0.06), 0.12
    )
    head = circle(x, y, 0.36, 0.36, 0.46)
    wing = ellipse(x, y, -0.24, -0.42, 0.44, 0.26)
    beak = ellipse(x, y, 0.84, 0.28, 0.2, 0.12)
    return [
        Part(smooth_union(body, head, 0.15), puff=0.5),
        Part(wing, SHADE, 0.3, 0.3),
        Part(beak, GOLD, 0.15, 0.3),
        Part(circle(x, y, 0.48, 0.48, 0.1), DARK, 0.1, 0.5),
    ]


def _fish(x: Plane, y: Plane) -> list[Part]:
    body = ellipse(x, y, 0.2, -0.3, 0.74, 0.5)
    tail = polygon(x, y, [(-0.42, -0.3), (-0.9, 0.16), (-0.9, -0.76)], 0.08)
    fin = polygon(x, y, [(0.42, 0.06), (0.0, 0.46), (-0.18, 0.06)], 0.08)
    flipper = polygon(x, y, [(0.3, -0.36), (0.0, -0.2), (-0.06, -0.52)], 0.05)
    return [
        Part(tail, SHADE, 0.2),
        Part(fin, SHADE, 0.2),
        Part(body, puff=0.5, height=0.1),
        Part(flipper, TINT, 0.15, 0.35),
        Part(circle(x, y, 0.62, -0.18, 0.14), LIGHT, 0.14, 0.4),
        Part(circle(x, y, 0.65, -0.18, 0.07), DARK, 0.07, 0.5),
    ]


def _flower(x: Plane, y: Plane) -> list[Part]:
    stem = box(x, y, 0, -0.5, 0.06, 0.5, 0.05)
    leaf = ellipse(*_turned(x, y, 0.3, -0.66, 30), 0, 0, 0.28, 0.12)
    other = ellipse(*_turned(x, y, -0.3, -0.74, -30), 0, 0, 0.28, 0.12)
    # Six petals by folding the plane into a sixth.
    u, v = x, y - np.float32(0.36)
    radius, turn = np.sqrt(u * u + v * v), np.arctan2(v, u)
    sixth = np.float32(np.pi / 3)
    fold = np.mod(turn + sixth / 2, sixth) - sixth / 2
    petals = ellipse(radius * np.cos(fold), radius * np.sin(fold), 0.4, 0, 0.24, 0.19)
    return [
        Part(np.minimum(np.minimum(stem, leaf), other), _GREEN, 0.08),
        Part(petals, puff=0.25),
        Part(circle(x, y, 0, 0.36, 0.2), GOLD, 0.2, 0.2),
    ]


def _heart(x: Plane, y: Plane) -> list[Part]:
    side = np.abs(x)
    lobe = circle(side, y, 0.42, 0.28, 0.52)
    point = polygon(side, y, [(-0.9, 0.28), (0.0, -0.92), (0.86, 0.02), (0.42, 0.4)], 0.02)
    return [Part(smooth_union(lobe, point, 0.12), puff=0.34)]


def _house(x: Plane, y: Plane) -> list[Part]:
    wall = box(x, y, 0, -0.46, 0.68, 0.54, 0.04)
    roof = polygon(x, y, [(-0.84, 0.08), (0.84, 0.08), (0.0, 0.82)], 0.08)
    chimney = box(x, y, 0.46, 0.6, 0.12, 0.26, 0.02)
    windows = box(x, y, 0.34, -0.26, 0.16, 0.16, 0.02)
    return [
        Part(chimney, SHADE, 0.1),
        Part(wall, LIGHT, 0.12),
        Part(box(x, y, -0.26, -0.64, 0.18, 0.34, 0.02), WOOD, 0.05, 0.05),
        Part(windows, GLASS, 0.06, 0.05),
        Part(roof, puff=0.2, height=0.15),
    ]


def _moon(x: Plane, y: Plane) -> list[Part]:
    return [
        Part(np.maximum(circle(x, y, 0, -0.06, 0.94), -circle(x, y, 0.48, 0.16, 0.74)) - np.float32(0.03), puff=0.4)
    ]


def _mushroom(x: Plane, y: Plane) -> list[Part]:
    stem = polygon(x, y, [(-0.28, -0.9), (0.28, -0.9), (0.2, 0.1), (-0.2, 0.1)], 0.1)
    dome = np.maximum(ellipse(x, y, 0, 0.02, 0.96, 0.86), np.float32(-0.06) - y) - np.float32(0.04)
    return [Part(stem, LIGHT, 0.3), Part(dome, puff=0.6, height=0.2)]


def _ring(x: Plane, y: Plane) -> list[Part]:
    return [Part(np.abs(circle(x, y, 0, -0.06, 0.66)) - np.float32(0.27), puff=0.27)]


def _rocket(x: Plane, y: Plane) -> list[Part]:
    side = np.abs(x)
    body = np.maximum(circle(side, y, -0.62, -0.06, 1.0), np.float32(-0.66) - y) - np.float32(0.04)
    fins = polygon(side, y, [(0.2, -0.86), (0.66, -0.92), (0.6, -0.42), (0.28, -0.12)], 0.04)
    flame = polygon(side, y, [(-0.2, -0.62), (0.0, -1.0), (0.2, -0.66)], 0.04)
    nose = np.maximum(body, np.float32(0.38) - y)
    return [
        Part(flame, GOLD, 0.2),
        Part(fins, SHADE, 0.12),
        Part(body, puff=0.42, height=0.1),
        Part(nose, SHADE, 0.42, 0.1),
        Part(circle(x, y, 0, 0.06, 0.2), LIGHT, 0.1, 0.5),
        Part(circle(x, y, 0, 0.06, 0.14), GLASS, 0.14, 0.5),
    ]


def _star(x: Plane, y: Plane) -> list[Part]:
    # Five points by folding the plane into a tenth; the edge from the tip to the notch is one line.
    u, v = x, y + np.float32(0.04)
    radius = np.sqrt(u * u + v * v)
    fifth = np.float32(2 * np.pi / 5)
    fold = np.abs(np.mod(np.arctan2(u, v) + fifth / 2, fifth) - fifth / 2)
    p, q = radius * np.sin(fold), radius * np.cos(fold)
    tip, notch = (0.0, 0.92), (0.47 * np.sin(np.pi / 5), 0.47 * np.cos(np.pi / 5))
    dx, dy = notch[0] - tip[0], notch[1] - tip[1]
    length = float(np.hypot(dx, dy))
    edge = ((q - np.float32(tip[1])) * np.float32(dx) - (p - np.float32(tip[0])) * np.float32(dy)) / np.float32(length)
    return [Part(edge - np.float32(0.06), puff=0.45)]


def _tree(x: Plane, y: Plane) -> list[Part]:
    trunk = box(x, y, 0, -0.76, 0.15, 0.24, 0.04)
    parts = [Part(trunk, WOOD, 0.15)]
    for base, half, top in ((-0.62, 0.74, 0.1), (-0.16, 0.58, 0.5), (0.26, 0.4, 0.92)):
        layer = polygon(x, y, [(-half, base), (half, base), (0.0, top)], 0.07)
        parts.append(Part(layer, puff=0.35, height=0.1))
    return parts


def _umbrella(x: Plane, y: Plane) -> list[Part]:
    pole = box(x, y, 0, -0.16, 0.05, 0.72)
    hook = np.maximum(np.abs(circle(x, y, 0.16, -0.84, 0.16)) - np.float32(0.05), y + np.float32(0.84))
    canopy = np.maximum(ellipse(x, y, 0, 0.06, 0.98, 0.84), np.float32(0.08) - y)
    # Scallops along the hem.
    hem = np.abs(np.mod(x + np.float32(0.98), np.float32(0.49)) - np.float32(0.245))
    canopy = np.maximum(canopy, -circle(hem, y, 0, 0.02, 0.22))
    return [
        Part(np.minimum(pole, hook), WOOD, 0.06),
        Part(canopy, puff=0.6, height=0.1),
        Part(circle(x, y, 0, 0.92, 0.06), WOOD, 0.06),
    ]


def _turned(x: Plane, y: Plane, cx: float, cy: float, degrees: float) -> tuple[Plane, Plane]:
    cosine, sine = np.float32(np.cos(np.radians(degrees))), np.float32(np.sin(np.radians(degrees)))
    u, v = x - np.float32(cx), y - np.float32(cy)
    return u * cosine + v * sine, v * cosine - u * sine


_GREEN = 8

MATERIALS: Mapping[int, tuple[float, float, float]] = {
    DARK: (0.16, 0.16, 0.19),
    LIGHT: (0.97, 0.94, 0.88),
    WOOD: (0.55, 0.36, 0.22),
    GLASS: (0.66, 0.84, 0.93),
    GOLD: (0.98, 0.74, 0.22),
    _GREEN: (0.33, 0.62, 0.28),
}
"""Reflectance of the materials that do not take the toy's colour."""

SHAPES: Mapping[str, Callable[[Plane, Plane], list[Part]]] = {
    "ball": _ball,
    "block": _block,
    "boat": _boat,
    "car": _car,
    "cat": _cat,
    "cup": _cup,
    "duck": _duck,
    "fish": _fish,
    "flower": _flower,
    "heart": _heart,
    "house": _house,
    "moon": _moon,
    "mushroom": _mushroom,
    "ring": _ring,
    "rocket": _rocket,
    "star": _star,
    "tree": _tree,
    "umbrella": _umbrella,
}
"""Kind → its parts on a grid of toy coordinates."""
