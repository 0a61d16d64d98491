"""What all sources draw with: coordinates, colours, backgrounds, light.

Images are float32 arrays (S, S, 3) in [0, 1]; S is their height and width. `rng` is a
numpy.random.Generator: one generator, one image.
"""

from functools import cache

import numpy as np
from PIL import Image


@cache
def coordinates(size):
    """Return x and y of the pixel centres, (S, S) each, in (-1, 1)."""
    axis = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    x.flags.writeable = y.flags.writeable = False
    return x, y


@cache
def frequencies(size):
    """Return fx and fy of the real Fourier transform, (S, S // 2 + 1) each."""
    fy, fx = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    fx, fy = fx.astype(np.float32), fy.astype(np.float32)
    fx.flags.writeable = fy.flags.writeable = False
    return fx, fy


def place(size, rng, turn=np.pi, scale=(0.7, 1.3), shift=0.3, shear=0.2):
    """Return x and y of a plane that is turned, scaled, sheared and shifted by chance."""
    x, y = coordinates(size)
    angle, skew = rng.uniform(-turn, turn), rng.uniform(-shear, shear)
    zoom = np.exp(rng.uniform(*np.log(scale)))
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    x, y = x - rng.uniform(-shift, shift), y - rng.uniform(-shift, shift)
    u = cos * x + sin * y
    return u, cos * y - sin * x + skew * u


# ------------------------------------------------------------------------------- colours


def hsv(hue, saturation, value):
    """Turn hue, saturation and value in [0, 1] (arrays or numbers) into RGB (..., 3)."""
    k = np.array([5.0, 3.0, 1.0], np.float32)
    k = (k + np.asarray(hue, np.float32)[..., None] * 6) % 6
    ramp = np.clip(np.minimum(k, 4 - k), 0, 1)
    value = np.asarray(value, np.float32)[..., None]
    return value - value * np.asarray(saturation, np.float32)[..., None] * ramp


def colours(rng, n, hue=None, spread=0.08):
    """Draw n colours (n, 3): around a hue, or any; one palette in five is gray."""
    hues = rng.uniform(0, 1, n) if hue is None else hue + rng.normal(0, spread, n)
    strength = 0 if hue is None and rng.random() < 0.2 else rng.beta(1.5, 1.5)
    return hsv(hues % 1, strength * rng.uniform(0.4, 1, n), rng.uniform(0.05, 1, n))


def contrasting(rng):
    """Draw two colours whose lightness differs by .25 or more."""
    while True:
        first, second = colours(rng, 1)[0], colours(rng, 1)[0]
        if abs(lightness(first) - lightness(second)) > 0.25:
            return first, second


def lightness(rgb):
    """Return the lightness (Rec. 601) of (..., 3) RGB."""
    return rgb @ np.array([0.299, 0.587, 0.114], np.float32)


def shade(field, stops):
    """Colour a field (S, S) in [0, 1] by linear interpolation between stops (k, 3)."""
    position = np.clip(field, 0, 1) * (len(stops) - 1)
    left = np.minimum(position.astype(np.intp), len(stops) - 2)
    part = (position - left)[..., None].astype(np.float32)
    return stops[left] * (1 - part) + stops[left + 1] * part


def mix(below, above, mask):
    """Lay `above` over `below` where a mask (S, S) in [0, 1] says so."""
    return below + (above - below) * mask[..., None]


# -------------------------------------------------------------------------------- fields


def smooth_noise(size, cells, rng, channels=1):
    """Return noise, (S, S) or (S, S, channels), with `cells` cells a side.

    Its values are about in [0, 1]: where cells are interpolated, they overshoot a little.
    """
    grid = rng.random((channels, cells, cells), dtype=np.float32)
    planes = [
        np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC))
        for plane in grid
    ]
    return planes[0] if channels == 1 else np.stack(planes, -1)


def power_noise(size, exponent, rng, gain=None):
    """Return noise whose amplitude falls as 1 / f**exponent, (S, S), mean 0, deviation 1.

    `gain` (S, S // 2 + 1) shapes the spectrum further.
    """
    fx, fy = frequencies(size)
    f = np.hypot(fx, fy)
    f[0, 0] = 1
    amplitude = f**-exponent
    amplitude[0, 0] = 0
    if gain is not None:
        amplitude *= gain
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32)) * amplitude
    return standardise(np.fft.irfft2(spectrum, (size, size)).astype(np.float32))


def standardise(field):
    """Shift and scale a field to mean 0 and deviation 1."""
    return (field - field.mean()) / (field.std() + 1e-6)


def squash(field, gain=1.0):
    """Map a standardised field into (0, 1)."""
    return 1 / (1 + np.exp(-1.7 * gain * np.clip(field, -20, 20)))


def background(size, rng):
    """Draw a background: flat, a gradient, clouds or noise with a natural spectrum."""
    kind, palette = rng.integers(4), colours(rng, 3)
    if kind == 0:
        return np.broadcast_to(palette[0], (size, size, 3)).astype(np.float32)
    if kind == 1:
        x, y = coordinates(size)
        angle = rng.uniform(0, 2 * np.pi)
        field = 0.5 + 0.35 * (np.cos(angle) * x + np.sin(angle) * y)
    elif kind == 2:
        field = smooth_noise(size, rng.integers(2, 9), rng)
    else:
        field = squash(power_noise(size, rng.uniform(0.5, 2), rng))
    return shade(field, palette[: rng.integers(2, 4)])


# --------------------------------------------------------------------------------- finish


def finish(image, rng):
    """Light, blur and noise of a camera; returns uint8 (S, S, 3)."""
    size = len(image)
    if rng.random() < 0.4:
        x, y = coordinates(size)
        angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.4)
        light = 1 + slope * (np.cos(angle) * x + np.sin(angle) * y)
        image = image * light[..., None].astype(np.float32)
    if rng.random() < 0.3:
        image = image * rng.uniform(0.5, 1) + rng.uniform(0, 0.3)
    if rng.random() < 0.3:
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + noise * rng.uniform(0.01, 0.08)
    image = (np.clip(image, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.25:
        small = round(size * rng.uniform(0.35, 0.8))
        picture = Image.fromarray(image).resize((small, small), Image.Resampling.BILINEAR)
        image = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
    return image
