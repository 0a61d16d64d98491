"""Checkpoints of a fit or search: digests of parameters, stored results and a lock."""

import io
import json
from contextlib import contextmanager
from pathlib import Path

import joblib
import numpy as np
import torch
from filelock import FileLock, Timeout
from sklearn.base import BaseEstimator

from sklearn_rrr._files import digest_bytes, opened, remove_temporaries, write_atomically
from sklearn_rrr.images.array_likes import as_numpy

FEW = 1000  # elements of an array that may have been given as a list


def digest_parameter(name, value):
    """Return the digest of a parameter, the same in every process.

    Functions and classes are identified by their names, estimators by their class and parameters.
    Each parameter has its own digest: within one, joblib distinguishes shared objects from equal
    ones.

    Raises
    ------
    TypeError
        If the parameter cannot be pickled.
    """
    try:
        return joblib.hash(simplify(value))
    except Exception as error:  # pickling may run user code
        raise TypeError(
            f"`{name}` must be picklable if `checkpoint_dir` is given; got {value!r} ({error}). "
            "Use a function or class defined at the top level of a module, or "
            "`checkpoint_dir`=None."
        ) from error


def simplify(value):
    """Return a value to hash: the same for equal ones of other types, without fitted state."""
    if isinstance(value, BaseEstimator):
        return simplify([type(value), value.get_params(deep=False)])
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (torch.Tensor, np.ndarray)):
        value = np.ascontiguousarray(as_numpy(value))  # the digest depends on strides
        return simplify(value.tolist()) if value.size <= FEW else value
    if type(value) in (list, tuple):
        return tuple(map(simplify, value))
    if isinstance(value, dict):
        return {simplify(key): simplify(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


class CheckpointFolder:
    """Folder of results, one file each, and a record of the search in ``record.json``.

    Files are written atomically, so none is ever incomplete. Only one process may use the folder.

    Parameters
    ----------
    folder : path
        Folder of the search, created if missing.
    record : dict
        Initial record, JSON-compatible. If the folder already has a record, that one is used.
    """

    def __init__(self, folder, record):
        self.folder, self.record = Path(folder), record
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_temporaries(self.folder)
        if self._file.exists():
            with _explained(self._file):
                content = json.loads(_read(self._file))
                self.record = content["record"]
                if content["sha256"] != _digest(self.record):
                    raise ValueError("its checksum is wrong")
                for name, value in record.items():
                    if type(self.record.get(name)) is not type(value):
                        raise ValueError(f"{name!r} is missing")

    @property
    def _file(self):
        return self.folder / "record.json"

    def write_record(self):
        """Write the current record to ``record.json``."""
        content = {"record": self.record, "sha256": _digest(self.record)}
        write_atomically(self._file, json.dumps(content).encode())

    def save(self, name, result):
        """Write a result; it is valid only once the record lists it."""
        buffer = io.BytesIO()
        joblib.dump(result, buffer)
        content = buffer.getvalue()
        self.record.setdefault("results", {})[name] = digest_bytes(content)
        write_atomically(self.folder / f"{name}.joblib", content)

    def load(self, name):
        """Return the result of this name."""
        path = self.folder / f"{name}.joblib"
        with _explained(path):
            content = _read(path)
            if self.record["results"][name] != digest_bytes(content):
                raise ValueError("its checksum is wrong")
            return joblib.load(io.BytesIO(content))

    def drop(self, names):
        """Delete the results of these names."""
        for name in names:
            self.record.get("results", {}).pop(name, None)
            (self.folder / f"{name}.joblib").unlink(missing_ok=True)


def _read(path):
    with opened(path) as file:
        return file.read()


def _digest(record):
    return digest_bytes(json.dumps(record, sort_keys=True).encode())


@contextmanager
def _explained(path):
    """Re-raise any error caused by a damaged file as a ValueError with a cure."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or missing ({error}); delete its folder to start again."
        ) from error


@contextmanager
def locked(folder):
    """Lock the folder, created if missing; a process that dies releases its lock.

    Raises
    ------
    ValueError
        If another process or thread holds the lock, or the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock").acquire(blocking=False)
    except Timeout as error:
        raise ValueError(
            f"Another process or thread is using {str(folder)!r}: a `checkpoint_dir` belongs to "
            "one fit at a time. Wait until it ends, set another folder or, in a search of several "
            "processes, None."
        ) from error
    except (OSError, NotImplementedError) as error:  # the latter of systems without locks
        raise ValueError(
            f"`checkpoint_dir`: the folder {str(folder)!r} cannot be used ({error}); set another."
        ) from error
    with lock:
        yield
