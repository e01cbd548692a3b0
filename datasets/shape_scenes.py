"""Draw the scenes of the shapes data set: textured shapes that hide one another before a textured background.

Every texture of an image takes two of the same three colours, so any shape shares a colour with what is behind it and
colour tells neither where a shape ends nor what it is; what does is the break of the texture and a bevelled rim. The
same random stream gives the same pixels everywhere: PCG64 integers and 53-bit fractions, angles rounded before use, and
single additions, products and square roots, which IEEE 754 fixes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

CLASSES = ("disc", "ring", "triangle", "rectangle", "cross")
STUFF = ("stripes", "checks", "gradient", "camouflage", "speckle")  # what a background can be
SIDES = (16, 200)  # px, both sides of an instance's box, before and after others hide parts of it
MAX_INSTANCES = 6
MAX_HIDDEN = 0.46  # an instance with more than this behind others would be a guess
OVERLAP_SHARE = 0.6  # how often a new instance is put partly over an earlier one
BAND_SHARE = 0.1  # how often a strip of background runs over everything
RIM = (70, 111)  # grey levels by which the rim of a shape is darker outside, lighter inside than its texture


def inside(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points (u, v) of the square -1..1 lie in the shape `name` before it is turned and stretched; bool."""
    if name == "disc":
        return u * u + v * v <= 1
    if name == "ring":
        square = u * u + v * v
        return (square <= 1) & (square >= 0.2)
    if name == "triangle":
        return (v >= -0.6) & (v <= 1 - 1.6 * np.abs(u))
    if name == "rectangle":
        return (np.abs(u) <= 0.9) & (np.abs(v) <= 0.9)
    if name == "cross":
        return (np.minimum(np.abs(u), np.abs(v)) <= 0.38) & (np.maximum(np.abs(u), np.abs(v)) <= 1)
    raise ValueError(f"There is no shape {name!r}; the shapes are {', '.join(CLASSES)}.")


_CORNERS = {
    "triangle": ((-1, -0.6), (1, -0.6), (0, 1)),
    "rectangle": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "cross": tuple((a * x, b * y) for x, y in ((1, 0.38), (0.38, 1)) for a in (-1, 1) for b in (-1, 1)),
}


def shape_mask(name: str, size: float, angle: float, aspect: float = 1.0, shear: float = 0.0) -> np.ndarray:
    """The shape stretched by `aspect`, sheared, turned by `angle` (radians) and cut to its box; bool (h, w).

    `size` is the longer side of the box, in px.
    """
    cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
    # x = (a b; c d) u: turn * (1 shear; 0 aspect)
    a, b = cos, cos * shear - sin * aspect
    c, d = sin, sin * shear + cos * aspect
    if name in _CORNERS:
        xs, ys = zip(*((a * u + b * v, c * u + d * v) for u, v in _CORNERS[name]))
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    else:
        right, bottom = math.sqrt(a * a + b * b), math.sqrt(c * c + d * d)
        left, top = -right, -bottom
    scale = size / max(right - left, bottom - top)
    width, height = (max(1, round(scale * side)) for side in (right - left, bottom - top))
    x = ((np.arange(width) + 0.5) / scale + left)[None, :]
    y = ((np.arange(height) + 0.5) / scale + top)[:, None]
    determinant = a * d - b * c
    mask = inside(name, (x * d - y * b) / determinant, (y * a - x * c) / determinant)
    # A sharp tip may miss every pixel centre of the outermost row or column.
    left, top, width, height = box_of(mask)
    return mask[top : top + height, left : left + width]


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x, y, width and height of what is set in `mask` (all 0 when nothing is)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    # Generator.uniform may fuse its product and sum on some processors; this does not.
    return low + (high - low) * rng.random()


def _field(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, int]:
    """How far each pixel is from the first colour of a texture to the second, 0..1; float64 (height, width). And which
    of `STUFF` it is."""
    angle = _between(rng, 0, math.pi)
    cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
    x, y = np.arange(width)[None, :] - width / 2, np.arange(height)[:, None] - height / 2
    along, across = x * cos + y * sin, y * cos - x * sin
    kind = int(rng.integers(5))
    period = _between(rng, 7, max(9, min(24, 0.5 * min(height, width))))
    if kind == 0:  # stripes
        wave = along / period + rng.random()
        return (wave - np.floor(wave) > 0.5) * 1.0, kind
    if kind == 1:  # checks
        return (np.floor(along / period) + np.floor(across / period)) % 2, kind
    if kind == 2:  # a gradient with stripes across it
        low, high = along.min(), along.max()
        wave = across / period + rng.random()
        return 0.5 * (along - low) / max(high - low, 1.0) + 0.5 * (wave - np.floor(wave) > 0.5), kind
    if kind == 3:  # camouflage: random values on a coarse grid, interpolated, cut in two at the middle
        period = 0.6 * period
        grid = rng.random((int(height / period) + 2, int(width / period) + 2))
        row, column = np.arange(height) / period, np.arange(width) / period
        i, j = row.astype(int), column.astype(int)
        f, g = (row - i)[:, None], (column - j)[None, :]
        upper = grid[i][:, j] * (1 - g) + grid[i][:, j + 1] * g
        lower = grid[i + 1][:, j] * (1 - g) + grid[i + 1][:, j + 1] * g
        return (upper * (1 - f) + lower * f > 0.5) * 1.0, kind
    cell = int(rng.integers(2, 6))  # speckle
    grid = rng.random((height // cell + 1, width // cell + 1))
    return np.repeat(np.repeat(grid, cell, axis=0), cell, axis=1)[:height, :width], kind


def _palette(rng: np.random.Generator) -> np.ndarray:
    """The colours of an image, of which every texture takes two; float64 (3, 3)."""
    best, widest = np.zeros((3, 3)), -1.0
    for _ in range(6):  # the draw whose two nearest colours are farthest apart
        colours = rng.integers(15, 241, (3, 3)).astype(np.float64)
        gaps = np.abs(colours[:, None] - colours[None]).sum(axis=2)
        gap = gaps[np.triu_indices(3, 1)].min()
        if gap > widest:
            best, widest = colours, gap
    return best


def _texture(rng: np.random.Generator, height: int, width: int, palette: np.ndarray) -> tuple[np.ndarray, int]:
    """Two colours of the palette, a little off, in a pattern; int16 (height, width, 3). And which of `STUFF` it is."""
    first = int(rng.integers(len(palette)))
    second = (first + int(rng.integers(1, len(palette)))) % len(palette)
    first, second = palette[[first, second]] + rng.integers(-18, 19, (2, 3))
    field, kind = _field(rng, height, width)
    return (first + (second - first) * field[..., None]).astype(np.int16), kind


def _background(
    rng: np.random.Generator, height: int, width: int, palette: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One texture, or two that meet at a straight line; int16 (height, width, 3). And int64 (height, width), which of
    `STUFF` each pixel is."""
    image, kind = _texture(rng, height, width, palette)
    stuff = np.full((height, width), kind)
    if rng.random() < 0.25:
        angle = _between(rng, 0, 2 * math.pi)
        cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
        x, y = np.arange(width)[None, :] - width / 2, np.arange(height)[:, None] - height / 2
        beyond = x * cos + y * sin > _between(rng, -0.25, 0.25) * min(height, width)
        other, kind = _texture(rng, height, width, palette)
        image, stuff = np.where(beyond[..., None], other, image), np.where(beyond, kind, stuff)
    return image, stuff


def corners_of(mask: np.ndarray) -> list[tuple[int, int]]:
    """The pixels (column, row) of `mask` that lie furthest to the top left, top right, bottom right and bottom left."""
    rows, columns = np.nonzero(mask)
    found = []
    for across, down in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        at = int((across * columns + down * rows).argmax())
        found.append((int(columns[at]), int(rows[at])))
    return found


@dataclass
class Thing:
    """An instance in a scene: its class, how many pixels it would show with nothing in front of it, and the pixels
    (column, row) of its corners (`corners_of`), none where the shape is round."""

    category: int
    pixels: int
    corners: tuple[tuple[int, int], ...] = ()


class Scene:
    """An image that is painted from back to front; `owner` says which instance each pixel shows (0: none), and `stuff`
    which of `STUFF` is there or behind it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.width, self.height = int(rng.integers(256, 321)), int(rng.integers(192, 257))
        self.palette = _palette(rng)
        self.image, self.stuff = _background(rng, self.height, self.width, self.palette)
        self.owner = np.zeros((self.height, self.width), np.int64)
        self.things: list[Thing] = []
        for _ in range(int(rng.integers(1, MAX_INSTANCES + 1))):
            self._add_instance()
        if rng.random() < BAND_SHARE:
            self._add_band()

    def hidden(self) -> list[float]:
        """The share of each instance that lies behind others, 0..1."""
        seen = np.bincount(self.owner.ravel(), minlength=len(self.things) + 1)
        return [1 - int(seen[i + 1]) / thing.pixels for i, thing in enumerate(self.things)]

    def pixels(self) -> np.ndarray:
        """The finished image: edges softened, sensor noise added; uint8 (height, width, 3)."""
        image = np.pad(self.image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        image = image[:-2] + 2 * image[1:-1] + image[2:]
        image = (image[:, :-2] + 2 * image[:, 1:-1] + image[:, 2:] + 8) >> 4
        noise = self.rng.integers(-7, 8, image.shape, dtype=np.int16)
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    def _add_instance(self) -> None:
        rng = self.rng
        category = int(rng.integers(len(CLASSES)))
        mask = self._draw_mask(category)
        place = self._find_place(mask)
        if place is not None:
            corners = ()
            if CLASSES[category] in _CORNERS:
                corners = tuple((x + place[1], y + place[0]) for x, y in corners_of(mask))
            self.things.append(Thing(category, int(mask.sum()), corners))
            self._paint(mask, *place, len(self.things))

    def _draw_mask(self, category: int) -> np.ndarray:
        rng = self.rng
        low, high = SIDES
        while True:
            # The mean of two numbers evenly spread on a logarithmic scale: middle sizes are the most frequent.
            size = round(20 * (high / 20) ** (((rng.random() + rng.random()) / 2) ** 0.85))
            angle, aspect = _between(rng, 0, 2 * math.pi), _between(rng, 0.7, 1.0)
            mask = shape_mask(CLASSES[category], size, angle, aspect, _between(rng, -0.12, 0.12))
            height, width = mask.shape
            if min(mask.shape) >= low and height <= self.height - 4 and width <= self.width - 4:
                return mask

    def _find_place(self, mask: np.ndarray) -> tuple[int, int] | None:
        """Top and left of a place where everything stays recognisable, or None."""
        rng = self.rng
        height, width = mask.shape
        target, hidden = 0, self.hidden()
        free = [i + 1 for i, share in enumerate(hidden) if share < 0.1]
        if free and rng.random() < OVERLAP_SHARE:
            target = free[int(rng.integers(len(free)))]
            rows, columns = np.nonzero(self.owner == target)
            top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        for attempt in range(60):
            if target and attempt < 50:
                y, x = rng.integers(top - height, bottom + 2), rng.integers(left - width, right + 2)
            else:
                y, x = rng.integers(2, self.height - height - 1), rng.integers(2, self.width - width - 1)
            y, x = int(y), int(x)
            if not (2 <= y <= self.height - height - 2 and 2 <= x <= self.width - width - 2):
                continue
            covered = np.bincount(self.owner[y : y + height, x : x + width][mask], minlength=len(self.things) + 1)
            if target and attempt < 50 and not 0.27 <= covered[target] / self.things[target - 1].pixels <= 0.4:
                continue
            if self._stays_recognisable(covered, hidden, mask, y, x):
                return y, x
        return None

    def _stays_recognisable(self, covered: np.ndarray, hidden: list[float], mask: np.ndarray, y: int, x: int) -> bool:
        touched = np.flatnonzero(covered[1:])
        if any(hidden[i] + covered[i + 1] / self.things[i].pixels > MAX_HIDDEN for i in touched):
            return False
        if not len(touched):
            return True
        after = self.owner.copy()
        after[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = 0
        return all(min(box_of(after == i + 1)[2:]) >= SIDES[0] for i in touched)

    def _add_band(self) -> None:
        """A strip across the whole image, hiding what it runs over unless that would hide too much."""
        rng = self.rng
        for _ in range(10):
            angle = _between(rng, 0, math.pi)
            cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
            x, y = np.arange(self.width)[None, :] - self.width / 2, np.arange(self.height)[:, None] - self.height / 2
            offset = _between(rng, -0.3, 0.3) * self.height
            mask = np.abs(x * cos + y * sin - offset) <= _between(rng, 6, 20)
            covered = np.bincount(self.owner[mask], minlength=len(self.things) + 1)
            if covered[1:].any() and self._stays_recognisable(covered, self.hidden(), mask, 0, 0):
                self._paint(mask, 0, 0, 0)
                return

    def _paint(self, mask: np.ndarray, top: int, left: int, owner: int) -> None:
        rng = self.rng
        height, width = mask.shape
        part = self.image[top : top + height, left : left + width]
        texture, kind = _texture(rng, height, width, self.palette)
        # A rim, dark outside and light inside of it, as a bevel has.
        thick = 1 + (mask.size > 900)
        square = np.ones((3, 3), np.uint8)
        middle = cv2.erode(np.pad(mask, 1).astype(np.uint8), square, iterations=thick)
        inner = cv2.erode(middle, square, iterations=thick)[1:-1, 1:-1]
        middle = middle[1:-1, 1:-1]
        light = int(rng.integers(*RIM))
        texture[mask & (middle == 0)] -= light
        texture[(middle == 1) & (inner == 0)] += light
        part[mask] = np.clip(texture[mask], 0, 255)
        self.owner[top : top + height, left : left + width][mask] = owner
        if owner == 0:
            self.stuff[top : top + height, left : left + width][mask] = kind
