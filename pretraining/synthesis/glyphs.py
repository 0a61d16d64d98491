"""Characters in many fonts, bent, outlined, on plates, in front of a background.

A class is a group of characters that look alike (homoglyphs); its images differ in font,
pose, stroke and colours.
"""

import numpy as np
from PIL import Image, ImageFilter

from pretraining.synthesis import canvas
from pretraining.synthesis.fonts import (
    draw_character,
    find_characters,
    find_fonts,
    merge_homoglyphs,
)


class Glyphs:
    """Characters as classes.

    Parameters
    ----------
    n_classes : int or None
        Classes drawn from all there are; None takes all.
    size : int
        Height and width of the images.
    seed : int
    fonts : str, path, list of path or None, default=None
        A folder, or the files; None: what :func:`find_fonts` finds.
    min_fonts : int, default=3
        Fonts that a character must be in.

    Raises
    ------
    ValueError
        If there are no fonts, or too few for the classes.
    """

    def __init__(self, n_classes, size, seed, fonts=None, min_fonts=3):
        self.size = size
        held = find_characters(fonts if isinstance(fonts, list) else find_fonts(fonts))
        held = {c: paths for c, paths in held.items() if len(paths) >= min_fonts}
        if not held:
            raise ValueError(f"No character is in {min_fonts} fonts or more; give more fonts.")
        groups = merge_homoglyphs(held)
        if n_classes is not None:
            if n_classes > len(groups):
                raise ValueError(
                    f"The fonts hold {len(groups)} different characters, not {n_classes}; "
                    "give more fonts or ask for fewer classes."
                )
            chosen = np.random.default_rng(seed).permutation(len(groups))[:n_classes]
            groups = [groups[k] for k in sorted(chosen)]
        self.characters = groups
        self.n_classes = len(groups)
        self._shapes = [[(c, path) for c in group for path in held[c]] for group in groups]
        self._masks = {}

    def name(self, label):
        """Return the characters of a class."""
        return "".join(self.characters[label])

    def draw(self, label, rng):
        """Draw an image of a class: uint8 (S, S, 3)."""
        shapes = self._shapes[label]
        mask = self._pose(self._mask(*shapes[rng.integers(len(shapes))]), rng)
        image = canvas.background(self.size, rng)
        below, above = canvas.contrasting(rng)
        if rng.random() < 0.5:  # a plain or a faint ground makes the character readable
            image = canvas.mix(image, below, np.full_like(mask, rng.uniform(0.5, 1)))
        if rng.random() < 0.3:
            image = self._add_plate(image, below, rng)
        ink = np.broadcast_to(above, image.shape)
        if rng.random() < 0.3:
            ink = canvas.background(self.size, rng) * 0.5 + above * 0.5
        return canvas.finish(canvas.mix(image, ink, mask), rng)

    def _mask(self, character, path):
        key = character, path
        if key not in self._masks:
            self._masks[key] = Image.fromarray(draw_character(path, character))
        return self._masks[key]

    def _pose(self, mask, rng):
        """Bend, thicken, turn, scale and shift a character; (S, S) in [0, 1]."""
        kind = rng.integers(8)
        if kind == 0:
            mask = mask.filter(ImageFilter.MaxFilter(5))
        elif kind == 1:
            mask = mask.filter(ImageFilter.MinFilter(3))
        elif kind == 2:
            outer = np.asarray(mask.filter(ImageFilter.MaxFilter(5)))
            mask = Image.fromarray(outer - np.minimum(np.asarray(mask), outer))
        size, n = self.size, 4  # a mesh of n x n cells
        x, y = canvas.place(n + 1, rng, turn=0.35, scale=(0.45, 1.05), shift=0.2, shear=0.35)
        bend = rng.uniform(0, 0.12)
        corners = np.stack([x, y], -1) * (n + 1) / n  # pixel centres reach n / (n + 1) only
        corners = (corners + rng.normal(0, bend, corners.shape) + 1) / 2 * mask.width
        edges = np.linspace(0, size, n + 1).round().astype(int)
        mesh = [
            (
                (edges[j], edges[i], edges[j + 1], edges[i + 1]),
                (*corners[i, j], *corners[i + 1, j], *corners[i + 1, j + 1], *corners[i, j + 1]),
            )
            for i in range(n)
            for j in range(n)
        ]
        bent = mask.transform((size, size), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
        return np.asarray(bent, np.float32) / 255

    def _add_plate(self, image, colour, rng):
        """Lay a sign's plate, a regular polygon with a rim, below the character."""
        x, y = canvas.coordinates(self.size)
        corners = rng.choice([3, 4, 6, 8, 40])
        angle = np.arctan2(y, x) + rng.uniform(0, 2 * np.pi)
        sector = 2 * np.pi / corners
        reach = np.hypot(x, y) * np.cos((angle % sector) - sector / 2) / np.cos(sector / 2)
        radius = rng.uniform(0.75, 1.0)
        rim = canvas.colours(rng, 1)[0]
        image = canvas.mix(image, rim, np.clip((radius - reach) * 20, 0, 1))
        return canvas.mix(image, colour, np.clip((radius * 0.82 - reach) * 20, 0, 1))
