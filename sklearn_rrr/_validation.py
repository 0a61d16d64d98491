"""Parameter checks whose errors give the name, the rule, the value and the cure."""

import os
import tempfile
from numbers import Integral, Real

import numpy as np
import torch

from sklearn_rrr._files import check_path


def plain(value):
    """Return a NumPy scalar or array, as grids and ``cv_results_`` contain them, as Python's."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def check_int(name, value, low, high=None, hint=""):
    """Return `value` as an int if it is an int in [low, high]; else raise."""
    rule = f"an int in [{low}, {high}]" if high is not None else f"an int of at least {low}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _error(TypeError, name, rule, value, hint)
    if value < low or (high is not None and value > high):
        raise _error(ValueError, name, rule, value, hint)
    return int(value)


def check_jobs(name, value):
    """Raise unless `value` is a number of processes as joblib defines it: None or an int, not 0."""
    if value is None:
        return
    rule, hint = "None or an int other than 0", "-1 uses all processors."
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise _error(TypeError, name, rule, value, hint)
    if value == 0:
        raise _error(ValueError, name, rule, value, hint)


def check_real(name, value, low, high=None, hint="", open_low=False):
    """Return `value` as a float if it lies in [low, high]; `open_low` excludes `low`."""
    left = "(" if open_low else "["
    right = "inf)" if high is None else f"{high}]"
    rule = f"a number in {left}{low}, {right}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _error(TypeError, name, rule, value, hint)
    if not low <= value or (open_low and value == low) or (high is not None and value > high):
        raise _error(ValueError, name, rule, value, hint)
    if value == float("inf"):
        raise _error(ValueError, name, rule, value, hint)
    return float(value)


def check_choice(name, value, allowed, hint=""):
    """Return `value` if it is one of `allowed`; else raise an error that lists them."""
    value = plain(value)
    # Compare types first: 1 == True, and comparing an array gives no single truth value.
    if any(type(value) is type(item) and value == item for item in allowed):
        return value
    rule = "one of " + ", ".join(repr(item) for item in allowed)
    raise _error(ValueError, name, rule, value, hint)


def check_bool(name, value):
    """Return `value` if it is True or False; else raise."""
    if not isinstance(value, (bool, np.bool_)):
        raise _error(TypeError, name, "True or False", value, "")
    return bool(value)


def check_folder(name, value):
    """Raise unless `value` is None or the path of a folder, which exists or can be created."""
    if value is None:
        return
    path = check_path(name, value)
    if os.fspath(value).startswith("~"):
        hint = "Only a shell replaces ~; use os.path.expanduser."
        raise _error(ValueError, name, "a folder or None", value, hint)
    try:
        while not _exists(path):
            path = path.parent
        with tempfile.TemporaryDirectory(prefix=".", dir=path):
            pass
    except OSError as error:
        hint = f"It cannot be used: {error.strerror}."
        raise _error(ValueError, name, "a folder or None", value, hint) from error


def _exists(path):
    """Tell whether a file, folder or link of this name exists; raise if there cannot be one."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def check_seed(name, value):
    """Raise unless `value` is a `random_state` of scikit-learn's estimators."""
    if value is None or isinstance(value, np.random.RandomState):
        return
    rule = "None, an int in [0, 2**32 - 1] or a numpy.random.RandomState"
    if not isinstance(value, Integral):
        raise _error(TypeError, name, rule, value, "")
    if not 0 <= value < 2**32:
        raise _error(ValueError, name, rule, value, "")


def find_invalid(module):
    """Return the name of a parameter or buffer with impossible values, or None.

    Impossible are NaN, infinity, and negative variances of a norm.
    """
    for name, tensor in module.state_dict().items():
        if not torch.isfinite(tensor).all():
            return name
        if name.endswith("running_var") and (tensor < 0).any():
            return name
    return None


def resolve_device(device):
    """Return a torch.device; None selects a CUDA GPU if available, else the CPU.

    Raises
    ------
    ValueError
        If the device is unknown or not available.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        resolved = None
    if resolved is None or resolved.type not in ("cpu", "cuda", "mps"):
        rule = 'None, "cpu", "cuda", "mps" or such a torch.device'
        raise _error(ValueError, "device", rule, device, "")
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"`device`={str(device)!r}, but this machine has {torch.cuda.device_count()} CUDA "
            'device(s) that torch can use. Use None or "cpu".'
        )
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            '`device`="mps", but torch finds no MPS device on this machine. Use None or "cpu".'
        )
    return resolved


def _error(kind, name, rule, value, hint):
    message = f"`{name}` must be {rule}; got {value!r}."
    return kind(f"{message} {hint}" if hint else message)
