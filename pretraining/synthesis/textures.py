"""Textures: noise of a given spectrum, dead leaves, and small random programs.

Natural statistics without natural images: Baradad et al. (2021), Learning to see by looking
at noise (spectra, dead leaves); Baradad et al. (2022), Procedural image programs for
representation learning (small programs, one class each). A class is a set of generating
parameters; an image of it draws the rest.
"""

import zlib

import numpy as np
from PIL import Image, ImageDraw

from pretraining.synthesis import canvas


class Texture:
    """A source whose classes are numbered; each draws its parameters from its number.

    Parameters
    ----------
    n_classes : int
    size : int
        Height and width of the images.
    seed : int
    """

    def __init__(self, n_classes, size, seed):
        self.n_classes, self.size = n_classes, size
        source = zlib.crc32(type(self).__name__.encode())  # no source draws as another does
        self._parameters = [
            self.draw_parameters(np.random.default_rng((seed, source, label)))
            for label in range(n_classes)
        ]

    def name(self, label):
        """Return the name of a class."""
        return str(label)

    def draw(self, label, rng):
        """Draw an image of a class: uint8 (S, S, 3)."""
        return canvas.finish(self.paint(self._parameters[label], rng), rng)

    def draw_parameters(self, rng):
        """Draw what the images of one class have in common."""
        raise NotImplementedError

    def paint(self, parameters, rng):
        """Paint an image (S, S, 3) in [0, 1] of a class with these parameters."""
        raise NotImplementedError


def _class_hue(rng):
    """Every other class has a hue of its own; in the others colour says nothing."""
    return rng.random() if rng.random() < 0.5 else None


class Spectra(Texture):
    """Noise of a spectrum: slope, direction, a band of frequencies; folded to make ridges."""

    def draw_parameters(self, rng):
        return {
            "exponent": rng.uniform(0.4, 2.2),
            "stretch": np.exp(rng.uniform(0, 2)) if rng.random() < 0.6 else 1.0,
            "band": rng.uniform(0.03, 0.35) if rng.random() < 0.5 else None,
            "band_width": rng.uniform(0.1, 0.6),
            "fold": rng.integers(5),
            "gain": np.exp(rng.uniform(-0.5, 1.5)),
            "hue": _class_hue(rng),
            "n_colours": rng.integers(2, 5),
        }

    def paint(self, parameters, rng):
        p = parameters
        angle, zoom = rng.uniform(0, np.pi), np.exp(rng.uniform(-0.25, 0.25))
        field = canvas.power_noise(self.size, p["exponent"], rng, self._gain(p, angle, zoom))
        field = fold(field, p["fold"])
        stops = canvas.colours(rng, p["n_colours"], p["hue"])
        return canvas.shade(canvas.squash(field, p["gain"]), stops)

    def _gain(self, p, angle, zoom):
        fx, fy = canvas.frequencies(self.size)
        u = (np.cos(angle) * fx + np.sin(angle) * fy) * p["stretch"]
        v = np.cos(angle) * fy - np.sin(angle) * fx
        f = np.hypot(u, v) * zoom + 1e-4
        if p["band"] is None:
            return np.exp(-f * (p["stretch"] - 1))
        return np.exp(-((np.log(f / p["band"]) / p["band_width"]) ** 2))


def fold(field, kind):
    """Bend the values of a standardised field: as it is, ridges, blobs, bands or steps."""
    if kind == 1:
        return canvas.standardise(np.abs(field))
    if kind == 2:
        return canvas.standardise(np.maximum(field, 0.5) ** 2)
    if kind == 3:
        return np.sin(3 * field) * 1.4
    if kind == 4:
        return np.round(field * 1.5)
    return field


class DeadLeaves(Texture):
    """Shapes that cover each other, with sizes by a power law (Lee et al. 2001)."""

    n_leaves = 200

    def draw_parameters(self, rng):
        return {
            "corners": rng.choice([0, 0, 3, 4, 4, 5, 6]),
            "star": rng.random() < 0.25,
            "exponent": rng.uniform(1, 4),
            "smallest": rng.uniform(0.03, 0.12),
            "largest": rng.uniform(0.2, 0.8),
            "aspect": np.exp(rng.uniform(0, 1.5)) if rng.random() < 0.5 else 1.0,
            "aligned": rng.random() < 0.4,
            "outline": rng.random() < 0.25,
            "hue": _class_hue(rng),
            "n_colours": rng.integers(2, 8),
        }

    def paint(self, parameters, rng):
        p, n = parameters, self.n_leaves
        scale = 2 * self.size  # painted at twice the size against jaggies
        picture = Image.new("RGB", (scale, scale))
        pen = ImageDraw.Draw(picture)
        palette = (canvas.colours(rng, p["n_colours"], p["hue"]) * 255).astype(int)
        sizes = _power_law(rng, n, p["smallest"], p["largest"], p["exponent"])
        turn = rng.uniform(0, 2 * np.pi)
        turns = turn + (rng.normal(0, 0.1, n) if p["aligned"] else rng.uniform(0, 7, n))
        centres = rng.uniform(-0.1, 1.1, (n, 2))
        outlines = outline_shapes(p, sizes, turns) + centres[:, None]  # (n, corners, 2)
        inks = palette[rng.integers(len(palette), size=n)] + rng.integers(-12, 13, (n, 3))
        dark = (0, 0, 0) if p["outline"] else None
        picture.paste(tuple(inks[0]), (0, 0, scale, scale))
        for outline, ink in zip((outlines * scale).tolist(), inks.tolist(), strict=True):
            pen.polygon([tuple(point) for point in outline], tuple(ink), dark)
        small = picture.resize((self.size, self.size), Image.Resampling.BOX)
        return np.asarray(small, np.float32) / 255


def _power_law(rng, n, smallest, largest, exponent):
    """Draw n sizes with density size**-exponent."""
    u, e = rng.random(n), 1 - exponent
    if abs(e) < 1e-3:
        return smallest * (largest / smallest) ** u
    return (smallest**e + u * (largest**e - smallest**e)) ** (1 / e)


def outline_shapes(p, sizes, turns):
    """Return the outlines (n, corners, 2) of shapes around the origin.

    No corners make an ellipse; a star has every second corner nearer to the origin.
    """
    n = (p["corners"] or 14) * (2 if p["star"] else 1)
    angles = np.arange(n) * 2 * np.pi / n
    radius = np.where(np.arange(n) % 2, 0.45, 1) if p["star"] else 1
    x = np.cos(angles) * radius * np.sqrt(p["aspect"])
    y = np.sin(angles) * radius / np.sqrt(p["aspect"])
    cos, sin = np.cos(turns)[:, None], np.sin(turns)[:, None]
    return np.stack([x * cos - y * sin, x * sin + y * cos], -1) * (sizes / 2)[:, None, None]


# -------------------------------------------------------------------------------- programs

UNARY = {
    "sin": lambda a, c: np.sin((1 + 5 * c) * a),
    "abs": lambda a, c: np.abs(a) - c,
    "saw": lambda a, c: ((1 + 3 * c) * a) % 2 - 1,
    "step": lambda a, c: np.tanh(8 * (a - c + 0.5)),
    "square": lambda a, c: a * a - c,
    "bump": lambda a, c: 2 * np.exp(-((a / (0.2 + c)) ** 2)) - 1,
}
BINARY = {
    "add": lambda a, b, c: a + (c - 0.5) * 2 * b,
    "multiply": lambda a, b, c: a * b * (1 + c),
    "larger": lambda a, b, c: np.maximum(a, b + c - 0.5),
    "radius": lambda a, b, c: np.hypot(a, b) * (1 + c) - 1,
    "angle": lambda a, b, c: np.arctan2(b, a) / np.pi * (1 + np.floor(4 * c)),
}


class Programs(Texture):
    """Random programs of `n_steps` operations over x, y and noise, one a class."""

    n_steps = 9

    def draw_parameters(self, rng):
        steps = []
        for k in range(self.n_steps):
            table = UNARY if rng.random() < 0.45 else BINARY
            name = list(table)[rng.integers(len(table))]
            # Late steps see late results, so that most of a program matters.
            first = rng.integers(max(0, k - 1), k + 4)
            steps.append((name, first, rng.integers(k + 4), rng.random()))
        return {
            "steps": steps,
            "zoom": np.exp(rng.uniform(-0.3, 1.7)),
            "warp": rng.uniform(0, 0.6) if rng.random() < 0.6 else 0.0,
            "cells": rng.integers(3, 12),
            "hue": _class_hue(rng),
            "n_colours": rng.integers(2, 6),
        }

    def paint(self, parameters, rng):
        p, size = parameters, self.size
        x, y = canvas.place(size, rng, scale=(0.75, 1.3), shift=0.8)
        noise = canvas.smooth_noise(size, p["cells"], rng, channels=3) * 2 - 1
        x, y = p["zoom"] * x + p["warp"] * noise[..., 0], p["zoom"] * y + p["warp"] * noise[..., 1]
        values = [x, y, noise[..., 2], np.hypot(x, y) - 1]
        for name, first, second, constant in p["steps"]:
            constant = np.clip(constant + rng.normal(0, 0.04), 0, 1)
            if name in UNARY:
                value = UNARY[name](values[first], constant)
            else:
                value = BINARY[name](values[first], values[second], constant)
            values.append(np.clip(value, -4, 4))
        stops = canvas.colours(rng, p["n_colours"], p["hue"])
        painted = canvas.shade(canvas.squash(canvas.standardise(values[-1])), stops)
        edge = canvas.squash(canvas.standardise(values[-3]))  # light from another result
        return painted * (0.6 + 0.4 * edge[..., None]).astype(np.float32)
