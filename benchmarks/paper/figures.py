"""Draw the figures of the paper from the rows of the experiments."""

import re

import matplotlib
import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage

from benchmarks.paper.statistics import (
    branch_errors,
    by_condition,
    complete,
    half_widths,
    mean_errors,
)
from sklearn_rrr.plotting import CostRadarDisplay

matplotlib.use("agg")
from matplotlib import pyplot

LABELS = {
    "A": "[A] last layer",
    "B": "[B] all layers",
    "C": "[C] reduced, unsplit",
    "D": "[D] with dropout",
    "E": "[E] RRR-Net",
}


def draw_all(rows, costs, folder):
    """Draw every figure for which there are enough rows, and save it in the folder."""
    for title, part in by_condition(rows):
        name = re.sub(r"\W+", "_", title)
        paired = complete(part)
        if len(paired):
            draw_errors(paired, title, folder / f"errors_{name}.png")
            draw_gaps(paired, title, folder / f"gaps_{name}.png")
            draw_spider(paired, costs, title, folder / f"spider_{name}.png")
        branches = branch_errors(part)
        if len(branches) > 1:
            draw_branches(branches, title, folder / f"branches_{name}.png")


def draw_errors(rows, title, path):
    """Draw the error and interval of each set and model, and box plots over sets."""
    errors, half = mean_errors(rows), half_widths(rows).fillna(0)
    order = errors.mean(axis=1).sort_values().index
    width = 0.15
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(14, 5), width_ratios=(3, 1), sharey=True, layout="constrained"
    )
    for i, model in enumerate(errors):
        at = np.arange(len(order)) + (i - errors.shape[1] / 2 + 0.5) * width
        spread = half.loc[order, model]
        left.errorbar(at, errors.loc[order, model], spread, fmt="o", ms=4, label=LABELS[model])
    left.set_xticks(range(len(order)), order, rotation=60, ha="right")
    left.set(ylabel="test error", ylim=(0, 1), title=f"{title}: mean and 95 % interval")
    left.grid(axis="y", alpha=0.3)
    left.legend()
    right.boxplot(errors.to_numpy(), tick_labels=list(errors), showmeans=True)
    right.set_title("over sets (triangle: mean)")
    right.grid(axis="y", alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_gaps(rows, title, path):
    """Draw a heatmap of the gap to the best model of each set, with sets clustered by gap."""
    errors = mean_errors(rows)
    gaps = 100 * errors.sub(errors.min(axis=1), axis=0)
    if len(gaps) > 2:
        gaps = gaps.iloc[leaves_list(linkage(gaps, "average"))]
    figure, ax = pyplot.subplots(figsize=(6, 0.35 * len(gaps) + 1.5), layout="constrained")
    image = ax.imshow(gaps, cmap="magma_r", aspect="auto")
    middle = gaps.to_numpy().max() / 2
    for (i, j), gap in np.ndenumerate(gaps.to_numpy()):
        ax.text(j, i, f"{gap:.1f}", ha="center", va="center", color="wk"[int(gap <= middle)])
    ax.set_xticks(range(gaps.shape[1]), [LABELS[m] for m in gaps], rotation=30, ha="right")
    ax.set_yticks(range(len(gaps)), gaps.index)
    ax.set_title(f"{title}:\ngap to the best, points of error", fontsize=10)
    figure.colorbar(image)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_spider(rows, costs, title, path):
    """Draw error, parameters, multiply-adds and latency, each relative to its maximum."""
    errors = mean_errors(rows).mean()
    costs = costs.set_index("models")
    report = {LABELS[m]: next(costs.loc[k] for k in costs.index if m in k) for m in errors.index}
    columns = ["n_parameters", "macs", "latency_1_ms", "latency_32_ms"]
    columns += [name for name in costs if name == "gpu_latency_1_ms"]
    display = CostRadarDisplay.from_report(
        pd.DataFrame(report).T, columns=columns, errors=errors.rename(LABELS).to_dict()
    )
    display.ax_.set_title(f"{title}: shares of the largest", fontsize=10)
    figure = display.figure_
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_branches(errors, title, path):
    """Draw the error against the number of branches, as in Figure 5."""
    figure, ax = pyplot.subplots(figsize=(6, 4), layout="constrained")
    ax.errorbar(errors.index, errors["mean error"], errors["± over seeds"].fillna(0), fmt="o-")
    ax.set_xscale("log", base=2)
    ax.set_xticks(errors.index, errors.index)
    ax.set(xlabel="branches, of the same total size", ylabel="test error")
    ax.set_title(f"{title}: mean over {errors.sets.iloc[0]} sets", fontsize=10)
    ax.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
