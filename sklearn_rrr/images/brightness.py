"""White level of pixels, the value of full brightness: 1, 16, 255 or 65535."""

import warnings

import numpy as np

FULL_SCALES = (1, 16, 255)  # unit floats, scikit-learn's digits, 8 bits


def dtype_scale(dtype):
    """Return the white level of bool (1), uint8 (255) or uint16 (65535); else None."""
    return {"b1": 1, "u1": 255, "u2": 65535}.get(dtype.str[1:])


def full_scale(values, name="X", scales=FULL_SCALES):
    """Return the white level of an array.

    It is the white level of the dtype, see `dtype_scale`, or else the smallest of `scales`
    that no value exceeds: 1, 16 (as in `sklearn.datasets.load_digits`) or 255.

    Raises
    ------
    ValueError
        If values are negative, above 255, NaN or infinite.
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
            f"[{low:g}, {high:g}], but pixels must lie in [0, 1] or [0, 255]. Scale them, but do "
            "not normalise them: the network does."
        )
    if high > 255:
        raise ValueError(
            f"{name} has the range [{low:g}, {high:g}], but pixels other than uint8 and uint16 "
            "must lie in [0, 1] or [0, 255]. Divide them by their white level."
        )
    return next(scale for scale in scales if high <= scale)


def settle_scale(scale, is_float, fitted):
    """Resolve the white level of pixels whose dtype does not define it.

    Parameters
    ----------
    scale : int
        White level inferred from the values, see `full_scale`.
    is_float : bool
        Whether the pixels are floats.
    fitted : ImageFormat or None
        The format seen in `fit`; None during `fit`.
    """
    usual = 1 if is_float else 255
    if fitted is None:
        if scale != usual:
            _warn(scale)
        return scale
    if fitted.scale is None:  # fit saw only files or 8 bits, so 16 is not a white level
        if is_float and scale > 1:
            usual = 255
            _warn(usual)
        return usual
    message = (
        f"X has values in [0, {scale}], but the estimator was fitted on pixels in "
        f"[0, {fitted.scale:g}]. Scale X like the data passed to fit."
    )
    if scale > fitted.scale:
        raise ValueError(message)
    if is_float and scale == 1 < fitted.scale:
        warnings.warn(f"{message} Unscaled, the images are nearly black.", stacklevel=2)
    return fitted.scale


def _warn(scale):
    warnings.warn(
        f"Pixels are assumed to lie in [0, {scale}] and are divided by {scale}. Pass floats in "
        "[0, 1] or uint8 to avoid this assumption.",
        stacklevel=2,
    )
