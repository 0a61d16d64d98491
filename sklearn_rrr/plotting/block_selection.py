"""Scores of the networks tried by a BlockSelector."""

import numpy as np

from sklearn_rrr._unwrapping import unwrap
from sklearn_rrr._validation import check_choice
from sklearn_rrr.plotting.display import Display, abbreviate, check_columns

# Columns for the horizontal axis, and its labels.
SEARCH_AXES = {
    "blocks": "blocks in conv2_x to conv5_x",
    "epochs": "epochs since the start",
    "parameters": "parameters",
    "macs": "multiply-adds",
    "latency_ms": "latency of one image in ms",
}
MOST_LABELS = 12  # largest number of readable tick labels


class BlockSelectionDisplay(Display):
    """Plot the scores of the networks tried by a :class:`BlockSelector`.

    Parameters
    ----------
    results : pandas.DataFrame
        `results_` of a :class:`BlockSelector`.
    blocks : tuple of 4 int or None, default=None
        Blocks of the network to mark as chosen.
    x : {"blocks", "epochs", "parameters", "macs", "latency_ms"}, default="blocks"
        Quantity on the horizontal axis.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Axes with the scores, drawn by ``Axes.errorbar``, and their figure.
    scores_ : matplotlib ErrorbarContainer
        Scores in the order of the search, with their standard deviation over folds, if any.
    chosen_, control_ : matplotlib Line2D or None
        Mark of the chosen network, and the last score of the control.

    See Also
    --------
    BlockSelector : Search for the number of blocks.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklearn_rrr.plotting import BlockSelectionDisplay
    >>> blocks = [(1, 1, 1, 1), (2, 1, 1, 1), (2, 2, 1, 1)]
    >>> results = pd.DataFrame(
    ...     {"blocks": blocks, "score": [0.8, 0.9, 0.9], "score_std": 0.0, "control": False}
    ... )
    >>> display = BlockSelectionDisplay.from_results(results, blocks=(2, 1, 1, 1))
    >>> display.chosen_.get_ydata().tolist()
    [0.9]
    """

    def __init__(self, results, blocks=None, *, x="blocks"):
        self.results = results
        self.blocks = blocks
        self.x = x

    @classmethod
    def from_estimator(cls, selector, *, x="blocks", ax=None, **kwargs):
        """Plot the search of a fitted selector.

        Parameters
        ----------
        selector : BlockSelector
            Fitted; or a pipeline, search or FrozenEstimator of one.
        x : {"blocks", "epochs", "parameters", "macs", "latency_ms"}, default="blocks"
            Quantity on the horizontal axis.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : BlockSelectionDisplay
            The display, drawn.
        """
        kind = "a BlockSelector that is fitted, or a pipeline or search of one"
        selector, _ = unwrap(selector, "results_", "blocks_", name="selector", kind=kind)
        return cls.from_results(selector.results_, selector.blocks_, x=x, ax=ax, **kwargs)

    @classmethod
    def from_results(cls, results, blocks=None, *, x="blocks", ax=None, **kwargs):
        """Plot a table of the networks tried.

        Parameters
        ----------
        results : pandas.DataFrame
            Table with the columns blocks, score, score_std, control and, if not blocks, `x`.
        blocks : tuple of 4 int or None, default=None
            Blocks of the network to mark as chosen.
        x : {"blocks", "epochs", "parameters", "macs", "latency_ms"}, default="blocks"
            Quantity on the horizontal axis.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : BlockSelectionDisplay
            The display, drawn.
        """
        check_choice("x", x, tuple(SEARCH_AXES))
        columns = dict.fromkeys(["blocks", "score", "score_std", "control", x])
        check_columns("results", results, list(columns))
        tried = [*map(tuple, results["blocks"][~results["control"]])]
        if blocks is not None:
            check_choice("blocks", tuple(blocks), tried, "None marks no network.")
        return cls(results, blocks, x=x).plot(ax, **kwargs)

    def _draw(self, ax, kwargs):
        control = self.results[self.results["control"]]
        steps = self.results[~self.results["control"]]
        names = [", ".join(map(str, blocks)) for blocks in steps["blocks"]]
        sizes = [sum(blocks) for blocks in steps["blocks"]]
        x = np.array(sizes if self.x == "blocks" else steps[self.x])
        y, deviation = steps["score"].to_numpy(), steps["score_std"].fillna(0).to_numpy()
        bars = np.where(deviation > 0, deviation, np.nan) if deviation.any() else None
        style = {"fmt": "o-", "capsize": 3, "label": "networks tried"}
        self.scores_ = ax.errorbar(x, y, bars, **style | kwargs)
        self.chosen_ = self.control_ = None
        if self.blocks is not None:
            i = [*map(tuple, steps["blocks"])].index(tuple(self.blocks))
            mark = {"markersize": 16, "zorder": 3, "label": f"chosen: {names[i]}"}
            (self.chosen_,) = ax.plot(x[i : i + 1], y[i : i + 1], "*", color="C1", **mark)
        if len(control):
            score, label = control["score"].iloc[-1], "1, 1, 1, 1 trained as long"
            self.control_ = ax.axhline(score, color="gray", linestyle="--", label=label)
        if self.x == "blocks":
            every = -(-len(x) // MOST_LABELS)
            ax.set_xticks(x[::every], names[::every], rotation=45, ha="right")
        elif self.x in ("parameters", "macs"):
            ax.xaxis.set_major_formatter(lambda value, position: abbreviate(value))
        ax.set(xlabel=SEARCH_AXES[self.x], ylabel="score")
        ax.legend()
