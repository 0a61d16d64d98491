"""Latency of one JPEG file, from its path to its label, in every engine, beside ResNet152.

    python -m benchmarks.one_image [--rounds 9]

Each contender decodes and resizes the file and predicts its label, with one thread. The photograph
has 640x427 pixels. Heads are fitted in closed form to few images, without epochs; the weights of
ResNet152 are random, because latency does not depend on them. Results are medians of interleaved
rounds; ratios are those of the medians.
"""

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from sklearn.datasets import load_sample_image

from benchmarks.int8 import ENGINES, export_both
from benchmarks.speed.contenders import cut_photos, interleave, repeated, write_files
from sklearn_rrr import FineTuning, OnnxClassifier, RRRNetClassifier

RESULTS = Path(__file__).parent / "results"
SMALL = "default"
LAST = replace(FineTuning.one_pass(), head_features="last")  # as in a usual ResNet
NETWORKS = {SMALL: RRRNetClassifier(fine_tuning="one_pass")} | {
    f"ResNet152, {size} px": RRRNetClassifier(
        "resnet152", weights=None, image_size=size, fine_tuning=LAST
    )
    for size in (128, 224)
}


def make_contenders(path, folder):
    """Return {(network, engine, precision): function that predicts the label of `path`}."""
    images, labels = cut_photos(40, (64, 64))
    contenders = {}
    for name, clf in NETWORKS.items():
        clf.fit(images, labels)
        estimators = {("torch", "fp32"): clf}
        place = Path(folder) / name
        place.mkdir()
        for precision, file in export_both(clf, images, place).items():
            for engine, key in ENGINES.items():
                estimators[engine, precision] = OnnxClassifier(file, engine=key, n_threads=1)
        for (engine, precision), estimator in estimators.items():
            contenders[name, engine, precision] = repeated(partial(estimator.predict, [path]), 3)
    return contenders


def write(seconds, rounds, path):
    """Write latencies and ratios as Markdown."""
    others = [name for name in NETWORKS if name != SMALL]
    head = ["engine", "precision", *(f"{name}, ms" for name in NETWORKS)]
    head += [f"times faster than {name}" for name in others]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for engine, precision in dict.fromkeys(key[1:] for key in seconds.index):
        row = {name: seconds[name, engine, precision] for name in NETWORKS}
        cells = [f"{1e3 * value:.1f}" for value in row.values()]
        cells += [f"{row[name] / row[SMALL]:.1f}" for name in others]
        lines.append(f"| {engine} | {precision} | {' | '.join(cells)} |")
    note = (
        "`predict` of the path of one JPEG file of 640x427 pixels. Default: the whole "
        f"efficientnet_lite0 at {NETWORKS[SMALL].image_size_} pixels, without a companion. One "
        f"thread; medians of {rounds} interleaved rounds. Written by `make bench-one-image`."
    )
    path.write_text("# One image\n\n" + "\n".join(lines) + f"\n\n{note}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        (path,) = write_files([load_sample_image("china.jpg")], folder)
        contenders = make_contenders(path, folder)
        seconds = interleave(contenders, arguments.rounds)
    write(seconds, arguments.rounds, RESULTS / "one_image.md")
    print((RESULTS / "one_image.md").read_text())


if __name__ == "__main__":
    main()
