"""Base class of galleries, displays with one panel per picture."""

import math

import numpy as np
from sklearn.utils import check_array

from sklearn_rrr.images.forms import sort_input
from sklearn_rrr.images.sources import make_source
from sklearn_rrr.plotting.display import import_pyplot

MOST_PANELS = 200
PANEL = 1.9  # width of a panel in inches
TITLE = 0.15  # height of a line of its title in inches
GAP = 0.2  # height of the space around a title in inches
LONGEST = 20  # characters of a label in a title


class GridDisplay:
    """Base class: ``plot`` opens one Axes per panel, and a subclass draws in ``_draw``.

    A subclass implements ``_count()``, and overrides `_title_lines`, the number of lines of a
    title, `_n_columns`, the number of panels in a row of a new figure, and `_margin`, the width of
    what stands beside them, in inches.
    """

    _title_lines, _margin = 2, 0
    _n_columns = 6

    def plot(self, axes=None, **kwargs):
        """Draw the panels.

        Parameters
        ----------
        axes : array-like of matplotlib.axes.Axes or None, default=None
            At least as many Axes as there are panels, used row by row; None opens a figure. The
            remaining ones are hidden.
        **kwargs : dict
            Arguments for ``Axes.imshow``.

        Returns
        -------
        self : object
            The display, with `axes_` and `figure_`.
        """
        n_panels = self._count()
        size = PANEL, PANEL + TITLE * self._title_lines + GAP
        every = _open_grid(axes, n_panels, self._n_columns, size, self._margin)
        for ax in every:
            ax.set_axis_off()
        self.axes_, self.figure_ = every[:n_panels], every[0].figure
        self._draw(self.axes_, kwargs)
        return self


def _open_grid(axes, n_panels, n_columns, size, margin):
    """Return `axes` as an array of shape (n,), or the axes of a new figure if it is None."""
    plt = import_pyplot()
    n_columns = min(n_columns, n_panels)
    n_rows = math.ceil(n_panels / n_columns)
    if axes is None:
        whole = size[0] * n_columns + margin, size[1] * n_rows
        figure = plt.figure(figsize=whole, layout="constrained")
        return figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    axes = np.array(axes, dtype=object).ravel()
    cure = f"Use plt.subplots({n_rows}, {n_columns})[1]."
    if other := {type(ax).__name__ for ax in axes if not isinstance(ax, plt.Axes)}:
        raise TypeError(f"`axes` must be matplotlib Axes; got {', '.join(sorted(other))}. {cure}")
    if len(axes) < n_panels:
        raise ValueError(
            f"`axes` must be at least {n_panels} Axes, one per panel; got {len(axes)}. {cure}"
        )
    return axes


def check_panels(name, n_panels):
    """Raise a ValueError if a figure would have too many panels."""
    if n_panels > MOST_PANELS:
        raise ValueError(
            f"`{name}` must be few enough for a figure of at most {MOST_PANELS} panels; got "
            f"{n_panels} panels. Pass a part of the images, such as X[:6]."
        )


def open_images(X):
    """Return a source of images, as ``ReadingMixin._read`` does for a classifier."""
    kind, X = sort_input(X)
    return make_source(kind, check_array(X) if kind == "rows" else X)


def load_pictures(source, indices, size):
    """Return some images of a source for ``Axes.imshow``: (n, S, S, 3), uint8 or [0, 1]."""
    return source.load(np.asarray(indices), size).movedim(1, 3).numpy()


def show_picture(ax, picture, title="", **kwargs):
    """Draw a picture; the pixels of a small one stay visible."""
    ax.set_title(title, fontsize="small")
    return ax.imshow(picture, **{"interpolation": "nearest"} | kwargs)


def shorten(label):
    """Return a label as text that is short enough for the title of a panel."""
    text = str(label)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
