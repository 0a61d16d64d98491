"""Choose the default settings for synth50 by cross-validation on training halves only.

    python -m benchmarks.settings --data DIR

DIR contains sets in the form described in benchmarks.data; test images are not read. Each candidate
is a dict of parameters and of fields of `fine_tuning`. Candidates that already have a row in the
results, with the same bundled weights, are not run again.
"""

import argparse
import json
import os
import time
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from sklearn.model_selection import StratifiedKFold

from benchmarks.data import find_sets, read_set
from benchmarks.micro import RESULTS
from sklearn_rrr import FineTuning, RRRNetClassifier
from sklearn_rrr.backbones.weights import BUNDLED

PAPER = {
    "trainable": "all",
    "split": "paper",
    "head_init": "random",
    "learning_rate": 1e-3,
    "stump_lr_factor": 1.0,
    "lr_schedule": "constant",
    "augmentation": "paper",
}
RANDOM = {"weights": None, "steps": 1000} | PAPER
RANDOM_GEOMETRIC = RANDOM | {"augmentation": "geometric"}
# Start of the first round.
BASE = {
    "trainable": "all",
    "split": "aligned",
    "head_init": "ridge",
    "learning_rate": 5e-4,
    "stump_lr_factor": 0.3,
    "lr_schedule": "cosine",
    "augmentation": "paper",
    "steps": 500,
}
GEOMETRIC = BASE | {"augmentation": "geometric"}
# Result of the first round and start of the second.
SECOND = GEOMETRIC | {"learning_rate": 1e-3, "stump_lr_factor": 1.0, "steps": 1000}
DEFAULT = SECOND | {"image_size": 96, "steps": 500}
CANDIDATES = {
    "random weights, as published": RANDOM,
    "random weights, geometric": RANDOM_GEOMETRIC,
    "base": BASE,
    "branches only": BASE | {"trainable": "branches"},
    "geometric augmentation": GEOMETRIC,
    "geometric augmentation, rate 1e-3": GEOMETRIC | {"learning_rate": 1e-3},
    "geometric augmentation, rate 2e-3": GEOMETRIC | {"learning_rate": 2e-3},
    "geometric augmentation, rate 1e-3, 1000 steps": GEOMETRIC
    | {"steps": 1000, "learning_rate": 1e-3},
    "geometric augmentation, rate 1e-3, stump 1": GEOMETRIC
    | {"learning_rate": 1e-3, "stump_lr_factor": 1.0},
    "64 pixels, 1000 steps": SECOND | {"image_size": 64},
    "default": DEFAULT,
    "random weights, 96 pixels, 1000 steps": RANDOM_GEOMETRIC | {"image_size": 96},
    "default, rate 5e-4": DEFAULT | {"learning_rate": 5e-4},
    "default, rate 2e-3": DEFAULT | {"learning_rate": 2e-3},
    "default, stump .3": DEFAULT | {"stump_lr_factor": 0.3},
    "default, random head": DEFAULT | {"head_init": "random"},
    "default, paper split": DEFAULT | {"split": "paper"},
    "default, 1 branch": DEFAULT | {"n_branches": 1},
    "default, 4 branches": DEFAULT | {"n_branches": 4},
    "default, branches only": DEFAULT | {"trainable": "branches"},
    "default, paper augmentation": DEFAULT | {"augmentation": "paper"},
    "default, no augmentation": DEFAULT | {"augmentation": "none"},
}
BUNDLED_HASH = BUNDLED["synth50"][1][:8]


def nest(parameters):
    """Return estimator parameters, with fields of fine_tuning under their nested names."""
    known = FineTuning().get_params()
    return {f"fine_tuning__{k}" if k in known else k: v for k, v in parameters.items()}


def measure(name, folder, n_folds, seed):
    """Cross-validate one candidate on the training half of one set; return its row."""
    paths, labels = read_set(folder)["train"]
    start, hits = time.perf_counter(), 0
    folds = StratifiedKFold(2, shuffle=True, random_state=seed).split(paths, labels)
    parameters = dict(CANDIDATES[name])
    if "steps" in parameters:
        parameters["max_epochs"] = round(parameters.pop("steps") * 32 / (len(paths) / 2))
    for (train, test), _ in zip(folds, range(n_folds), strict=False):
        clf = RRRNetClassifier("synth50", blocks=(1, 1, 1, 1), n_branches=8, random_state=seed)
        clf.set_params(**nest(parameters))
        clf.fit([paths[i] for i in train], labels[train])
        hits += (clf.predict([paths[i] for i in test]) == labels[test]).mean()
    seconds = (time.perf_counter() - start) / n_folds
    return {
        "candidate": name,
        "bundled": BUNDLED_HASH,
        "parameters": json.dumps(CANDIDATES[name]),
        "set": folder.name,
        "accuracy": hits / n_folds,
        "fit_seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--candidates", nargs="*", default=list(CANDIDATES), choices=CANDIDATES)
    parser.add_argument("--sets", nargs="*", help="names of the sets; all of them if not given")
    parser.add_argument("--folds", type=int, default=1, choices=(1, 2), help="of two halves")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="fits at a time")
    parser.add_argument("--results", type=Path, default=RESULTS / "settings.csv")
    options = parser.parse_args()
    rows = pd.read_csv(options.results).to_dict("records") if options.results.exists() else []
    current = [row for row in rows if row["bundled"] == BUNDLED_HASH]
    done = {(row["candidate"], row["set"]) for row in current}
    for row in current:
        if json.loads(row["parameters"]) != CANDIDATES.get(row["candidate"]):
            raise SystemExit(f"{options.results} holds another {row['candidate']!r}; remove it.")
    jobs = [
        delayed(measure)(name, folder, options.folds, 0)
        for name in options.candidates
        for folder in find_sets(options.data)
        if (not options.sets or folder.name in options.sets) and (name, folder.name) not in done
    ]
    for row in Parallel(options.jobs, return_as="generator")(jobs):
        rows.append(row)
        pd.DataFrame(rows).to_csv(options.results, index=False)
    table = pd.DataFrame(rows).groupby(["bundled", "candidate"], sort=False)
    table = table.mean(numeric_only=True)
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
