"""What the numbers of a picture mean: one rule for arrays, lists, files, Datasets and frames.

The white level is the number of full brightness. Types define it for bool (1) and uint8 (255).
Other numbers lie in [0, 1], [0, 255] or, if whole, in [0, 16], as scikit-learn's digits. Pixels of
16 bits may have fewer significant bits. The largest value that `fit` sees decides, and is kept for
`predict`.
"""

import warnings
from dataclasses import dataclass

import numpy as np

DIGITS = 16
DEEP = (255, 1023, 4095, 16383, 65535)  # 8, 10, 12, 14 and 16 significant bits
ROUNDING = 1e-6  # what computations may add to a white level or take from black, relatively


@dataclass(frozen=True)
class WhiteLevels:
    """White levels of numbers and of 16-bit pixels; None where there were none."""

    scale: float | None = None
    deep_scale: float | None = None


@dataclass(frozen=True)
class Span:
    """Largest value of some pixels, and of which kind they are."""

    high: float
    is_float: bool
    is_whole: bool
    is_deep: bool = False


def dtype_scale(dtype):
    """Return the white level of bool (1) or uint8 (255); else None."""
    return {"b1": 1, "u1": 255}.get(dtype.str[1:])


def find_span(values, name="X", is_deep=False):
    """Return the Span of an array of numbers, or None if its dtype defines the white level.

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
    if dtype_scale(values.dtype) or values.dtype.kind not in "iuf" or values.size == 0:
        return None
    is_float, is_deep = values.dtype.kind == "f", is_deep or values.dtype.str[1:] == "u2"
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        kind = "NaN" if np.isnan(low) or np.isnan(high) else "infinity"
        raise ValueError(f"{name} contains {kind}; pixels must be finite numbers")
    limit, rounding = 65535 if is_deep else 255, _rounding(values.dtype)
    if low < -rounding * (1 if high <= 1 + rounding else limit):
        raise ValueError(
            f"Negative values in data passed to the estimator: {name} has the range "
            f"[{low:g}, {high:g}], but pixels must lie in [0, 1] or [0, 255]. Scale them, but do "
            "not normalise them: the network does."
        )
    if high > limit * (1 + rounding):
        rule = "16-bit pixels" if is_deep else "pixels other than uint8 and uint16"
        ranges = "[0, 65535]" if is_deep else "[0, 1] or [0, 255]"
        raise ValueError(
            f"{name} has the range [{low:g}, {high:g}], but {rule} must lie in {ranges}. Divide "
            "them by their white level."
        )
    high = next((level for level in (1, limit) if abs(high - level) <= rounding * level), high)
    doubtful = is_float and 1 < high <= DIGITS
    is_whole = not is_float or (doubtful and bool((values == np.rint(values)).all()))
    return Span(high, is_float, is_whole, is_deep)


def _rounding(dtype):
    return max(ROUNDING, 4 * np.finfo(dtype).eps) if dtype.kind == "f" else 0


def settle_levels(spans, fitted=None):
    """Return the WhiteLevels of pixels, given the Spans of all of them.

    Parameters
    ----------
    spans : iterable of Span
    fitted : WhiteLevels or None, default=None
        The levels found in `fit`; None during `fit`.

    Raises
    ------
    ValueError
        If the white level is ambiguous, or the pixels are brighter than those in `fit`.
    """
    plain, deep = [s for s in spans if not s.is_deep], [s for s in spans if s.is_deep]
    known = WhiteLevels() if fitted is None else fitted
    scale, deep_scale = known.scale, known.deep_scale
    if len({span.is_float for span in plain}) > 1 and scale is None:
        raise ValueError(
            "Some images of X are floats and some are integers, so their scales may differ. "
            "Convert them all to uint8 or to floats in [0, 1]."
        )
    if plain:
        high, is_float = max(s.high for s in plain), any(s.is_float for s in plain)
        if fitted is None:
            scale = _settle(high, is_float, all(s.is_whole for s in plain))
        else:
            scale = _follow(high, is_float, scale)
    if deep:
        if fitted is not None and deep_scale is None:
            deep_scale = DEEP[-1]  # not by the images of one call
            _warn_of_depth(deep_scale, "fit saw none of them")
        deep_scale = _settle_deep(max(s.high for s in deep), deep_scale)
    return WhiteLevels(scale, deep_scale)


def _settle(high, is_float, is_whole):
    """Return the white level in `fit`; warn unless it is the usual one."""
    if high <= 1:
        scale = 1
    elif is_whole and high <= DIGITS:
        scale = DIGITS
    elif high > DIGITS:
        scale = 255
    else:
        raise ValueError(
            f"X has the range [0, {high:g}], which is neither [0, 1] nor [0, 255], so its white "
            "level is unknown. Divide X by its white level."
        )
    if scale != (1 if is_float else 255):
        _warn(scale)
    return scale


def _follow(high, is_float, scale):
    """Return the white level in `predict`; `scale` is that of `fit`, or None."""
    if scale is None:  # fit saw only files or 8 bits, so 16 is not a white level
        if is_float and high > 1:
            _warn(255)
        return 1 if is_float and high <= 1 else 255
    message = (
        f"X has values up to {high:g}, but the estimator was fitted on pixels in [0, {scale:g}]. "
        "Scale X like the data passed to fit."
    )
    if high > scale:
        raise ValueError(message)
    if is_float and high <= 1 < scale:
        warnings.warn(f"{message} Unscaled, the images are nearly black.", stacklevel=2)
    return scale


def _settle_deep(high, scale):
    if scale is None:
        scale = next(level for level in DEEP if high <= level)
        _warn_of_depth(scale, "by their largest value")
    if high > scale:
        raise ValueError(
            f"X has 16-bit pixels up to {high:g}, but the estimator was fitted on pixels in "
            f"[0, {scale:g}]. Divide both by their white level."
        )
    return scale


def _warn_of_depth(scale, reason):
    warnings.warn(
        f"16-bit pixels are divided by {scale}, {reason}; if their white level is another one, "
        "divide them yourself.",
        stacklevel=2,
    )


def _warn(scale):
    warnings.warn(
        f"Pixels are assumed to lie in [0, {scale}] and are divided by {scale}. Pass floats in "
        "[0, 1] or uint8 to avoid this assumption.",
        stacklevel=2,
    )


def to_unit(pixels, levels, is_deep=False):
    """Divide pixels by their white level: uint8, or float32 in [0, 1].

    Parameters
    ----------
    pixels : ndarray
        Pixels of one image, or of images of one form.
    levels : WhiteLevels
        A level that is None is the usual one: 1 for floats up to 1, else 255; 65535 for 16 bits.
    is_deep : bool, default=False
        See :func:`find_span`.
    """
    dtype = pixels.dtype
    if scale := dtype_scale(dtype):
        return pixels if scale == 255 else pixels.astype(np.float32)
    if is_deep or dtype.str[1:] == "u2":
        scale = levels.deep_scale or 65535
    elif levels.scale is not None:
        scale = levels.scale
    else:
        scale = 1 if dtype.kind == "f" and pixels.max(initial=0) <= 1 + _rounding(dtype) else 255
    if (high := pixels.max(initial=0)) > scale * (1 + _rounding(dtype)):
        raise ValueError(f"has values up to {high:g}, expected [0, {scale:g}]; divide them")
    if scale == 255 and dtype.kind in "iu":
        return pixels.astype(np.uint8)
    return (pixels.astype(np.float32) / np.float32(scale)).clip(0, 1)
