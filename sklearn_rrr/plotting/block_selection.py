"""The networks of a search for blocks."""

import numpy as np

from sklearn_rrr._validation import check_choice
from sklearn_rrr.plotting.display import Display, abbreviate, check_columns, get_fitted

# What the networks of a search are shown against.
SEARCH_AXES = {
    "blocks": "blocks in conv2_x to conv5_x",
    "epochs": "epochs since the start",
    "parameters": "parameters",
    "macs": "multiply-adds",
    "latency_ms": "latency of one image in ms",
}
MOST_LABELS = 12  # names of networks that stay readable below an axis


class BlockSelectionDisplay(Display):
    """Draw the scores of the networks that a search for blocks has tried.

    Parameters
    ----------
    results : pandas.DataFrame
        `results_` of a :class:`BlockSelector`.
    blocks : tuple of 4 int or None, default=None
        The network to mark as chosen.
    x : {"blocks", "epochs", "parameters", "macs", "latency_ms"}, default="blocks"
        What the scores are drawn against.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn, by ``Axes.errorbar``.
    scores_ : matplotlib ErrorbarContainer
        Scores in the order of the search, with their deviation over folds where there is one.
    chosen_, control_ : matplotlib Line2D or None
        The mark of the network chosen, and the last score of (1, 1, 1, 1) trained as long.

    See Also
    --------
    BlockSelector : The search.

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
        """Draw the search of a fitted selector.

        Parameters
        ----------
        selector : BlockSelector
            Fitted.
        x : {"blocks", "epochs", "parameters", "macs", "latency_ms"}, default="blocks"
            What the scores are drawn against.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : BlockSelectionDisplay
            Drawn.
        """
        results = get_fitted("selector", selector, "results_", "a BlockSelector")
        return cls.from_results(results, selector.blocks_, x=x, ax=ax, **kwargs)

    @classmethod
    def from_results(cls, results, blocks=None, *, x="blocks", ax=None, **kwargs):
        """Draw a table of the networks tried.

        Parameters
        ----------
        results : pandas.DataFrame
            Columns blocks, score, score_std, control and that of `x`.
        blocks : tuple of 4 int or None, default=None
            The network to mark as chosen.
        x : {"blocks", "epochs", "parameters", "macs", "latency_ms"}, default="blocks"
            What the scores are drawn against.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : BlockSelectionDisplay
            Drawn.
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
