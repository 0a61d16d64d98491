"""Costs of networks as a radar chart."""

import re

import numpy as np

from sklearn_rrr.networks.costs import cost_report
from sklearn_rrr.plotting.display import Display, abbreviate, check_columns, import_pyplot


class CostRadarDisplay(Display):
    """Plot the costs of networks relative to the largest; smaller is better.

    Parameters
    ----------
    shares : pandas.DataFrame
        Costs relative to the largest, in [0, 1]: a row per network, a column per axis.
    largest : pandas.Series
        Largest cost of each axis, drawn at 1.

    Attributes
    ----------
    ax_, figure_ : matplotlib PolarAxes and Figure
        Axes with the polygons, drawn by ``Axes.plot``, and their figure.

    See Also
    --------
    cost_report : Measure parameters, multiply-adds and latency.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_rrr.plotting import CostRadarDisplay
    >>> report = pd.DataFrame(
    ...     {"n_parameters": [2e6, 1e6], "macs": [4e8, 1e8], "latency_1_ms": [8.0, 4.0]},
    ...     index=["whole", "reduced"],
    ... )
    >>> display = CostRadarDisplay.from_report(report)
    >>> display.shares.loc["reduced"].tolist()
    [0.5, 0.25, 0.5]
    """

    _projection = "polar"

    def __init__(self, shares, largest):
        self.shares = shares
        self.largest = largest

    @classmethod
    def from_estimators(cls, estimators, *, errors=None, repeats=30, ax=None, **kwargs):
        """Measure fitted classifiers with :func:`cost_report` and plot their costs.

        Parameters
        ----------
        estimators : dict
            {name: fitted image classifier, or a pipeline, search, pruner or selector of one}.
        errors : dict or None, default=None
            {name: error of the network}, drawn on an additional axis.
        repeats : int, default=30
            Timed passes, see :func:`measure_latency`.
        ax, **kwargs : optional
            See :meth:`plot`; `ax` must be polar.

        Returns
        -------
        display : CostRadarDisplay
            The display, drawn.
        """
        import_pyplot()  # before minutes of measuring
        if not isinstance(estimators, dict):
            raise TypeError(
                "`estimators` must be a dict from names to fitted classifiers; got a "
                f'{type(estimators).__name__}. Use for example {{"8 branches": clf}}.'
            )
        report = cost_report(estimators, repeats=repeats)
        return cls.from_report(report, errors=errors, ax=ax, **kwargs)

    @classmethod
    def from_report(cls, report, *, columns=None, errors=None, ax=None, **kwargs):
        """Plot a table of costs.

        Parameters
        ----------
        report : pandas.DataFrame
            A row per network, as returned by :func:`cost_report`.
        columns : list of str or None, default=None
            Columns to draw, at least three including the error; None means parameters,
            multiply-adds and median latencies.
        errors : dict or None, default=None
            {name of a row: error of the network}, drawn on an additional axis.
        ax, **kwargs : optional
            See :meth:`plot`; `ax` must be polar.

        Returns
        -------
        display : CostRadarDisplay
            The display, drawn.
        """
        if columns is None:
            columns = [c for c in report if re.fullmatch(r"n_parameters|macs|latency_\d+_ms", c)]
        check_columns("report", report, columns)
        costs = report[list(columns)].astype(float)
        if errors is not None:
            if not isinstance(errors, dict) or errors.keys() != set(costs.index):
                raise ValueError(
                    f"`errors` must be a dict with the names {list(costs.index)}; got {errors!r}."
                )
            costs.insert(0, "error", [float(errors[name]) for name in costs.index])
        if costs.empty or not ((costs >= 0) & (costs < np.inf)).all(axis=None):
            raise ValueError(
                "`report` and `errors` must have a row or more of numbers in [0, inf); got "
                f"{costs.to_dict('index')}. Leave out what was not measured."
            )
        if costs.shape[1] < 3:
            raise ValueError(
                f"`columns` and `errors` must give three axes or more; got {list(costs)}. "
                "Name more columns."
            )
        largest = costs.max()
        return cls(costs / largest.where(largest > 0, 1), largest).plot(ax, **kwargs)

    def _draw(self, ax, kwargs):
        angles = np.linspace(0, 2 * np.pi, self.shares.shape[1] + 1)  # closed polygons
        ax.set_theta_zero_location("N")
        ax.set_theta_direction(-1)
        for name, row in self.shares.iterrows():
            values = [*row, row.iloc[0]]
            (line,) = ax.plot(angles, values, "o-", **{"label": name} | kwargs)
            ax.fill(angles, values, color=line.get_color(), alpha=0.1)
        ax.set_xticks(angles[:-1], [_cost_label(*item) for item in self.largest.items()])
        ax.tick_params(axis="x", pad=-2)
        for label, angle in zip(ax.get_xticklabels(), angles, strict=False):  # off the circle
            label.set_ha(("center", "left", "right")[round(np.sign(np.sin(angle).round(2)))])
            label.set_va(("center", "bottom", "top")[round(np.sign(np.cos(angle).round(2)))])
        ax.set_rlim(0, 1.05)
        ax.set_yticks([0.25, 0.5, 0.75, 1], ["", "0.5", "", "1"])
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22))


def _cost_label(column, largest):
    """Return the label of an axis, with the largest cost."""
    value = abbreviate(largest)
    if match := re.fullmatch(r"latency_(\d+)_ms", column):
        images = "1 image" if match[1] == "1" else f"{match[1]} images"
        return f"latency of\n{images}\n{value} ms"
    name = {"n_parameters": "parameters", "macs": "multiply-adds"}.get(column, column)
    return f"{name}\n{value}"
