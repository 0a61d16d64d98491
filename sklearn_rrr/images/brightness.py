"""White levels of pixels: one rule for arrays, lists, files, Datasets and frames.

The white level is the number of full brightness. Types define it for bool (1) and uint8 (255).
Other numbers lie in [0, 1], [0, 255] or, if whole, in [0, 16], as scikit-learn's digits. Pixels of
16 bits may have fewer significant bits. The largest value that `fit` sees decides, and is kept for
`predict`, where it also applies to uint8 that does not exceed it.
"""

from dataclasses import dataclass

import numpy as np

DIGITS = 16
DEEP = (255, 1023, 4095, 16383, 65535)  # 8, 10, 12, 14 and 16 significant bits
ROUNDING = 1e-6  # what computations may add to a white level or take from black, relatively
BLOCK = 64  # images, or rows of one, that are searched at once until the answer is known
DEFINED = ("bool", "uint8")  # kinds whose type defines the white level


@dataclass(frozen=True)
class WhiteLevels:
    """White levels of numbers, 16-bit pixels and uint8; None is the usual one."""

    scale: float | None = None
    deep_scale: float | None = None
    byte_scale: float | None = None


@dataclass(frozen=True)
class Span:
    """Largest value of some pixels, and their kind.

    kind is "bool", "uint8", "16 bits", "integer" or "float". For uint8, high may be any of the
    values above DIGITS.
    """

    high: float
    kind: str
    is_whole: bool = True


USUAL = WhiteLevels()
BRIGHT = Span(255, "uint8")  # 8-bit pixels that were not measured


def find_kind(dtype, is_deep=False):
    """Return the kind of pixels of a dtype; see :class:`Span`."""
    if is_deep:
        return "16 bits"
    kinds = {"b1": "bool", "u1": "uint8", "u2": "16 bits"}
    return kinds.get(dtype.str[1:], "float" if dtype.kind == "f" else "integer")


def check_finite(values, name="X"):
    """Return the smallest and the largest of `values`; raise if they are NaN or infinite."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        kind = "NaN" if np.isnan(low) or np.isnan(high) else "infinity"
        raise ValueError(f"{name} contains {kind}; pixels must be finite numbers")
    return low, high


def find_span(values, name="X", is_deep=False):
    """Return the Span of an array of numbers, or None if it is empty or of another type.

    Parameters
    ----------
    values : ndarray
    name : str, default="X"
        Name for errors.
    is_deep : bool, default=False
        Whether these are 16-bit pixels of another dtype than uint16.

    Raises
    ------
    ValueError
        If values are negative, too large, NaN or infinite. What computations add by rounding is
        allowed.
    """
    if values.dtype.kind not in "biuf" or values.size == 0:
        return None
    kind = find_kind(values.dtype, is_deep)
    if kind == "bool":
        return Span(1, kind)
    if kind == "uint8":
        return Span(_find_bright(values), kind)
    low, high = check_finite(values, name)
    limit, rounding = 65535 if kind == "16 bits" else 255, _rounding(values.dtype)
    if low < -rounding * (1 if high <= 1 + rounding else limit):
        raise ValueError(
            f"Negative values in data passed to the estimator: {name} has the range "
            f"[{low:g}, {high:g}], but pixels must lie in [0, 1] or [0, 255]. Scale them, but do "
            "not normalise them: the network does."
        )
    if high > limit * (1 + rounding):
        rule = "16-bit pixels" if kind == "16 bits" else "pixels other than uint8 and uint16"
        ranges = "[0, 65535]" if kind == "16 bits" else "[0, 1] or [0, 255]"
        raise ValueError(
            f"{name} has the range [{low:g}, {high:g}], but {rule} must lie in {ranges}. Divide "
            "them by their white level."
        )
    high = next((level for level in (1, limit) if abs(high - level) <= rounding * level), high)
    is_whole = kind != "float" or (high <= DIGITS and high % 1 == 0 and _is_whole(values))
    return Span(high, kind, is_whole)


def _find_bright(values):
    """Return the largest of uint8 values, or the first maximum of a block above DIGITS."""
    high = 0
    for block in _blocks(values):
        high = max(high, int(block.max()))
        if high > DIGITS:
            break
    return high


def _is_whole(values):
    return all((block == np.rint(block)).all() for block in _blocks(values))


def _blocks(values):
    return (values[start : start + BLOCK] for start in range(0, len(values), BLOCK))


def _rounding(dtype):
    return max(ROUNDING, 4 * np.finfo(dtype).eps) if dtype.kind == "f" else 0


def white_level(span, levels):
    """Return the number by which pixels are divided.

    A level that is None is the usual one: 1 for floats up to 1, else 255; 65535 for 16 bits.
    """
    if span.kind == "bool":
        return 1
    if span.kind == "uint8":
        return levels.byte_scale or 255
    if span.kind == "16 bits":
        return levels.deep_scale or 65535
    if levels.scale is not None:
        return levels.scale
    return 1 if span.kind == "float" and span.high <= 1 else 255


def to_unit(pixels, levels=USUAL, is_deep=False):
    """Divide pixels by their white level: uint8, or float32 in [0, 1].

    Parameters
    ----------
    pixels : ndarray
        Pixels of one image, or of images of one form.
    levels : WhiteLevels, default=USUAL
        See :func:`white_level`.
    is_deep : bool, default=False
        See :func:`find_span`.
    """
    kind, rounding = find_kind(pixels.dtype, is_deep), _rounding(pixels.dtype)
    if kind == "bool":
        return pixels.astype(np.float32)
    if kind == "uint8" and levels.byte_scale is None:
        return pixels
    high = pixels.max(initial=0)
    scale = white_level(Span(1 if 1 <= high <= 1 + rounding else high, kind), levels)
    if high > scale * (1 + rounding):
        raise ValueError(f"has values up to {high:g}, expected [0, {scale:g}]; divide them")
    if scale == 255 and pixels.dtype.kind in "iu":
        return pixels.astype(np.uint8)
    return (pixels.astype(np.float32) / np.float32(scale)).clip(0, 1)


def measure_and_scale(pixels, is_deep=False):
    """Divide the pixels of one image by the usual white level, after they were checked."""
    find_span(pixels, "it", is_deep)
    return to_unit(pixels, is_deep=is_deep)
