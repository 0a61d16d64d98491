"""Which number stands for full brightness: pixels in [0, 1], [0, 255] or 16 bits."""

import warnings

import numpy as np

FULL_SCALES = (1, 16, 255)  # unit floats, scikit-learn's digits, 8 bits


def dtype_scale(dtype):
    """Return full brightness where the dtype settles it: bool 1, uint8 255, uint16 65535."""
    return {"b1": 1, "u1": 255, "u2": 65535}.get(dtype.str[1:])


def full_scale(values, name="X", scales=FULL_SCALES):
    """Return the value that stands for full brightness in an array.

    The dtype's own, see `dtype_scale`, else the least of `scales` that no value exceeds:
    up to 1 is 1, up to 16 is 16 (`sklearn.datasets.load_digits`), up to 255 is 255.

    Raises
    ------
    ValueError
        For negative values, values above 255, NaN and infinity.
    """
    if scale := dtype_scale(values.dtype):
        return scale
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        kind = "NaN" if np.isnan(low) or np.isnan(high) else "infinity"
        raise ValueError(f"{name} contains {kind}; pixels must be finite numbers")
    if low < 0:
        raise ValueError(
            f"Negative values in data passed to the estimator: {name} has the range "
            f"[{low:g}, {high:g}], and pixels must lie in [0, 1] or [0, 255]. Scale them, and "
            "leave out any normalisation: the network has its own."
        )
    if high > 255:
        raise ValueError(
            f"{name} has the range [{low:g}, {high:g}], but numbers other than uint8 and uint16 "
            "must lie in [0, 1] or [0, 255]. Divide by the value of full brightness."
        )
    return next(scale for scale in scales if high <= scale)


def settle_scale(scale, is_float, fitted):
    """Settle full brightness for numbers whose dtype does not, as in `fit`.

    Parameters
    ----------
    scale : int
        What the values themselves suggest, see `full_scale`.
    is_float : bool
    fitted : ImageFormat or None
        None in `fit` itself.
    """
    usual = 1 if is_float else 255
    if fitted is None:
        if scale != usual:
            _warn(scale)
        return scale
    if fitted.scale is None:  # fit saw files or 8 bits: nothing that 16 could come from
        if is_float and scale > 1:
            usual = 255
            _warn(usual)
        return usual
    message = (
        f"X has values in [0, {scale}], but the estimator was fitted on pixels in "
        f"[0, {fitted.scale:g}]. Scale X like the data given to fit."
    )
    if scale > fitted.scale:
        raise ValueError(message)
    if is_float and scale == 1 < fitted.scale:
        warnings.warn(f"{message} As it is, the images are nearly black.", stacklevel=2)
    return fitted.scale


def _warn(scale):
    warnings.warn(
        f"Pixels are taken to lie in [0, {scale}] and are divided by {scale}. Divide them "
        "yourself, or pass uint8, to be sure.",
        stacklevel=2,
    )
