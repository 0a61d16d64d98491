"""Checkpoints: the digest that identifies a search, its results as files, its lock."""

import io
import json
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import torch
from filelock import FileLock, Timeout
from sklearn.base import BaseEstimator

from sklearn_rrr._files import write_atomically
from sklearn_rrr.images.forms import as_numpy


def digest_search(parameters, data):
    """Return a hexadecimal digest of a search, the same in every process.

    Parameters
    ----------
    parameters : dict of str to object
        Functions and classes enter by their names, estimators by their class and parameters.
    data : str
        Digest of the images, labels and weights.

    Raises
    ------
    TypeError
        Naming the first parameter that cannot be pickled.
    """
    # Apart from each other: within one digest, joblib tells shared objects from equal ones.
    digests = {name: _digest_parameter(name, value) for name, value in parameters.items()}
    return joblib.hash([digests, data])


def _digest_parameter(name, value):
    try:
        return joblib.hash(_reduce(value))
    except Exception as error:  # pickling runs code of the user
        raise TypeError(
            f"`{name}` must be something that can be pickled if `checkpoint_dir` is given; got "
            f"{value!r} ({error}). Use a function or class of a module instead of a lambda or a "
            "local one, or leave `checkpoint_dir` out."
        ) from error


def _reduce(value):
    """Return what identifies a value, without the fitted state of estimators."""
    if isinstance(value, BaseEstimator):
        return [type(value), _reduce(value.get_params(deep=False))]
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return np.ascontiguousarray(as_numpy(value))  # strides enter the digest
    if type(value) in (list, tuple):
        return type(value)(map(_reduce, value))
    if isinstance(value, dict):
        return {key: _reduce(item) for key, item in value.items()}
    return value


class CheckpointFolder:
    """Results by name, each a file that is whole or not there, and ``record.json``.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    record : dict
        What JSON holds; replaced by that of the folder, if it has one.
    """

    def __init__(self, folder, record):
        self.folder, self.record = Path(folder), record
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            with _explained(self._file):
                self.record = json.loads(self._file.read_text())

    @property
    def _file(self):
        return self.folder / "record.json"

    def write_record(self):
        write_atomically(self._file, json.dumps(self.record).encode())

    def save(self, name, result):
        """Write a result; it counts once the record says so."""
        buffer = io.BytesIO()
        joblib.dump(result, buffer)
        write_atomically(self.folder / f"{name}.joblib", buffer.getvalue())

    def load(self, name):
        path = self.folder / f"{name}.joblib"
        with _explained(path):
            return joblib.load(path)

    def drop(self, names):
        """Delete these results."""
        for name in names:
            (self.folder / f"{name}.joblib").unlink(missing_ok=True)


@contextmanager
def _explained(path):
    """Turn what a damaged file raises, which may be anything, into an error with a cure."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or not there ({error}); delete the folder to begin anew."
        ) from error


@contextmanager
def locked(folder):
    """Keep other processes from the same work; a process that ends gives its lock back.

    Raises
    ------
    ValueError
        If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / "lock").acquire(blocking=False)
    except Timeout as error:
        raise ValueError(
            f"Another process is at work in {str(folder)!r}; wait for it, or give this one "
            "a `checkpoint_dir` of its own."
        ) from error
    with lock:
        yield
