"""Ensemble strategies and their uncertainty on scikit-learn's digits.

    python -m benchmarks.digits

Trains on 300 digits at 32 pixels, with five seeds for each strategy. Accuracy is that of the
ensemble, and of its single branches (mean and best), on the other digits. For AUROC, one class is
left out of training; each measure of uncertainty has to separate its images from the others.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from sklearn_rrr import RRRNetClassifier
from sklearn_rrr.classifiers.ensembles import ENSEMBLES

RESULTS = Path(__file__).parent / "results"


def split(y, seed, left_out=None, n_train=300):
    """Return the training and test indices."""
    order = np.random.default_rng(seed).permutation(len(y))
    train = order[y[order] != left_out][:n_train]
    return train, np.setdiff1d(order, train)


def measure(X, y, ensemble, seed, epochs):
    """Fit on all classes, and again without one; return the row."""
    settings = {"image_size": 32, "random_state": seed, "max_epochs": epochs}
    settings |= {"backbone": "synth50", "blocks": (1, 1, 1, 1), "n_branches": 8}
    train, test = split(y, seed)
    clf = RRRNetClassifier(ensemble=ensemble, **settings).fit(X[train], y[train])
    P = clf.predict_branches(X[test])
    single = (P.argmax(2) == y[test][:, None]).mean(0)
    row = {
        "strategy": ensemble,
        "seed": seed,
        "accuracy": (P.mean(1).argmax(1) == y[test]).mean(),
        "one branch": single.mean(),
        "best branch": single.max(),
    }
    left_out = 2 * seed % 10
    train, test = split(y, seed, left_out)
    clf = RRRNetClassifier(ensemble=ensemble, **settings).fit(X[train], y[train])
    table = clf.predict_uncertainty(X[test])
    table["vote_agreement"] *= -1
    for name, values in table.items():
        row[f"AUROC of {name}"] = roc_auc_score(y[test] == left_out, values)
    return row


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    X, y = load_digits(return_X_y=True)
    rows = []
    for ensemble in ENSEMBLES:
        for seed in range(options.seeds):
            rows.append(measure(X / 16, y, ensemble, seed, options.epochs))
            print(rows[-1], flush=True)
    groups = pd.DataFrame(rows).drop(columns="seed").groupby("strategy", sort=False)
    mean, spread = groups.mean(), groups.std(ddof=0)
    cells = mean.map("{:.3f}".format) + spread.map(" ± {:.3f}".format)
    lines = [
        "# Ensemble strategies on digits",
        "",
        f"{options.seeds} seeds, mean ± standard deviation; written by `make bench-digits`.",
        "",
        "| strategy | " + " | ".join(cells.columns) + " |",
        "|---" * (cells.shape[1] + 1) + "|",
        *(f"| {name} | " + " | ".join(row) + " |" for name, row in cells.iterrows()),
    ]
    (options.results / "digits.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
