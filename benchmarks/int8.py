"""Accuracy, size and latency of exported classifiers with int8 convolutions, beside float32.

    python -m benchmarks.int8 --data DIR [--rounds 9]

DIR contains sets in the form described in benchmarks.data. The default classifier is fitted to the
training images of each set and exported twice; test images are used for no choice. Latencies are
medians of interleaved rounds with one thread; ratios are those of the medians. Sets that already
have a row in int8.csv are not repeated: delete it to measure changed code.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.data import find_sets, read_set
from benchmarks.rows import run_jobs
from benchmarks.speed.contenders import BATCH, SIZE, cut_photos, interleave, repeated
from sklearn_rrr import OnnxClassifier, RRRNetClassifier, export_onnx

RESULTS = Path(__file__).parent / "results"
N_CALIBRATION = 100
ENGINES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}


def export_both(clf, X, folder):
    """Export a classifier in float32 and with int8 convolutions; return {precision: path}."""
    paths = {precision: Path(folder) / f"{precision}.onnx" for precision in ("fp32", "int8")}
    chosen = np.random.default_rng(0).permutation(len(X))[:N_CALIBRATION]
    export_onnx(clf, paths["fp32"])
    export_onnx(clf, paths["int8"], calibration_images=[X[i] for i in chosen])
    return paths


def measure(what, folder, threads):
    """Fit a classifier to one set and return the row of its two files."""
    sets = read_set(folder)
    (X, y), (X_test, y_test) = sets["train"], sets["test"]
    clf = RRRNetClassifier(random_state=0).fit(X, y)
    with tempfile.TemporaryDirectory() as place:
        paths = export_both(clf, X, place)
        sizes = {name: path.stat().st_size / 1e6 for name, path in paths.items()}
        expected = OnnxClassifier(paths["fp32"], n_threads=threads).predict_proba(X_test)
        row = {
            **what,
            "n_test": len(X_test),
            "companion": clf.companion_ or "none",
            "fp32_mb": sizes["fp32"],
            "int8_mb": sizes["int8"],
            "fp32": (clf.classes_[expected.argmax(1)] == y_test).mean(),
        }
        for name, engine in ENGINES.items():
            light = OnnxClassifier(paths["int8"], engine=engine, n_threads=threads)
            found = light.predict_proba(X_test)
            row[f"int8, {name}"] = (clf.classes_[found.argmax(1)] == y_test).mean()
            row[f"same label, {name}"] = (found.argmax(1) == expected.argmax(1)).mean()
            row[f"deviation, {name}"] = np.abs(found - expected).max(1).mean()
    return row


def time_engines(rounds):
    """Return rows of the milliseconds of 1 and BATCH images, and the ratios to float32."""
    images, labels = cut_photos(N_CALIBRATION, (SIZE, SIZE))
    clf = RRRNetClassifier(fine_tuning="one_pass", random_state=0).fit(images, labels)
    with tempfile.TemporaryDirectory() as folder:
        paths, contenders = export_both(clf, images, folder), {}
        for name, engine in ENGINES.items():
            for precision, path in paths.items():
                light = OnnxClassifier(path, engine=engine, n_threads=1)
                for n in (1, BATCH):
                    run = partial(light.predict_proba, images[:n])
                    contenders[name, n, precision] = repeated(run, 5 if n == 1 else 1)
        seconds = interleave(contenders, rounds)
    for name in ENGINES:
        for n in (1, BATCH):
            fp32, int8 = seconds[name, n, "fp32"], seconds[name, n, "int8"]
            yield name, n, 1e3 * fp32, 1e3 * int8, fp32 / int8


def write(rows, latencies, rounds, path):
    """Write accuracies by set, and latencies, as Markdown."""
    columns = ["fp32", *(f"int8, {name}" for name in ENGINES)]
    columns += ["same label, ONNX Runtime", "deviation, ONNX Runtime"]
    lines = [f"| set | companion | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for _, row in rows.sort_values("set").iterrows():
        cells = " | ".join(f"{row[name]:.3f}" for name in columns)
        lines.append(f"| {row.set} | {row.companion} | {cells} |")
    cells = " | ".join(f"{rows[name].mean():.4f}" for name in columns)
    lines += [
        f"| mean | | {cells} |",
        "",
        "Test accuracy. Same label: share of test images to which both files give the same label. "
        "Deviation: mean over images of the largest difference of a probability. Files have "
        f"{rows.fp32_mb.median():.1f} MB in float32 and {rows.int8_mb.median():.1f} MB in int8 "
        "(medians).",
        "",
        "| engine | images | float32, ms | int8, ms | times faster |",
        "|---|---|---|---|---|",
    ]
    for name, n, fp32, int8, ratio in latencies:
        lines.append(f"| {name} | {n} | {fp32:.1f} | {int8:.1f} | {ratio:.2f} |")
    lines += [
        "",
        f"Latency of `predict_proba` on arrays of {SIZE}x{SIZE}, without a companion, one thread; "
        f"medians of {rounds} interleaved rounds. Written by `make bench-int8`.",
    ]
    path.write_text("# Convolutions in int8\n\n" + "\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    jobs = [({"set": f.name}, measure, (f,)) for f in find_sets(arguments.data)]
    describe = "{set:20} fp32 {fp32:.3f}  int8 {int8, ONNX Runtime:.3f}"
    rows = run_jobs(jobs, RESULTS / "int8.csv", ["set"], ["set", "companion"], 1, describe)
    latencies = list(time_engines(arguments.rounds))
    write(rows, latencies, arguments.rounds, RESULTS / "int8.md")
    print((RESULTS / "int8.md").read_text())


if __name__ == "__main__":
    main()
