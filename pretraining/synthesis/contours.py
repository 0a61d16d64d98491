"""Solids with a random outline, lit and textured, in front of a background.

Outlines are Fourier series in polar coordinates, in the spirit of the radial contours of
Kataoka et al. (2022), Replacing labeled real-image datasets with auto-generated contours.
A class is an outline with holes and a surface; its images differ in pose, light and colours.
"""

import numpy as np

from pretraining.synthesis import canvas
from pretraining.synthesis.textures import Texture, fold


class Contours(Texture):
    """One to three solids of a class, whole or cut off at the border."""

    def draw_parameters(self, rng):
        waves = np.arange(1, 9)
        strength = rng.uniform(0.1, 0.9) / waves ** rng.uniform(0.3, 1.2)
        return {
            "cos": rng.normal(0, 1, 8) * strength * (rng.random(8) < 0.5),
            "sin": rng.normal(0, 1, 8) * strength * (rng.random(8) < 0.5),
            "aspect": np.exp(rng.uniform(0, 0.9)),
            "hole": rng.uniform(0.2, 0.6) if rng.random() < 0.25 else 0.0,
            "roundness": rng.uniform(0, 1),
            "pattern": rng.integers(5),
            "frequency": rng.uniform(2, 9),
            "fold": rng.integers(5),
            "hue": rng.random() if rng.random() < 0.3 else None,
        }

    def paint(self, parameters, rng):
        image = canvas.background(self.size, rng)
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            image = self._add_solid(image, parameters, rng)
        return image

    def _add_solid(self, image, p, rng):
        x, y = canvas.place(self.size, rng, turn=0.6, scale=(0.45, 1.0), shift=0.35)
        x, y = x * np.sqrt(p["aspect"]), y / np.sqrt(p["aspect"])
        radius, angle = np.hypot(x, y), np.arctan2(y, x)
        outline = np.full_like(radius, 0.7)
        for k in range(8):
            if p["cos"][k] or p["sin"][k]:
                wave = (k + 1) * angle
                outline += 0.5 * (p["cos"][k] * np.cos(wave) + p["sin"][k] * np.sin(wave))
        depth = radius / np.maximum(outline, 0.08)  # 0 in the middle, 1 at the outline
        edge = 0.12 / self.size * 64
        mask = np.clip((1 - depth) / edge, 0, 1) * np.clip((depth - p["hole"]) / edge + 1, 0, 1)
        surface = canvas.shade(self._pattern(x, y, depth, p, rng), canvas.colours(rng, 3, p["hue"]))
        surface = surface * self._light(x, y, depth, p, rng)[..., None]
        if rng.random() < 0.3:  # its shadow
            down, right = rng.integers(2, 6, 2)
            moved = np.pad(mask, ((down, 0), (right, 0)))[: self.size, : self.size]
            image = image * (1 - 0.5 * moved[..., None])
        return canvas.mix(image, surface.astype(np.float32), mask.astype(np.float32))

    def _pattern(self, x, y, depth, p, rng):
        if p["pattern"] == 0:
            return np.full_like(x, 0.5)
        if p["pattern"] == 1:
            return 0.5 + 0.5 * np.sin(p["frequency"] * 2 * x)
        if p["pattern"] == 2:
            return 0.5 + 0.5 * np.sin(p["frequency"] * np.pi * depth)
        if p["pattern"] == 3:
            return 0.5 + 0.5 * np.sin(p["frequency"] * x * 2) * np.sin(p["frequency"] * y * 2)
        return canvas.squash(fold(canvas.power_noise(self.size, 1.2, rng), p["fold"]))

    def _light(self, x, y, depth, p, rng):
        angle = rng.uniform(0, 2 * np.pi)
        slope = p["roundness"] * np.clip(depth, 0, 1) ** 2
        facing = (np.cos(angle) * x + np.sin(angle) * y) / (np.hypot(x, y) + 0.1)
        return np.clip(0.85 + 0.6 * slope * facing - 0.2 * slope, 0.1, 1.3)
