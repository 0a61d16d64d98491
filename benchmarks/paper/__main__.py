"""Experiments of RRR-Net (arXiv:2310.01157) on any folder of data sets.

    python -m benchmarks.paper --data DIR

DIR contains sets in the form described in benchmarks.data. Each fit is written to ``fits.csv`` as
soon as it ends; fits that already have a row are not run again. Tables and figures of all rows
follow. Test images are used only to report results, not for any choice.
"""

import argparse
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch

from benchmarks.costs import report_costs
from benchmarks.data import find_sets, fingerprint, read_set
from benchmarks.paper import figures, statistics
from benchmarks.rows import run_jobs
from sklearn_rrr import FineTuning, count_macs, load_backbone, paper_models
from sklearn_rrr.classifiers.baselines import PUBLISHED
from sklearn_rrr.networks.rrr_net import RRRNet

RESULTS = Path(__file__).parent.parent / "results" / "paper"
SHARED = replace(FineTuning.published(), sampling="shared")
SETTINGS = {
    "default": {},
    "published": PUBLISHED,
    # As published, but with the same batches for all branches and the backbone's image size.
    "shared": PUBLISHED | {"fine_tuning": SHARED, "image_size": None},
}
# These columns identify a fit.
KEY = ["backbone", "settings", "epochs", "image_size", "model", "set", "data", "seed"]


TEXT = ("set", "data", "model")
OVERRIDES = {"epochs": "max_epochs", "image_size": "image_size"}


def make_model(name, seed, backbone, settings, **parameters):
    """Return an unfitted model: one of A to E, or E with "<n> branches"."""
    given = {"backbone": backbone, "random_state": seed} | SETTINGS[settings] | parameters
    if name.endswith(" branches"):
        return paper_models(**given)["E"].set_params(n_branches=int(name.split()[0]))
    return paper_models(**given)[name]


def measure(key, folder, n_threads):
    """Fit one model on one set; return its row."""
    parameters = {name: key[k] for k, name in OVERRIDES.items() if key[k]}
    sets = read_set(folder)
    (X, y), (X_test, y_test) = sets["train"], sets["test"]
    model = make_model(key["model"], key["seed"], key["backbone"], key["settings"], **parameters)
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    return key | {
        "classes": len(model.classes_),
        "n_train": len(X),
        "n_test": len(X_test),
        "error": 1 - model.score(X_test, y_test),
        "epochs_trained": len(model.history_),
        "fit_seconds": seconds,
        "n_parameters": model.n_parameters_,
        "macs": count_macs(model),
        "threads": n_threads,
    }


def list_fits(options):
    """Yield the folder and the key of every fit, all sets of one seed before the next seed."""
    folders = find_sets(options.data, options.sets)
    for folder in folders:  # report invalid sets before the first fit
        read_set(folder)
    data = {folder: fingerprint(folder) for folder in folders}
    for settings, seed, folder, model in product(
        options.settings, range(options.seeds), folders, options.models
    ):
        yield (
            folder,
            {
                "backbone": options.backbone,
                "settings": settings,
                "epochs": options.epochs,
                "image_size": options.image_size,
                "model": model,
                "set": folder.name,
                "data": data[folder],
                "seed": seed,
            },
        )


def run_fits(options, file):
    """Run the fits that have no row in the file yet; return all rows of the file."""
    jobs = [(key, measure, (folder,)) for folder, key in list_fits(options)]
    line = "{settings} {model} {set} {seed}: error {error:.3f}, {fit_seconds:.0f} s"
    return run_jobs(jobs, file, KEY, TEXT, options.jobs, line)


def measure_costs(options, file):
    """Return the size and latency of each model with ten classes, and write them to a file."""
    backbone, _ = load_backbone(options.backbone, weights=None)
    size = options.image_size or backbone.image_size
    forms = {
        "A, B": {},
        "C, D": {"blocks": (1, 1, 1, 1)},
        "E": {"blocks": (1, 1, 1, 1), "n_branches": 8},
    }
    networks = {name: RRRNet(backbone, 10, **form) for name, form in forms.items()}
    report = report_costs(networks, image_size=size)
    if torch.cuda.is_available():
        on_gpu = report_costs(networks, image_size=size, device="cuda")
        report = report.join(on_gpu.filter(like="latency").add_prefix("gpu_"))
    report.insert(0, "models", report.index)
    report.to_csv(file, index=False, float_format="%.6g")
    return report


def words(text):
    return [word.strip() for word in text.split(",")]


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of sets, each labels.csv and images/")
    add("--sets", nargs="*", help="names of some of the sets")
    add("--models", default="A,B,C,D,E", type=words, help='also "16 branches"')
    add("--settings", default="default", type=words, help=", ".join(SETTINGS))
    add("--seeds", type=int, default=3, help="number of seeds")
    add("--backbone", default="synth50")
    add("--epochs", type=int, default=0, help="0: as the settings say")
    add("--image-size", type=int, default=0, help="0: the backbone's")
    add("--jobs", type=int, default=1, help="fits at a time, then with one thread each")
    add("--results", type=Path, default=RESULTS, help="folder of the tables and figures")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds: {options.seeds} is less than 1")
    for settings in options.settings:
        if settings not in SETTINGS:
            parser.error(f"--settings: {settings!r} is none of {', '.join(SETTINGS)}")
    for model in options.models:
        try:
            make_model(model, 0, options.backbone, "default")
        except (KeyError, ValueError):
            parser.error(f'--models: {model!r} is none of A, B, C, D, E, nor "16 branches"')
    options.results.mkdir(parents=True, exist_ok=True)
    rows = run_fits(options, options.results / "fits.csv")
    costs = measure_costs(options, options.results / "costs.csv")
    text = statistics.report(rows, costs)
    (options.results / "report.md").write_text(text)
    figures.draw_all(rows, costs, options.results)
    print(text)


if __name__ == "__main__":
    main()
