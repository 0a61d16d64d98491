"""``report``: measure the accuracy on a folder of images, as one HTML page."""

import shlex
import time
from importlib.metadata import version

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from sklearn_rrr import __version__
from sklearn_rrr._files import write_atomically
from sklearn_rrr.command_line.chunks import predict_chunks
from sklearn_rrr.command_line.network import make_classifier
from sklearn_rrr.command_line.outcomes import USAGE, CommandError, note, say, short_warnings
from sklearn_rrr.command_line.photos import list_bad, read_photos
from sklearn_rrr.command_line.report_page import make_page
from sklearn_rrr.command_line.scores import Scores, describe_accuracy
from sklearn_rrr.command_line.targets import check_target, describe_size

PACKAGES = ("torch", "torchvision", "scikit-learn", "numpy", "pillow")


def run(args):
    """Predict each image by a classifier that was fitted to others, and write the page."""
    if args.splits and not (args.cv is args.groups is args.jobs is None):
        raise CommandError("--cv, --groups and --jobs cannot be used with --splits.", USAGE)
    check_target("--html", args.html)
    classifier = make_classifier(args)
    groups = None if args.groups is None else lambda path: _find_group(path, args.groups)
    photos = read_photos(args, groups)
    start = time.perf_counter()
    scores = (
        _test_on_splits(classifier, photos) if args.splits else _validate(args, classifier, photos)
    )
    seconds = time.perf_counter() - start
    say(f"Accuracy: {describe_accuracy(scores.is_right.sum(), len(scores.target))}")
    say(f"Balanced accuracy: {scores.balanced_accuracy:.3f}")
    settings = {
        "Command": shlex.join(["python", "-m", "sklearn_rrr", *args.argv]),
        "Classifier": repr(classifier),
        "Date": time.strftime("%Y-%m-%d %H:%M"),
        "Time": f"{seconds:.0f} s",
        "Versions": ", ".join(
            [f"sklearn_rrr {__version__}", *(f"{name} {version(name)}" for name in PACKAGES)]
        ),
    }
    page = make_page(args.photos, scores, photos.report, settings, args.worst)
    write_atomically(args.html, page.encode())
    say(f"Wrote {args.html}: {describe_size(args.html)}")


def _find_group(path, depth):
    if len(path.parts) <= depth:
        raise CommandError(f"--groups {depth}: {path} does not lie in a folder at this depth.")
    return "/".join(path.parts[:depth])


def _validate(args, classifier, photos):
    """Return the Scores of a cross-validation."""
    n_folds = args.cv or 5
    _check_folds(n_folds, photos)
    kind = StratifiedKFold if photos.groups is None else StratifiedGroupKFold
    splitter = kind(n_folds, shuffle=True, random_state=args.random_state)
    folds = list(splitter.split(photos.paths, photos.target, photos.groups))
    classes = np.unique(photos.target)
    probabilities = np.zeros((len(photos.paths), len(classes)))
    note(f"Cross-validating on {len(photos.paths)} images ...")
    quiet = args.jobs not in (None, 1)  # processes cannot share a terminal
    jobs = (delayed(_fit_predict)(classifier, photos, classes, *fold, quiet) for fold in folds)
    results = Parallel(args.jobs, return_as="generator")(jobs)
    bar = tqdm(results, total=n_folds, unit="fold", desc="Cross-validation", disable=None)
    for (_, test), found in zip(folds, bar, strict=True):
        probabilities[test] = found
    method = f"{n_folds}-fold cross-validation of {len(photos.paths)} images"
    if photos.groups is not None:
        method += f", with {len(np.unique(photos.groups))} groups kept together"
    return Scores(photos.paths, photos.target, probabilities, classes, method)


def _check_folds(n_folds, photos):
    labels, counts = np.unique(photos.target, return_counts=True)
    if len(labels) < 2:
        raise CommandError(f"at least 2 classes are needed; got {str(labels[0])!r} only.")
    if counts.min() < 2:
        raise CommandError(
            f"the class {str(labels[counts.argmin()])!r} has 1 image, but cross-validation needs 2 "
            "of each class. Add images, or remove the class."
        )
    parts = counts if photos.groups is None else [len(np.unique(photos.groups))]
    if max(parts) < n_folds:
        things = "images in the largest class" if photos.groups is None else "groups"
        raise CommandError(f"--cv {n_folds} is more than the number of {things}, {max(parts)}.")


def _test_on_splits(classifier, photos):
    """Return the Scores on the splits that are not for training."""
    train, rest, names = photos.separate()
    classes = np.unique(photos.target)
    note(f"Fitting to {len(train)} images and testing on {len(rest)} ...")
    probabilities = _fit_predict(classifier, photos, classes, train, rest)
    method = f"fitted to {len(train)} images, tested on {len(rest)} images of {', '.join(names)}"
    return Scores(photos.paths[rest], photos.target[rest], probabilities, classes, method)


@short_warnings()
def _fit_predict(classifier, photos, classes, train, test, quiet=False):
    """Return probabilities of the images `test`, (n, K); 0 for classes that `train` lacks."""
    fitted = clone(classifier).fit(photos.paths[train].tolist(), photos.target[train])
    probabilities = np.zeros((len(test), len(classes)))
    columns = np.searchsorted(classes, fitted.classes_)
    chunks = []
    form = {"description": "Testing", "quiet": quiet}
    for _, chunk, bad in predict_chunks(fitted, photos.paths[test], **form):
        if bad:
            raise CommandError(f"{len(bad)} files cannot be read:\n{list_bad([*bad.items()])}")
        chunks.append(chunk)
    probabilities[:, columns] = np.concatenate(chunks)
    return probabilities
