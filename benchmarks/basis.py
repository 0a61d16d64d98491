"""Accuracy lost by basis scaling against parameters removed (arXiv:2108.02893).

    python -m benchmarks.basis --data DIR

Cross-validates on digits, and on the training half of sets of DIR: fine-tunes a whole backbone on
each fold's training part, then prunes it to each target, always starting from that network. The
paper loses less than a point with 74.6 % of the parameters removed on CIFAR-10 and 98.9 % on MNIST.
"""

import argparse
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedKFold

from benchmarks.data import read_set
from benchmarks.paper.statistics import half_width, markdown
from benchmarks.rows import run_jobs
from sklearn_rrr import BasisScalingPruner, ChannelPruner, FineTuningClassifier

RESULTS = Path(__file__).parent / "results"
KEY = ["backbone", "data", "image_size", "epochs", "way", "target", "fold"]
TEXT = ("backbone", "data", "way")
N_FOLDS = 5
TARGETS = (0.5, 0.75, 0.9, 0.95, 0.98)
WAYS = {
    "basis": lambda clf, target: BasisScalingPruner(clf, target=target),
    # Each pruner does half of the reduction on a logarithmic scale.
    "basis, then channels": lambda clf, target: BasisScalingPruner(
        clf,
        target=1 - (1 - target) ** 0.5,
        then=ChannelPruner(target=1 - (1 - target) ** 0.5),
    ),
}


def read(name, folder):
    """Return the images and labels of digits, or of the training half of a set."""
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return X / 16, y
    paths, labels = read_set(folder / name)["train"]
    return np.array([str(path) for path in paths]), labels


def measure(key, folder, models, seed, n_threads):
    """Fit a network, or prune the fitted one, on one fold; return its row."""
    X, y = read(key["data"], folder)
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(X, y)
    train, test = list(folds)[key["fold"]]
    images = (lambda part: X[part]) if key["data"] == "digits" else (lambda part: list(X[part]))
    file = models / "{backbone}_{data}_{image_size}_{epochs}_{fold}.joblib".format(**key)
    begin = time.perf_counter()
    if key["way"] == "fine-tuned":
        size, epochs = key["image_size"] or None, key["epochs"] or None
        clf = FineTuningClassifier(
            key["backbone"], image_size=size, max_epochs=epochs, random_state=seed
        )
        clf.fit(images(train), y[train])
        joblib.dump(clf, file)
    else:
        pruner = WAYS[key["way"]](FrozenEstimator(joblib.load(file)), key["target"])
        pruner.set_params(validation_fraction=None, random_state=seed)
        clf = pruner.fit(images(train), y[train]).estimator_
    return key | {
        "accuracy": clf.score(images(test), y[test]),
        "n_parameters": clf.n_parameters_,
        "fit_seconds": time.perf_counter() - begin,
        "threads": n_threads,
    }


def list_jobs(options, ways):
    for data in ("digits", *options.sets):
        for fold in range(N_FOLDS):
            for way in ways:
                for target in options.targets if way in WAYS else (0.0,):
                    size = options.digits_size if data == "digits" else options.image_size
                    values = (
                        options.backbone,
                        data,
                        size,
                        options.epochs,
                        way,
                        float(target),
                        fold,
                    )
                    key = dict(zip(KEY, values, strict=True))
                    yield key, measure, (options.data, options.models, options.seed)


def report(rows):
    """Return a Markdown table of the accuracy lost, and the largest reduction within a point."""
    lines = ["# Basis scaling: accuracy lost against parameters gone", ""]
    lines += [f"{N_FOLDS}-fold cross-validation; ± is half of the 95 % interval over folds.", ""]
    for (backbone, data, size, epochs), part in rows.groupby(KEY[:4], sort=False):
        start = part[part.way == "fine-tuned"].set_index("fold")
        before = start[["accuracy", "n_parameters"]]
        pruned = part[part.way != "fine-tuned"].join(before.add_suffix("_start"), on="fold")
        pruned = pruned.assign(
            lost=100 * (pruned.accuracy_start - pruned.accuracy),
            gone=100 * (1 - pruned.n_parameters / pruned.n_parameters_start),
        )
        groups = pruned.groupby(["way", "target"])
        table = groups[["accuracy", "lost", "gone"]].mean()
        table["±"] = groups.lost.agg(half_width)
        title = f"## {backbone} on {data}" + (f", {size} pixels" if size else "")
        lines += [title + (f", {epochs} epochs" if epochs else ""), ""]
        lines += ["Before: {:.4f}, {:.0f} parameters.".format(*before.mean())]
        for way, rows_of_way in table.groupby("way"):
            within = rows_of_way[rows_of_way.lost < 1]
            best = f"{within.gone.max():.1f} % gone" if len(within) else "no target tried"
            lines += [f"Under a point lost by {way}: {best}."]
        shown = table.set_index(table.index.map("{0[0]}, {0[1]:g}".format))
        lines += ["", *markdown(shown, "way, target"), ""]
    return "\n".join(lines)


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("."), help="folder of data sets")
    add("--sets", nargs="*", default=["CHR_MNIST"], help="names of sets in it")
    add("--targets", type=float, nargs="*", default=list(TARGETS))
    add("--backbone", default="synth50")
    add("--digits-size", type=int, default=32)
    add("--image-size", type=int, default=0, help="of the sets; 0: the backbone's")
    add("--epochs", type=int, default=0, help="of the first fit; 0: as by default")
    add("--seed", type=int, default=0)
    add("--jobs", type=int, default=1, help="fits at a time, then with one thread each")
    add("--models", type=Path, default=Path("build/basis"), help="folder of fitted networks")
    add("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    for folder in (options.models, options.results):
        folder.mkdir(parents=True, exist_ok=True)
    line = "{data} {way} {target:g}, fold {fold}: accuracy {accuracy:.4f}, {fit_seconds:.0f} s"
    for ways in (["fine-tuned"], list(WAYS)):
        jobs = list_jobs(options, ways)
        rows = run_jobs(jobs, options.results / "basis.csv", KEY, TEXT, options.jobs, line)
    text = report(rows)
    (options.results / "basis.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
