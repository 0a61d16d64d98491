"""Accuracy, seconds to fit and images predicted per second on a folder of data sets.

    python -m benchmarks.micro --data DIR

DIR contains sets in the form described in benchmarks.data. Test images are used for no choice.
Each set is fitted in every way of WAYS, for three seeds. If DIR/README.md has a table with an
accuracy ``hog`` for the sets, it is shown beside ours. Fits that already have a row in the results
are not repeated: delete micro.csv to measure changed code.
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


# How each set is fitted; functions of a seed.
REDUCED = {"blocks": (1, 1, 1, 1), "n_branches": 8}
WAYS = {
    "default": lambda seed: RRRNetClassifier(random_state=seed),
    "one pass": lambda seed: RRRNetClassifier(fine_tuning="one_pass", random_state=seed),
    "1_1_1_1, one pass": lambda seed: RRRNetClassifier(
        random_state=seed, blocks=(1, 1, 1, 1), fine_tuning="one_pass"
    ),
    "8 branches, one pass": lambda seed: RRRNetClassifier(
        random_state=seed, fine_tuning="one_pass", **REDUCED
    ),
    "1_1_1_1": lambda seed: RRRNetClassifier(random_state=seed, blocks=(1, 1, 1, 1)),
    "1_1_1_1, 8 branches": lambda seed: RRRNetClassifier(random_state=seed, **REDUCED),
    "synth50": lambda seed: RRRNetClassifier("synth50", random_state=seed, **REDUCED),
}


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


def measure(folder, seed, way):
    """Fit a classifier to one set in one way, and return its row."""
    sets = read_set(folder)
    (X, y), (X_test, y_test) = sets["train"], sets["test"]
    start = time.perf_counter()
    clf = WAYS[way](seed).fit(X, y)
    fitted = time.perf_counter()
    accuracy = (clf.predict(X_test) == y_test).mean()
    return {
        "set": folder.name,
        "way": way,
        "seed": seed,
        "classes": len(clf.classes_),
        "n_train": len(X),
        "accuracy": accuracy,
        "fit_seconds": fitted - start,
        "predict_images_per_s": len(X_test) / (time.perf_counter() - fitted),
        "companion": getattr(clf, "companion_", None) or "none",
    }


def write_table(rows, hog, path):
    """Write the means over seeds as a Markdown table, and the speed of each way."""
    ways = [way for way in WAYS if way in set(rows.way)]
    table = rows.pivot_table("accuracy", "set", "way")[ways].assign(hog=pd.Series(hog, dtype=float))
    table.loc["mean"] = table.mean()
    lines = ["| set | " + " | ".join(table) + " |", "|---" * (len(table.columns) + 1) + "|"]
    for name, row in table.iterrows():
        cells = ["" if pd.isna(value) else f"{value:.3f}" for value in row]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    speed = rows.groupby("way")[["fit_seconds", "predict_images_per_s"]].median().loc[ways]
    lines += ["", "| way | median seconds to fit | median images/s from files |", "|---|---|---|"]
    lines += [f"| {way} | {fit:.1f} | {rate:.0f} |" for way, (fit, rate) in speed.T.items()]
    counts = rows.groupby("way").seed.nunique()
    seeds = ", ".join(f"{counts[way]} of {way}" for way in ways)
    note = f"Test accuracy; seeds: {seeds}. {rows.jobs.max():.0f} fit(s) at a time."
    path.write_text("\n".join(lines) + f"\n\n{note}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--jobs", type=int, default=1, help="fits at a time")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    arguments = parser.parse_args()
    folders = find_sets(arguments.data)
    arguments.results.mkdir(exist_ok=True)
    file = arguments.results / "micro.csv"
    rows = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["set", "way", "seed"])
    done = set(zip(rows.set, rows.way, rows.seed, strict=True))
    jobs = [
        delayed(measure)(folder, seed, way)
        for seed, way, folder in product(arguments.seeds, arguments.ways, folders)
        if (folder.name, way, seed) not in done
    ]
    for row in Parallel(arguments.jobs, return_as="generator")(jobs):
        row["jobs"] = arguments.jobs
        rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
        rows.to_csv(file, index=False)
        print("{set:20} {way:20} {accuracy:.3f}  {fit_seconds:.0f} s".format(**row), flush=True)
    write_table(rows, read_hog(arguments.data), arguments.results / "micro.md")
    print((arguments.results / "micro.md").read_text())


if __name__ == "__main__":
    main()
