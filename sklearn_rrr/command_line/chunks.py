"""Predictions for many files, chunk by chunk."""

import numpy as np
from tqdm.auto import tqdm

from sklearn_rrr.images.decoding import BadImages

SIZE = 256


def predict_chunks(classifier, paths, size=SIZE, description="Predicting", quiet=False):
    """Predict files with a progress bar, in memory that does not grow with their number.

    Parameters
    ----------
    classifier : fitted classifier
    paths : sequence of str
        Each once.
    size : int, default=256
        Number of files in a chunk.
    description : str, default="Predicting"
        Text beside the bar.
    quiet : bool, default=False
        Whether to show no bar. There is none either if standard error is not a terminal.

    Yields
    ------
    paths : list of str
        The files of a chunk, n of them.
    probabilities : ndarray of shape (n, n_classes)
        NaN for files that cannot be read.
    bad : dict
        Reasons why these files cannot be read, by path.
    """
    form = {"unit": " images", "desc": description, "disable": quiet or None, "leave": None}
    with tqdm(total=len(paths), **form) as bar:
        for start in range(0, len(paths), size):
            chunk = list(paths[start : start + size])
            yield chunk, *_predict(classifier, chunk)
            bar.update(len(chunk))


def _predict(classifier, paths):
    bad, probabilities = {}, np.full((len(paths), len(classifier.classes_)), np.nan)
    while len(good := [i for i, path in enumerate(paths) if path not in bad]):
        try:
            probabilities[good] = classifier.predict_proba([paths[i] for i in good])
            break
        except BadImages as error:
            for i, reason in error.bad:
                path = paths[good[i]]
                bad[path] = reason.removeprefix(f"{path!r}: ")
    return probabilities, bad
