"""Figure 4 of RRR-Net: error against the number of blocks, with a control of equal epochs.

    python -m benchmarks.paper.blocks --data DIR --set NAME

Runs Algorithm 1 without its stopping criterion on the training half of one set, with errors on
hold-out images from that half. An interrupted search resumes from ``build/blocks``.
"""

import argparse
from pathlib import Path

import matplotlib
import pandas as pd

from benchmarks.data import read_set
from benchmarks.paper.__main__ import RESULTS
from benchmarks.paper.statistics import half_width
from sklearn_rrr import BlockSelector, FineTuning, RRRNetClassifier

matplotlib.use("agg")
from matplotlib import pyplot


def search(options, seed):
    """Run one search; return its results with a column for the seed."""
    X, y = read_set(options.data / options.set)["train"]
    clf = RRRNetClassifier(
        options.backbone,
        n_branches=1,
        fine_tuning=FineTuning(trainable="all"),
        image_size=options.image_size or None,
        random_state=seed,
    )
    selector = BlockSelector(
        clf,
        tolerance=None,
        control=True,
        epochs_per_step=options.epochs,
        validation_fraction=0.5,
        order=options.order,
        checkpoint_dir=options.checkpoints,
        verbose=1,
    )
    return selector.fit(X, y).results_.assign(seed=seed)


def mean_and_interval(rows):
    """Return the mean error and half of its 95 % interval over seeds, by number of epochs."""
    errors = rows.assign(error=1 - rows.score).groupby("epochs").error
    return errors.mean(), errors.agg(half_width).fillna(0)


def draw(rows, title, path):
    figure, ax = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for control, label in ((False, "blocks added one by one"), (True, "1_1_1_1 trained as long")):
        mean, half = mean_and_interval(rows[rows.control == control])
        ax.errorbar(mean.index, mean, half, fmt="o-", ms=4, capsize=2, label=label)
    names = rows[~rows.control].groupby("epochs").blocks.first()
    ax.set_xticks(names.index, ["_".join(map(str, b)) for b in names], rotation=60, ha="right")
    ax.set(ylabel="error on images held out", title=title)
    ax.grid(axis="y", alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of data sets")
    add("--set", required=True, help="name of the set")
    add("--seeds", type=int, default=3)
    add("--epochs", type=int, default=20, help="of each step")
    add("--order", default="sequential", choices=("sequential", "cyclic"))
    add("--backbone", default="synth50")
    add("--image-size", type=int, default=0, help="0: the backbone's")
    add("--checkpoints", type=Path, default=Path("build/blocks"))
    add("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    rows = pd.concat([search(options, seed) for seed in range(options.seeds)])
    name = f"blocks_{options.backbone}_{options.set}_{options.order}"
    rows.to_csv(options.results / f"{name}.csv", index=False, float_format="%.6g")
    title = f"{options.backbone} on {options.set}, {options.epochs} epochs a step, "
    title += f"{options.seeds} seeds"
    title += f", {options.image_size} pixels" if options.image_size else ""
    draw(rows, title, options.results / f"{name}.png")
    for control, part in rows.groupby("control"):
        mean, half = mean_and_interval(part)
        print("control" if control else "search")
        print(pd.DataFrame({"error": mean, "±": half}).round(3).to_string())


if __name__ == "__main__":
    main()
