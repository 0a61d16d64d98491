"""What every display shares: its axes, and checks of what it is given."""

import numpy as np
from sklearn.utils.validation import check_is_fitted


class Display:
    """Open the axes, and leave the drawing to the child's ``_draw``."""

    _projection = "rectilinear"

    def plot(self, ax=None, **kwargs):
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Where to draw; None opens a figure.
        **kwargs : dict
            Passed to the method of matplotlib that draws the data, named with the class.

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
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("Drawing needs matplotlib: pip install 'sklearn_rrr[plot]'") from error
    return plt


def _open_axes(ax, projection):
    """Return the axes given, if they are of this projection, or those of a new figure."""
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


def get_fitted(name, estimator, attribute, kind):
    """Return an attribute that only a fitted estimator of this kind has."""
    check_is_fitted(estimator)
    if not hasattr(estimator, attribute):
        raise TypeError(
            f"`{name}` must be {kind} with `{attribute}`; got a {type(estimator).__name__}. Of a "
            "search pass best_estimator_, of a BlockSelector estimator_, of a pipeline its last "
            "step."
        )
    return getattr(estimator, attribute)


def predict_with(method, estimator, X):
    """Return what a method of a fitted classifier predicts."""
    import_pyplot()  # before minutes of predicting
    return get_fitted("estimator", estimator, method, "a classifier")(X)


def check_probabilities(probabilities, n_dims):
    """Return probabilities as floats (n, M, K), or (n, K) where that is allowed, too."""
    values = np.asarray(probabilities, dtype=float)
    if values.ndim not in n_dims or not values.size:
        shapes = " or ".join({2: "(n, K)", 3: "(n, M, K)"}[n] for n in n_dims)
        raise ValueError(
            f"`probabilities` must have the shape {shapes}; got {values.shape}. Pass what "
            "predict_branches returns."
        )
    sums = values.sum(-1)
    if not (values.min() >= 0 and np.allclose(sums, 1, atol=1e-3)):
        raise ValueError(
            "`probabilities` must be at least 0 and sum to 1 over the last axis; got a smallest "
            f"of {values.min():g} and sums in [{sums.min():g}, {sums.max():g}]. Apply a softmax "
            "to logits."
        )
    return values


def check_columns(name, table, columns):
    if missing := [column for column in columns if column not in table]:
        raise ValueError(
            f"`{name}` must have the columns {list(columns)}; {missing} are not among its "
            f"{list(table)}."
        )


def abbreviate(value):
    """Write 2100000 as 2.1 M."""
    for size, unit in [(1e9, " G"), (1e6, " M"), (1e3, " k")]:
        if value >= 0.9995 * size:  # 999999 is 1 M
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
