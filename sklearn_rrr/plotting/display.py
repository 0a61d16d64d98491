"""Base class of the displays, and checks that they share."""

import numpy as np

from sklearn_rrr._unwrapping import preprocess, unwrap
from sklearn_rrr.images.labels import encode_labels


class Display:
    """Base class: ``plot`` opens the axes, and a subclass draws in ``_draw``."""

    _projection = "rectilinear"

    def plot(self, ax=None, **kwargs):
        """Draw the data.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Axes to draw in; None opens a figure.
        **kwargs : dict
            Arguments for the matplotlib method that draws the data; the documentation of `ax_`
            names it.

        Returns
        -------
        self : object
            The display, with `ax_` and `figure_`.
        """
        self.ax_ = _open_axes(ax, self._projection)
        self.figure_ = self.ax_.figure
        self._draw(self.ax_, kwargs)
        return self


def import_pyplot():
    """Return matplotlib.pyplot, or raise an ImportError with the cure."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib: pip install 'sklearn_rrr[plot]'") from error
    return plt


def _open_axes(ax, projection):
    """Return `ax` if it has the projection, or the axes of a new figure if it is None."""
    plt = import_pyplot()
    polar = "" if projection == "rectilinear" else f'subplot_kw={{"projection": "{projection}"}}'
    cure = f"plt.subplots({polar})[1]"
    if ax is None:
        return plt.subplots(subplot_kw={"projection": projection}, layout="constrained")[1]
    if not isinstance(ax, plt.Axes):
        raise TypeError(f"`ax` must be one matplotlib Axes; got a {type(ax).__name__}. Use {cure}.")
    if ax.name != projection:
        raise ValueError(f"`ax` must be {projection} axes; got {ax.name} ones. Use {cure}.")
    return ax


def predict_with(method, estimator, X):
    """Return the predictions of a fitted classifier, after the preprocessing around it."""
    import_pyplot()  # before minutes of predicting
    kind = f"a fitted classifier with `{method}`, or a pipeline or search of one"
    classifier, steps = unwrap(estimator, method, kind=kind)
    return getattr(classifier, method)(preprocess(steps, X))


def check_probabilities(probabilities, n_dims):
    """Return probabilities as floats (n, M, K), or (n, K) if `n_dims` contains 2."""
    values = np.asarray(probabilities, dtype=float)
    if values.ndim not in n_dims or not values.size:
        shapes = " or ".join({2: "(n, K)", 3: "(n, M, K)"}[n] for n in n_dims)
        raise ValueError(
            f"`probabilities` must have the shape {shapes}; got {values.shape}. Pass the "
            "result of predict_branches."
        )
    sums = values.sum(-1)
    if not (values.min() >= 0 and np.allclose(sums, 1, atol=1e-3)):
        raise ValueError(
            "`probabilities` must be at least 0 and sum to 1 over the last axis; got a smallest "
            f"of {values.min():g} and sums in [{sums.min():g}, {sums.max():g}]. Apply a softmax "
            "to logits."
        )
    return values


def check_labels(y_true, probabilities, classes):
    """Return the label of each image and the label of each column."""
    known, labels = encode_labels(y_true, classes)
    if len(labels) != len(probabilities):
        raise ValueError(
            "`y_true` must have one label per image of `probabilities`; got "
            f"{len(labels)} labels of {len(probabilities)} images."
        )
    if len(known) != probabilities.shape[-1]:
        raise ValueError(
            f"`classes` must name the {probabilities.shape[-1]} columns of `probabilities`; "
            f"got {known.tolist()}. Pass for example classes=clf.classes_."
        )
    return known[labels], known if classes is None else np.asarray(classes)


def check_columns(name, table, columns):
    """Raise a ValueError if a table lacks some columns."""
    if missing := [column for column in columns if column not in table]:
        raise ValueError(
            f"`{name}` must have the columns {list(columns)}; {missing} are not among its "
            f"{list(table)}."
        )


def abbreviate(value):
    """Format a number with a unit: 2100000 as 2.1 M."""
    for size, unit in [(1e9, " G"), (1e6, " M"), (1e3, " k")]:
        if value >= 0.9995 * size:  # 999999 is 1 M
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
