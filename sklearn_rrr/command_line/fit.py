"""``fit``: learn from a folder of images and save a model."""

import shlex
import time

import numpy as np

from sklearn_rrr import save
from sklearn_rrr.command_line.chunks import predict_chunks
from sklearn_rrr.command_line.network import make_classifier
from sklearn_rrr.command_line.outcomes import note, say
from sklearn_rrr.command_line.photos import read_photos
from sklearn_rrr.command_line.scores import describe_accuracy
from sklearn_rrr.command_line.targets import check_target, describe_size


def run(args):
    """Fit a classifier to a labelled folder and save it."""
    check_target("--out", args.out, ".safetensors", replace=args.force)
    more = {"on_bad_file": args.on_bad_file, "checkpoint_dir": args.checkpoint_dir, "verbose": 1}
    classifier = make_classifier(args, **more)
    photos = read_photos(args, skip_bad=args.on_bad_file == "skip")
    training, rest, names = np.arange(len(photos.paths)), [], []
    if args.splits:
        training, rest, names = photos.separate()
    note(f"Fitting to {len(training)} images ...")
    start = time.perf_counter()
    classifier.fit(photos.paths[training].tolist(), photos.target[training])
    say(f"Fitted {classifier.backbone} in {time.perf_counter() - start:.1f} s")
    if args.splits:
        _print_accuracies(classifier, photos, rest, names)
    save(classifier, args.out)
    say(f"Saved {args.out}: {describe_size(args.out)}, {classifier.n_parameters_:,} parameters")
    if not args.splits:
        level = [] if args.level == 1 else ["--level", str(args.level)]
        command = shlex.join(["report", args.photos, "--html", "report.html", *level])
        say(
            "To measure the accuracy on images that were not trained on: "
            f"python -m sklearn_rrr {command}"
        )


def _print_accuracies(classifier, photos, rest, names):
    """Print the accuracy on each split that was not trained on."""
    chunks = predict_chunks(classifier, photos.paths[rest])
    probabilities = np.concatenate([part for _, part, _ in chunks])
    is_right = classifier.classes_[probabilities.argmax(1)] == photos.target[rest]
    is_right &= np.isfinite(probabilities[:, 0])  # files that cannot be read
    for name in names:
        mine = is_right[photos.split[rest] == name]
        say(f"Accuracy on {name}: {describe_accuracy(mine.sum(), len(mine))}")
