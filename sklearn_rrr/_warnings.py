"""Warnings that show the user's line, not one of this package."""

import contextlib
import os
import sys
import warnings

INSIDE = (os.path.dirname(__file__) + os.sep, contextlib.__file__)


def warn(message, category=UserWarning):
    """Issue a warning at the line that called this package, however deep the call is."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
