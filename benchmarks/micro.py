"""Accuracy, seconds to fit and images predicted per second on a folder of data sets.

    python -m benchmarks.micro --data DIR

DIR contains sets in the form described in benchmarks.data. Test images are used for no choice.
Each set is fitted with the bundled weights and with random ones, for three seeds. If DIR/README.md
has a table with an accuracy ``hog`` for the sets, it is shown beside ours. Fits that already have a
row in the results are not repeated: delete micro.csv to measure changed code.
"""

import argparse
import time
from itertools import product
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed

from benchmarks.data import find_sets, read_set
from sklearn_rrr import RRRNetClassifier

RESULTS = Path(__file__).parent / "results"


def read_hog(data):
    """Return {set: accuracy of logistic regression on HOG} from the table in the README."""
    readme = data / "README.md"
    lines = readme.read_text().splitlines() if readme.exists() else []
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if "|" in line]
    header = next((row for row in rows if "hog" in row), None)
    if header is None:
        return {}
    column = header.index("hog")
    return {row[0]: float(row[column]) for row in rows if (data / row[0] / "labels.csv").exists()}


def measure(folder, seed, weights):
    """Fit the default classifier on one set and return its row."""
    sets = read_set(folder)
    (X, y), (X_test, y_test) = sets["train"], sets["test"]
    start = time.perf_counter()
    initial = None if weights == "None" else weights
    clf = RRRNetClassifier(weights=initial, random_state=seed).fit(X, y)
    fitted = time.perf_counter()
    accuracy = (clf.predict(X_test) == y_test).mean()
    return {
        "set": folder.name,
        "weights": weights,
        "seed": seed,
        "classes": len(clf.classes_),
        "n_train": len(X),
        "accuracy": accuracy,
        "fit_seconds": fitted - start,
        "predict_images_per_s": len(X_test) / (time.perf_counter() - fitted),
    }


def write_table(rows, hog, path):
    """Write the means over seeds as a Markdown table."""
    both = ["pretrained", "None"]
    mean = rows.pivot_table("accuracy", "set", "weights").reindex(columns=both)
    spread = rows.pivot_table("accuracy", "set", "weights", aggfunc="std").reindex(columns=both)
    ours = rows[rows.weights == "pretrained"].groupby("set")
    table = (
        ours[["classes", "n_train"]]
        .first()
        .assign(
            pretrained=mean["pretrained"],
            random=mean["None"],
            hog=pd.Series(hog, dtype=float),
            fit_seconds=ours.fit_seconds.mean(),
            predict_images_per_s=ours.predict_images_per_s.mean(),
        )
    )
    table["gain"] = table["pretrained"] - table["random"]
    table["std"] = spread["pretrained"]
    table.loc["mean"] = table.mean()
    formats = {
        "classes": "{:.0f}", "n_train": "{:.0f}", "pretrained": "{:.3f}", "std": "{:.3f}",
        "random": "{:.3f}", "gain": "{:+.3f}", "hog": "{:.3f}", "fit_seconds": "{:.1f}",
        "predict_images_per_s": "{:.0f}",
    }  # fmt: skip
    lines = ["| set | " + " | ".join(formats) + " |", "|---" * (len(formats) + 1) + "|"]
    for name, row in table.iterrows():
        cells = ["" if pd.isna(row[c]) else form.format(row[c]) for c, form in formats.items()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    counts = rows.groupby("weights").seed.nunique()
    seeds = ", ".join(f"{n} seeds with weights {weights}" for weights, n in counts.items())
    note = f"Test accuracy: {seeds}; std over seeds. {rows.jobs.max():.0f} fit(s) at a time."
    path.write_text("\n".join(lines) + f"\n\n{note}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--weights", nargs="*", default=["pretrained", "None"])
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    arguments = parser.parse_args()
    folders = find_sets(arguments.data)
    arguments.results.mkdir(exist_ok=True)
    file = arguments.results / "micro.csv"
    rows = pd.DataFrame(columns=["set", "weights", "seed"])
    if file.exists():
        rows = pd.read_csv(file, keep_default_na=False)
    done = set(zip(rows.set, rows.weights, rows.seed, strict=True))
    jobs = [
        delayed(measure)(folder, seed, weights)
        for weights, seed, folder in product(arguments.weights, arguments.seeds, folders)
        if (folder.name, weights, seed) not in done
    ]
    for row in Parallel(arguments.jobs, return_as="generator")(jobs):
        row["jobs"] = arguments.jobs
        rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
        rows.to_csv(file, index=False)
        print("{set:20} {weights:10} {accuracy:.3f}  {fit_seconds:.0f} s".format(**row), flush=True)
    write_table(rows, read_hog(arguments.data), arguments.results / "micro.md")
    print((arguments.results / "micro.md").read_text())


if __name__ == "__main__":
    main()
