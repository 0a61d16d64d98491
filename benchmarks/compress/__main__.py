"""Compare compression methods from the same initial network, on any folder of data sets.

    python -m benchmarks.compress --data DIR

Fine-tunes a whole backbone on the training half of each set. Every system starts from that network,
except RRR-Net and NetTailor, which start from the backbone. All trainings of a pruner together take
as many steps as the first fit, and so does each of NetTailor's students. Test images are used for
no choice. Each result is written to ``rows.csv`` at once; tables and plots of accuracy against
parameters and against measured latency follow.
"""

import argparse
import math
import re
import time
from pathlib import Path

import joblib
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score

from benchmarks.compress import report
from benchmarks.data import find_sets, fingerprint, read_set
from benchmarks.rows import run_jobs
from sklearn_rrr import (
    BasisScalingPruner,
    BlockPruner,
    ChannelPruner,
    ElementPruner,
    FineTuningClassifier,
    NetTailorClassifier,
    ProgressiveKernelPruner,
    RRRNetClassifier,
    count_macs,
)
from sklearn_rrr.pruning.run import count_nonzero

RESULTS = Path(__file__).parent.parent / "results" / "compress"
KEY = ["backbone", "steps", "image_size", "system", "share", "set", "data", "seed"]
TEXT = ("set", "data", "system")
START = "fine-tuned"
BATCH_SIZE = FineTuningClassifier().batch_size
# Functions of the fitted network and of the share of parameters to remove.
PRUNERS = {
    "basis scaling": lambda start, share: BasisScalingPruner(start, target=share),
    "channels": lambda start, share: ChannelPruner(start, target=share),
    "basis, then channels": lambda start, share: BasisScalingPruner(
        start, target=share / 2, then=ChannelPruner(target=(share / 2) / (1 - share / 2))
    ),
    "channels, then basis": lambda start, share: ChannelPruner(
        start, target=share / 2, then=BasisScalingPruner(target=(share / 2) / (1 - share / 2))
    ),
    "blocks": lambda start, share: BlockPruner(start, target=share),
    "elements": lambda start, share: ElementPruner(start, target=share),
    "kernels, progressive": lambda start, share: ProgressiveKernelPruner(start, target=share),
    "kernels, usual": lambda start, share: ProgressiveKernelPruner(
        start, target=share, retrain="usual"
    ),
}


def make_system(key, start, n_images):
    """Return the unfitted estimator for one row."""
    common = {"backbone": key["backbone"], "random_state": key["seed"]}
    if key["image_size"]:
        common["image_size"] = key["image_size"]
    if key["steps"]:
        common["max_epochs"] = math.ceil(key["steps"] * BATCH_SIZE / n_images)
    if key["system"] == START:
        return FineTuningClassifier(**common)
    if key["system"] == "RRR-Net":
        return RRRNetClassifier(**common)
    if key["system"] == "NetTailor":
        return NetTailorClassifier(**common)
    pruner = PRUNERS[key["system"]](FrozenEstimator(start), key["share"])
    # Hold images out only for pruners that score candidates on them.
    held_out = pruner.validation_fraction if key["system"].startswith("kernels") else None
    return pruner.set_params(validation_fraction=held_out, random_state=key["seed"])


def model_path(folder, key):
    return folder / (re.sub(r"\W+", "-", "_".join(map(str, key.values()))) + ".joblib")


def measure(key, folder, models, n_threads):
    """Fit one system on one set, save it, and return its row."""
    sets = read_set(folder)
    (X, y), (X_test, y_test) = sets["train"], sets["test"]
    start = None
    if key["system"] in PRUNERS:
        start = joblib.load(model_path(models, key | {"system": START, "share": 0.0}))
    system = make_system(key, start, len(X))
    begin = time.perf_counter()
    system.fit(X, y)
    seconds = time.perf_counter() - begin
    fitted = getattr(system, "estimator_", system)
    more = {}
    if key["system"] == "NetTailor":
        kept = system.results_[system.results_.kept].iloc[0]
        more = {
            "teacher_score": system.teacher_score_,
            "student_score": kept.score,
            "teacher_accuracy": accuracy_score(y_test, system.teacher_.predict(X_test)),
        }
        system.teacher_ = None
    joblib.dump(fitted, model_path(models, key))
    return key | {
        "n_train": len(X),
        "accuracy": accuracy_score(y_test, system.predict(X_test)),
        "n_parameters": fitted.n_parameters_,
        "nonzero": count_nonzero(fitted.module_.parameters()),
        "macs": count_macs(fitted),
        "fit_seconds": seconds,
        "threads": n_threads,
        **more,
    }


def list_jobs(options, folders, systems):
    """Yield the jobs of some systems, all sets of one seed before the next seed."""
    data = {folder: fingerprint(folder) for folder in folders}
    for seed in range(options.seeds):
        for folder in folders:
            for system in systems:
                for share in options.shares if system in PRUNERS else (0.0,):
                    key = {
                        "backbone": options.backbone,
                        "steps": options.steps,
                        "image_size": options.image_size,
                        "system": system,
                        "share": share,
                        "set": folder.name,
                        "data": data[folder],
                        "seed": seed,
                    }
                    yield key, measure, (folder, options.models)


def words(text):
    return [word.strip() for word in text.split(";")]


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    names = ["RRR-Net", "NetTailor", *PRUNERS]
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of sets, each labels.csv and images/")
    add("--sets", nargs="*", help="names of some of the sets")
    add("--systems", default="; ".join(names), type=words, help="parted by semicolons")
    add("--shares", type=float, nargs="*", default=[0.5, 0.8], help="of parameters to remove")
    add("--seeds", type=int, default=1, help="number of seeds")
    add("--backbone", default="synth50")
    add("--steps", type=int, default=0, help="of a fit, rounded up to epochs; 0: by default")
    add("--image-size", type=int, default=0, help="0: the backbone's")
    add("--jobs", type=int, default=1, help="fits at a time, then with one thread each")
    add("--models", type=Path, default=Path("build/compress"), help="folder of fitted networks")
    add("--results", type=Path, default=RESULTS, help="folder of the tables and figures")
    options = parser.parse_args(arguments)
    if unknown := {*options.systems} - {*names}:
        parser.error(f"--systems: {min(unknown)!r} is none of {', '.join(names)}")
    folders = find_sets(options.data, options.sets)
    for folder in (options.models, options.results):
        folder.mkdir(parents=True, exist_ok=True)
    line = "{system} {share:g} {set} {seed}: accuracy {accuracy:.3f}, {n_parameters} parameters, "
    line += "{fit_seconds:.0f} s"
    for systems in ([START], options.systems):
        jobs = list_jobs(options, folders, systems)
        rows = run_jobs(jobs, options.results / "rows.csv", KEY, TEXT, options.jobs, line)
    latencies = report.measure_latencies(rows, lambda key: model_path(options.models, key), KEY)
    text = report.write(rows, latencies, options.results)
    print(text)


if __name__ == "__main__":
    main()
