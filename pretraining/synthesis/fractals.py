"""Fractals of iterated function systems, coloured by the map that was used last.

Kataoka et al. (2020), Pre-training without natural images; Anderson and Farrell (2022),
Improving fractal pre-training (maps by singular values, colour, backgrounds). A class is
a system of 2 to 5 affine maps; its images jitter the maps.
"""

import numpy as np

from pretraining.synthesis import canvas
from pretraining.synthesis.textures import Texture

PARTICLES, STEPS, BURN_IN = 512, 48, 12


class Fractals(Texture):
    """Attractors of iterated function systems over a background."""

    def draw_parameters(self, rng):
        for _ in range(100):
            maps = _draw_maps(rng)
            probe = np.random.default_rng(0)
            points, _ = _run(maps, _chances(maps), probe)
            cells = np.unique(_pixels(_fit_frame(points), 32))
            if len(cells) > 60:  # fills a part of the plane, not a dot or a line
                break
        return maps

    def paint(self, parameters, rng):
        maps = parameters * rng.uniform(0.93, 1.07, parameters.shape)
        points, last = _run(maps, _chances(maps), rng)
        points = _fit_frame(points)
        angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.3 else rng.normal(0, 0.25)
        turned = _rotation(angle) * np.array([rng.choice([-1, 1]), 1])
        zoom = np.exp(rng.uniform(-0.35, 0.25))
        points = points @ turned.T * zoom + rng.uniform(-0.15, 0.15, 2)
        inside = (np.abs(points) < 1).all(1)
        pixels = _pixels(points[inside], self.size)
        palette = canvas.colours(rng, len(maps))
        ink = palette[last[inside]]
        n = self.size * self.size
        count = np.bincount(pixels, minlength=n)
        colour = np.stack([np.bincount(pixels, ink[:, c], n) for c in range(3)], -1)
        colour = (colour / np.maximum(count, 1)[:, None]).reshape(self.size, self.size, 3)
        mask = 1 - np.exp(-count.reshape(self.size, self.size) * rng.uniform(0.4, 1.5))
        below = canvas.background(self.size, rng)
        return canvas.mix(below, colour.astype(np.float32), mask.astype(np.float32))


def _rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _draw_maps(rng):
    """Draw 2 to 5 contracting maps (k, 2, 3) as rotation, scaling, rotation and shift."""
    maps = []
    for _ in range(rng.integers(2, 6)):
        scale = np.diag(rng.uniform(0.25, 0.85, 2) * rng.choice([-1, 1], 2))
        turn, back = (_rotation(a) for a in rng.uniform(0, 2 * np.pi, 2))
        shift = rng.uniform(-1, 1, (2, 1))
        maps.append(np.hstack([turn @ scale @ back, shift]))
    return np.array(maps)


def _chances(maps):
    area = np.abs(np.linalg.det(maps[:, :, :2])) + 0.02
    return area / area.sum()


def _run(maps, chances, rng):
    """Play the chaos game with many particles; return the points and the last maps."""
    choice = rng.choice(len(maps), (BURN_IN + STEPS, PARTICLES), p=chances)
    point = np.zeros((PARTICLES, 2))
    points = np.empty((STEPS, PARTICLES, 2))
    for step, chosen in enumerate(choice):
        a = maps[chosen]
        point = np.einsum("nij,nj->ni", a[:, :, :2], point) + a[:, :, 2]
        if step >= BURN_IN:
            points[step - BURN_IN] = point
    return np.clip(points.reshape(-1, 2), -1e3, 1e3), choice[BURN_IN:].ravel()


def _fit_frame(points):
    """Shift and scale the points so that nearly all lie in (-1, 1)."""
    low, high = np.percentile(points[::7], [1, 99], axis=0)
    return (points - (low + high) / 2) * (1.8 / (high - low).max().clip(1e-6))


def _pixels(points, size):
    """Return the flat index of the pixel of each point in [-1, 1]."""
    column, row = ((points.clip(-0.999, 0.999) + 1) / 2 * size).astype(np.intp).T
    return row * size + column
