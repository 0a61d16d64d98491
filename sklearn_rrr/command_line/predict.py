"""``predict``: write the labels of images to a CSV file."""

import csv
import io
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from sklearn_rrr._files import replacing
from sklearn_rrr.command_line.chunks import predict_chunks
from sklearn_rrr.command_line.outcomes import PROBLEM, note, say
from sklearn_rrr.command_line.photos import list_photos
from sklearn_rrr.command_line.targets import check_target

COLUMNS = ("path", "label", "probability", "error")


def run(args):
    """Predict files part by part, and write a row for each."""
    if args.csv != "-":
        check_target("--csv", args.csv)
    paths = list_photos(args.photos)
    classifier = _load(args.model)
    counts = {"labelled": 0, "below the threshold": 0, "bad": 0}
    start = time.perf_counter()
    with open_table(args.csv) as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"p_{label}" for label in classifier.classes_] if args.proba else []
        writer.writerow([*COLUMNS, *columns])
        for rows in _make_rows(classifier, paths, args, counts, len(columns)):
            writer.writerows(rows)
            file.flush()
    seconds = time.perf_counter() - start
    summary = ", ".join(f"{n} {name}" for name, n in counts.items() if n or name == "labelled")
    speed = f"{seconds:.1f} s, {len(paths) / seconds:.0f} images per second"
    say(f"{len(paths)} images: {summary} ({speed})", sys.stderr if args.csv == "-" else None)
    if counts["bad"] and not args.skip_bad:
        note(
            f"error: {counts['bad']} of {len(paths)} files cannot be read; the column error has "
            "the reasons. --skip-bad ignores them."
        )
        return PROBLEM
    return None


def _load(path):
    if Path(path).suffix.lower() == ".onnx":
        from sklearn_rrr import OnnxClassifier

        return OnnxClassifier(path).fit()  # opens the file
    from sklearn_rrr import load

    return load(path)


def _make_rows(classifier, paths, args, counts, n_columns):
    """Yield the rows of each chunk; add to `counts`."""
    for chunk, probabilities, bad in predict_chunks(classifier, paths, args.batch):
        rows, labels = [], classifier.classes_[probabilities.argmax(1)]
        for path, label, row in zip(chunk, labels, probabilities, strict=True):
            if path in bad:
                counts["bad"] += 1
                rows.append([path, "", "", bad[path], *[""] * n_columns])
                continue
            best = row.max()
            is_sure = args.threshold is None or best >= args.threshold
            counts["labelled" if is_sure else "below the threshold"] += 1
            numbers = [f"{p:.6f}" for p in row[:n_columns]]
            rows.append([path, label if is_sure else "", f"{best:.6f}", "", *numbers])
        yield rows


@contextmanager
def open_table(path):
    """Open a text file that appears under its name only when it is complete."""
    form = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    if path == "-":
        file = io.TextIOWrapper(sys.stdout.buffer, **form)
        try:
            yield file
        finally:
            file.detach()  # or standard output would be closed
    elif os.path.exists(path) and not os.path.isfile(path):  # a device or pipe
        with open(path, "w", **form) as file:
            yield file
    else:
        partial = f"{os.path.realpath(path)}.part"
        with replacing(path, partial, mode="w", **form) as file:
            try:
                yield file
            except BaseException:
                note(f"The rows written so far are in {partial}.")
                raise
