"""Checkpoints: what tells one piece of work from another, and its results as files."""

import hashlib
import io
import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator

from sklearn_rrr._files import write_atomically

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def fingerprint(value):
    """Return a hexadecimal digest of a value's content, the same in every process.

    Numbers, strings, containers, arrays, tensors, frames, estimators, random states, functions
    (their code, defaults and what they enclose), methods and objects of plain attributes.
    """
    text = json.dumps(_describe(value), sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _describe(value):
    """Return what identifies a value, in what JSON holds."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(_describe, value)]
    if isinstance(value, dict):
        return {"dict": sorted([str(_describe(k)), _describe(v)] for k, v in value.items())}
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float().numpy() if value.is_floating_point() else value.numpy()
    if hasattr(value, "iloc"):
        value = value.to_numpy()
    if isinstance(value, (np.ndarray, np.generic)):
        return _describe_array(np.asarray(value))
    return [type(value).__module__, type(value).__qualname__, _describe_object(value)]


def _is_empty(cell):
    """Tell whether a variable of a closure has no value yet."""
    try:
        return cell.cell_contents is cell
    except ValueError:
        return True


def _describe_array(array):
    if array.dtype.hasobject:
        return ["array", array.shape, [_describe(item) for item in array.ravel().tolist()]]
    content = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
    return ["array", array.shape, array.dtype.str, content]


def _describe_object(value):
    if isinstance(value, np.random.RandomState):
        return _describe(value.get_state())
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)]
        held = [value.__defaults__, value.__kwdefaults__]
        held.append([content for content in cells if content is not value])
        code = _describe_object(value.__code__)
        return [value.__module__, value.__qualname__, code, _describe(held)]
    if isinstance(value, MethodType):
        return _describe([value.__self__, value.__func__])
    if isinstance(value, CodeType):
        inner = [c if not isinstance(c, CodeType) else _describe_object(c) for c in value.co_consts]
        return [value.co_code.hex(), list(value.co_names), list(map(str, inner))]
    if isinstance(value, partial):
        return _describe([value.func, value.args, value.keywords])
    if isinstance(value, type):
        return [value.__module__, value.__qualname__]
    if isinstance(value, BaseEstimator):
        return _describe(value.get_params(deep=False))
    if isinstance(value, (Path, torch.device, torch.dtype)):
        return str(value)
    return _describe(vars(value)) if hasattr(value, "__dict__") else repr(value)


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
    with (folder / "lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(
                    f"Another process is at work in {str(folder)!r}; wait for it, or give this one "
                    "a `checkpoint_dir` of its own."
                ) from error
        yield
