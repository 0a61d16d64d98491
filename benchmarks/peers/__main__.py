"""Compare this package with what users glue together, on a folder of data sets.

    python -m benchmarks.peers --data DIR

DIR contains sets in the form described in benchmarks.data. On each set, all contenders are fitted
one after the other, so that a slow moment of the machine concerns all of them. Rows that exist are
not repeated. fastai and scikit-image are in the extra "peers".
"""

import argparse
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.data import find_sets, read_set
from benchmarks.peers.contenders import CONTENDERS, count_bytes
from benchmarks.rows import run_jobs

RESULTS = Path(__file__).parents[1] / "results"
KEY = ["set", "contender", "seed"]
TEXT = ["set", "contender"]
KNOWN = ("ANM_MONKEY10", "OBJ_IMAGENETTE")  # sets of ImageNet's own classes
ROUNDS = 15  # predictions of one image


def measure(key, data, n_threads=None):
    """Fit a contender to a set, and return its row."""
    if n_threads:
        torch.set_num_threads(n_threads)
    sets = read_set(data / key["set"])
    (X, y), (X_test, y_test) = sets["train"], sets["test"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        estimator = CONTENDERS[key["contender"]](key["seed"]).fit(np.array(X), y)
        fitted = time.perf_counter()
        accuracy = float(np.mean(estimator.predict(np.array(X_test)) == y_test))
        predicted = time.perf_counter()
        times = []
        for path in X_test[:ROUNDS]:
            before = time.perf_counter()
            estimator.predict(np.array([path]))
            times.append(time.perf_counter() - before)
    return {
        **key,
        "classes": len(set(y)),
        "n_train": len(X),
        "accuracy": accuracy,
        "fit_seconds": fitted - start,
        "images_per_second": len(X_test) / (predicted - fitted),
        "one_image_ms": 1e3 * float(np.median(times)),
        "megabytes": count_bytes(estimator) / 1e6,
        "threads": torch.get_num_threads(),
    }


def summarise(rows):
    """Return one line per contender: means of accuracies, medians of times, over the sets."""
    accuracy = rows.groupby("contender").accuracy.mean()
    others = rows[~rows.set.isin(KNOWN)].groupby("contender").accuracy.mean()
    columns = ["fit_seconds", "images_per_second", "one_image_ms", "megabytes"]
    table = rows.groupby("contender")[columns].median()
    table.insert(0, "accuracy", accuracy)
    table.insert(1, "without ImageNet's classes", others)
    table["sets"] = rows.groupby("contender").set.nunique()
    return table.reindex([name for name in CONTENDERS if name in table.index])


def write_table(rows, path):
    table = summarise(rows)
    heads = "contender", "accuracy", "without ImageNet's classes", "fit, s", "images/s"
    heads += "1 image, ms", "MB", "sets"
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in table.iterrows():
        others = "" if np.isnan(row.iloc[1]) else f"{row.iloc[1]:.3f}"
        lines.append(
            f"| {name} | {row.iloc[0]:.3f} | {others} | {row.fit_seconds:.1f} | "
            f"{row.images_per_second:.0f} | {row.one_image_ms:.0f} | {row.megabytes:.1f} | "
            f"{row.sets:.0f} |"
        )
    threads = ", ".join(map(str, sorted(rows.threads.unique())))
    note = f"Test accuracy, medians of times over the sets; {threads} thread(s), from files."
    path.write_text("\n".join(lines) + f"\n\n{note}\n")


def draw(rows, path):
    """Draw accuracy against seconds to fit, of the contenders that were fitted to all sets."""
    import matplotlib.pyplot as plt

    table = summarise(rows)
    table = table[table.sets == table.sets.max()]
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    for i, (name, row) in enumerate(table.iterrows()):
        marker = "o" if name.startswith("sklearn_rrr") else "s"
        ax.scatter(row.fit_seconds, row.accuracy, 70, f"C{i}", marker, label=name, zorder=3)
    ax.set(xscale="log", xlabel="seconds to fit (median)", ylabel="test accuracy (mean)")
    ax.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--contenders", nargs="*", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--sets", nargs="*", default=None)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    arguments = parser.parse_args()
    arguments.results.mkdir(exist_ok=True)
    folders = find_sets(arguments.data, arguments.sets)
    jobs = [
        (dict(zip(KEY, (folder.name, name, seed), strict=True)), measure, (arguments.data,))
        for seed, folder, name in product(arguments.seeds, folders, arguments.contenders)
    ]
    line = "{set:20} {contender:42} {accuracy:.3f}  {fit_seconds:.1f} s"
    rows = run_jobs(jobs, arguments.results / "peers.csv", KEY, TEXT, 1, line)
    write_table(rows, arguments.results / "peers.md")
    draw(rows, arguments.results / "peers.png")
    print((arguments.results / "peers.md").read_text())


if __name__ == "__main__":
    main()
