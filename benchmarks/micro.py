"""Accuracy, seconds to fit and images per second to predict on a folder of data sets.

    python -m benchmarks.micro --data DIR

DIR holds sets in Meta-Album form: ``<SET>/labels.csv`` with the columns FILE_NAME, CATEGORY
and SPLIT ("train" or "test"), and ``<SET>/images/``. Nothing is chosen on the test images.
Where DIR/README.md tabulates an accuracy ``hog`` for the sets, it stands beside ours. A set
whose row is in the results already is not run again: delete micro.csv to measure other code.
"""

import argparse
import time
import warnings
from pathlib import Path

import pandas as pd

from sklearn_rrr import RRRNetClassifier

RESULTS = Path(__file__).parent / "results"


def read_set(folder):
    """Return {split: (list of paths, labels)} of one set."""
    table = pd.read_csv(folder / "labels.csv", dtype={"CATEGORY": str})
    return {
        split: ([folder / "images" / name for name in rows.FILE_NAME], rows.CATEGORY.to_numpy())
        for split, rows in table.groupby("SPLIT")
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


def measure(folder, seed):
    """Fit the default classifier on one set and return its row."""
    sets = read_set(folder)
    (X, y), (X_test, y_test) = sets["train"], sets["test"]
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no pre-trained weights")
        clf = RRRNetClassifier(random_state=seed).fit(X, y)
    fitted = time.perf_counter()
    accuracy = (clf.predict(X_test) == y_test).mean()
    return {
        "set": folder.name,
        "seed": seed,
        "classes": len(clf.classes_),
        "n_train": len(X),
        "accuracy": accuracy,
        "fit_seconds": fitted - start,
        "predict_images_per_s": len(X_test) / (time.perf_counter() - fitted),
    }


def write_table(rows, path):
    """Write the means over seeds as a table in Markdown."""
    means = rows.astype({"seed": int}).groupby("set").mean(numeric_only=True)
    means.loc["mean"] = means.mean()
    means["seeds"] = rows.groupby("set").seed.count()
    formats = {
        "classes": "{:.0f}", "n_train": "{:.0f}", "accuracy": "{:.3f}", "hog": "{:.3f}",
        "fit_seconds": "{:.1f}", "predict_images_per_s": "{:.0f}", "seeds": "{:.0f}",
    }  # fmt: skip
    columns = [c for c in formats if c in means]
    lines = ["| set | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, row in means.iterrows():
        cells = ["" if pd.isna(row[c]) else formats[c].format(row[c]) for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables")
    arguments = parser.parse_args()
    folders = sorted(path.parent for path in arguments.data.glob("*/labels.csv"))
    if not folders:
        parser.error(f"{arguments.data} holds no set: no */labels.csv")
    arguments.results.mkdir(exist_ok=True)
    file = arguments.results / "micro.csv"
    rows = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["set", "seed"])
    done = set(zip(rows.set, rows.seed, strict=True))
    hog = read_hog(arguments.data)
    for seed in range(arguments.seeds):
        for folder in folders:
            if (folder.name, seed) in done:
                continue
            row = measure(folder, seed)
            if folder.name in hog:
                row["hog"] = hog[folder.name]
            rows = pd.concat([rows, pd.DataFrame([row])], ignore_index=True)
            rows.to_csv(file, index=False)
            print(f"{folder.name:20} {row['accuracy']:.3f}  {row['fit_seconds']:.0f} s", flush=True)
    write_table(rows, arguments.results / "micro.md")
    print((arguments.results / "micro.md").read_text())


if __name__ == "__main__":
    main()
