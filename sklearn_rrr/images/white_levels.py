"""Resolve the white levels of all images of one call, by the largest value of each kind."""

from sklearn_rrr.images.brightness import DEEP, DIGITS, USUAL, WhiteLevels


def settle_levels(spans, fitted=None):
    """Return the WhiteLevels of all images of a call, given their Spans, and warnings.

    Parameters
    ----------
    spans : iterable of Span
    fitted : WhiteLevels or None, default=None
        The levels found in `fit`; None during `fit`.

    Returns
    -------
    levels : WhiteLevels
    notes : list of str
        Assumptions that the user should know.

    Raises
    ------
    ValueError
        If the white level is ambiguous, or the pixels are brighter than those in `fit`.
    """
    spans, highs, notes = list(spans), {}, []
    for span in spans:
        highs[span.kind] = max(span.high, highs.get(span.kind, 0))
    is_fit, known = fitted is None, USUAL if fitted is None else fitted
    scale, deep_scale, byte_scale = known.scale, known.deep_scale, None
    if plain := [span for span in spans if span.kind in ("integer", "float")]:
        scale = _settle_plain(plain, scale, is_fit, notes)
    elif is_fit and set(highs) == {"bool"}:
        scale = 1
    if "16 bits" in highs:
        deep_scale = _settle_deep(highs["16 bits"], deep_scale, is_fit, notes)
    if "uint8" in highs:
        byte_scale = _settle_bytes(highs["uint8"], known.scale, is_fit, notes)
    return WhiteLevels(scale, deep_scale, byte_scale), notes


def _settle_plain(spans, scale, is_fit, notes):
    if len({span.kind for span in spans}) > 1 and scale is None:
        raise ValueError(
            "Some images of X are floats and some are integers, so their scales may differ. "
            "Convert them all to uint8 or to floats in [0, 1]."
        )
    high, is_float = max(s.high for s in spans), any(s.kind == "float" for s in spans)
    if is_fit:
        return _settle(high, is_float, all(s.is_whole for s in spans), notes)
    return _follow(high, is_float, scale, notes)


def _settle(high, is_float, is_whole, notes):
    """Return the white level in `fit`; note it unless it is the usual one."""
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
        notes.append(_note_scale(scale))
    return scale


def _follow(high, is_float, scale, notes):
    """Return the white level in `predict`; `scale` is that of `fit`, or None."""
    if scale is None:  # fit saw only files or 8 bits, so 16 is not a white level
        if is_float and high > 1:
            notes.append(_note_scale(255))
        return 1 if is_float and high <= 1 else 255
    message = (
        f"X has values up to {high:g}, but the estimator was fitted on pixels in [0, {scale:g}]. "
        "Scale X like the data passed to fit."
    )
    if high > scale:
        raise ValueError(message)
    if is_float and high <= 1 < scale:
        notes.append(f"{message} Unscaled, the images are nearly black.")
    return scale


def _settle_deep(high, scale, is_fit, notes):
    if scale is None and is_fit:
        scale = next(level for level in DEEP if high <= level)
        notes.append(_note_depth(scale, "by their largest value"))
    elif scale is None:
        scale = DEEP[-1]  # not by the images of one call
        notes.append(_note_depth(scale, "fit saw none of them"))
    if high > scale:
        raise ValueError(
            f"X has 16-bit pixels up to {high:g}, but the estimator was fitted on pixels in "
            f"[0, {scale:g}]. Divide both by their white level."
        )
    return scale


def _settle_bytes(high, scale, is_fit, notes):
    """Return the white level of uint8, or None if it is 255; `scale` is that of other numbers."""
    if is_fit:
        if 0 < high <= DIGITS:
            notes.append(
                f"The uint8 pixels of X have values up to {high} only, but their white level is "
                "255, so the images are nearly black. Divide X by its own white level."
            )
        return None
    byte_scale = follow_bytes(high, scale)
    if byte_scale is not None:
        notes.append(
            f"The uint8 pixels of X have values up to {high} only. They are divided by "
            f"{byte_scale:g}, as the pixels passed to fit were, and not by 255. Pass floats in "
            "[0, 1] to avoid this assumption."
        )
    return byte_scale


def follow_bytes(high, scale):
    """Return the white level of uint8 in `predict` if it is that of other numbers in `fit`."""
    return scale if scale in (1, DIGITS) and 0 < high <= scale else None


def _note_depth(scale, reason):
    return (
        f"16-bit pixels are divided by {scale}, {reason}; if their white level is another one, "
        "divide them yourself."
    )


def _note_scale(scale):
    return (
        f"Pixels are assumed to lie in [0, {scale}] and are divided by {scale}. Pass floats in "
        "[0, 1] or uint8 to avoid this assumption."
    )
