"""LevelWatch: white levels of images that can be measured only while they are decoded."""

from dataclasses import replace

import numpy as np

from sklearn_rrr._warnings import warn
from sklearn_rrr.images.brightness import (
    DIGITS,
    WhiteLevels,
    find_span,
    to_unit,
    white_level,
)
from sklearn_rrr.images.white_levels import settle_levels


class LevelWatch:
    """Scale images while they are decoded, and check the white levels after the last one.

    Items of a Dataset and 8-bit files are not measured before they are decoded.

    Parameters
    ----------
    n_images : int
    fmt : WhiteLevels or ImageFormat
        Levels by which images are divided.
    fitted : WhiteLevels, ImageFormat or None
        Levels found in `fit`; None during `fit`.
    notes : list of str
        Warnings that were already issued.
    is_lazy : bool
        Whether the images are items of a Dataset.
    """

    def __init__(self, n_images, fmt, fitted=None, notes=(), is_lazy=False):
        self.unseen, self.is_done = np.ones(n_images, bool), False
        self.levels = WhiteLevels(fmt.scale, fmt.deep_scale, fmt.byte_scale)
        self.fitted, self.notes, self.is_lazy = fitted, notes, is_lazy
        self.found, self.is_bright = [], False
        self.spans = {}  # the brightest of each kind and white level

    def select(self, n_images):
        """Return the watch of a selection of images, of which `n_images` are to be decoded."""
        if not self.unseen.any():
            return self
        return LevelWatch(n_images, self.levels, self.fitted, self.notes, self.is_lazy)

    def to_unit(self, pixels, is_deep=False):
        """Divide the pixels of one image by their white level.

        Raises
        ------
        ValueError
            If the pixels have no white level.
        """
        if pixels.dtype == np.uint8 and (self.is_done or self.is_bright):
            return to_unit(pixels, self.levels)
        span = find_span(pixels, "it", is_deep)
        if span is None or self.is_done:
            return to_unit(pixels, self.levels, is_deep)
        if self.is_lazy and self.levels.scale is None and span.kind == "float" and span.high > 1:
            self.levels = replace(self.levels, scale=255)  # for the dark images that follow
        self.is_bright |= span.kind == "uint8" and span.high > DIGITS
        self.found.append((span, white_level(span, self.levels)))  # by several threads
        return to_unit(pixels, self.levels, is_deep)

    def see(self, indices):
        """Note which images were decoded."""
        if self.is_done:
            return
        self.unseen[indices] = False
        for span, white in self.found:
            other = self.spans.get((span.kind, white), span)
            high, is_whole = max(span.high, other.high), span.is_whole and other.is_whole
            self.spans[span.kind, white] = replace(span, high=high, is_whole=is_whole)
        self.found = []

    def check(self):
        """Once all images were decoded, warn of assumptions on their white levels.

        Raises
        ------
        ValueError
            If all images together have another white level than the one used before it was known.
        """
        if self.is_done or self.unseen.any():
            return
        self.is_done = True
        levels, notes = settle_levels(self.spans.values(), self.fitted)
        for (kind, white), span in self.spans.items():
            settled = white_level(span, levels)
            if self.is_lazy and span.high > 0 and settled != white:
                raise ValueError(
                    f"Some images of the Dataset are of the kind {kind!r} and were divided by "
                    f"{white:g}, but by all images together, their white level is {settled:g}. "
                    "Return uint8, or floats in [0, 1], for every image."
                )
        for note in notes:
            if note not in self.notes:
                warn(note)
