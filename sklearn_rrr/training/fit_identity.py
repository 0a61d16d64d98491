"""Identity of a fit: digests and short texts of all that determines its result."""

import os
from pathlib import Path

import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_rrr._version import __version__
from sklearn_rrr.training.checkpoints import digest_parameter, simplify

UNIMPORTANT = ("checkpoint_dir", "device", "n_jobs", "verbose")
READABLE = (type(None), bool, int, float, str, tuple, dict)


def identify(estimator):
    """Return the digest and a short text of all that determines a fit, apart from the images.

    These are the versions of this package and of torch, and the parameters by their names, also of
    nested estimators. A nested estimator itself is represented by its class, or by its weights if
    it is frozen.
    """
    causes = {"class": type(estimator), "sklearn_rrr": __version__, "torch": torch.__version__}
    causes |= _list_parameters(estimator)
    return {name: [digest_parameter(name, value), _show(value)] for name, value in causes.items()}


def _list_parameters(estimator):
    found = {}
    for name, value in estimator.get_params(deep=False).items():
        if name in UNIMPORTANT:
            continue
        found[name] = value
        if isinstance(value, (str, Path)) and name == "weights" and os.path.isfile(value):
            found[name] = np.fromfile(value, dtype=np.uint8)
        elif hasattr(value, "get_params") and not isinstance(value, type):
            frozen = isinstance(value, FrozenEstimator)
            found[name] = _read_module(value) if frozen else type(value)
            nested = _list_parameters(value)
            found |= {f"{name}__{inner}": item for inner, item in nested.items()}
    return found


def _read_module(frozen):
    """Return the class and the weights of a fitted estimator."""
    inner = frozen.estimator
    inner = getattr(inner, "estimator_", inner)
    state = inner.module_.state_dict() if hasattr(inner, "module_") else {}
    return [type(inner).__name__, {k: v.cpu().numpy() for k, v in state.items()}]


def _show(value):
    """Return a parameter as text for messages; an empty one if it is long or no plain value."""
    if isinstance(value, type):
        return value.__name__
    value = simplify(value)
    text = repr(value) if isinstance(value, READABLE) else ""
    return text if len(text) <= 40 else ""


def describe_changes(known, identity):
    """Return a text of what differs between the identities of two fits.

    It is like "batch_size (16, now 8), y". Of nested parameters, only the outermost is named.
    """
    names = {**known, **identity}
    changed = [name for name in names if known.get(name, [""])[0] != identity.get(name, [""])[0]]
    if "class" in changed:
        changed = ["class"]
    texts = []
    for name in changed:
        if not any(name.startswith(f"{other}__") for other in changed):
            before, now = (found.get(name, ["", ""])[1] for found in (known, identity))
            texts.append(f"{name} ({before}, now {now})" if before and now else name)
    return ", ".join(texts)
