"""
Handwritten digits in minutes
=============================

Fit two classifiers to half of scikit-learn's digits: the default, a head in closed form on a
network that knows photographs, and RRR-Net, the same backbone reduced and split into 8 branches.
Predict the other half, compare the costs of the networks, and draw the digits that the default
misreads.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sklearn_rrr import RRRNetClassifier, cost_report

PICTURE = "quickstart_errors.png"


def fit(name, X, y, **parameters):
    """Fit on (X, y) with a progress bar; return the classifier and the seconds it took."""
    print(f"Fitting {name} on {len(X)} images of {X.shape[1]}x{X.shape[2]} pixels …")
    start = time.perf_counter()
    clf = RRRNetClassifier(random_state=0, verbose=1, **parameters).fit(X, y)
    return clf, time.perf_counter() - start


def draw_errors(images, labels, probabilities, path, most=24):
    """Draw the misread images with the probabilities of the predicted and the true class."""
    guesses = probabilities.argmax(1)
    wrong = np.flatnonzero(guesses != labels)[:most]
    n_rows = max(1, -(-len(wrong) // 6))
    figure, axes = plt.subplots(n_rows, 6, figsize=(10, 2.5 * n_rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, i in zip(axes.flat, wrong, strict=False):
        guess, truth = guesses[i], labels[i]
        ax.imshow(images[i], cmap="gray_r")
        ax.set_title(
            f"read {guess} ({probabilities[i, guess]:.2f})\n"
            f"is {truth} ({probabilities[i, truth]:.2f})",
            fontsize=9,
        )
    figure.suptitle(f"{np.sum(guesses != labels)} of {len(labels)} test digits were misread")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    digits = load_digits()
    X_train, X_test, y_train, y_test = train_test_split(
        digits.images / 16, digits.target, test_size=0.5, stratify=digits.target, random_state=0
    )
    models = {
        "default": {},
        "8 branches": {"blocks": (1, 1, 1, 1), "n_branches": 8, "image_size": 96},
    }
    fitted, seconds, accuracy = {}, {}, {}
    for name, parameters in models.items():
        fitted[name], seconds[name] = fit(name, X_train, y_train, **parameters)
        accuracy[name] = fitted[name].score(X_test, y_test)

    report = cost_report(fitted, batch_sizes=(1, 32))
    report.insert(0, "accuracy", pd.Series(accuracy))
    report.insert(1, "fit_seconds", pd.Series(seconds))
    columns = ["accuracy", "fit_seconds", "n_parameters", "macs", "latency_1_ms", "latency_32_ms"]
    print(f"\n{report[columns].round(3).to_string()}\n")

    probabilities = fitted["default"].predict_proba(X_test)
    draw_errors(X_test, y_test, probabilities, PICTURE)
    print(f"The test errors of the default are drawn in {PICTURE}")
