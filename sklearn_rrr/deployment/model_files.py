"""Save and load fitted classifiers without pickle.

A saved file is in safetensors format: the network's weights are tensors, everything else is
JSON in the file's header. Reading a file executes no code from it.
"""

import json
import os
import tempfile
from contextlib import contextmanager
from dataclasses import is_dataclass

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize

from sklearn_rrr._files import (
    check_path,
    digest_bytes,
    explaining,
    find_target,
    opened,
    write_atomically,
)
from sklearn_rrr._surroundings import drawing, shielded
from sklearn_rrr._unwrapping import refuse_steps, unwrap
from sklearn_rrr._validation import find_invalid
from sklearn_rrr.backbones.fine_tuning import FineTuning
from sklearn_rrr.backbones.registry import make_backbone
from sklearn_rrr.backbones.state_dict import check_state
from sklearn_rrr.classifiers.baselines import FineTuningClassifier, LastLayerClassifier
from sklearn_rrr.classifiers.ensembles import ENSEMBLES
from sklearn_rrr.classifiers.rrr_net_classifier import RRRNetClassifier
from sklearn_rrr.deployment.onnx_files import decode_array
from sklearn_rrr.images.image_format import ImageFormat
from sklearn_rrr.nettailor.fine_tuning import TailoringFineTuning
from sklearn_rrr.nettailor.nettailor_classifier import NetTailorClassifier
from sklearn_rrr.nettailor.tailored_net import TailoredNet
from sklearn_rrr.networks.branch_widths import MAX_BRANCHES
from sklearn_rrr.networks.rrr_net import RRRNet
from sklearn_rrr.networks.stacked_net import StackedNet
from sklearn_rrr.pruning.removal import reshape_like
from sklearn_rrr.training.settings import Settings

HEADER = "sklearn_rrr"
CHECKSUM = "sha256"
TASK = "shared"  # key in the header of a file that holds one task without its backbone
ESTIMATORS = {
    cls.__name__: cls
    for cls in (RRRNetClassifier, LastLayerClassifier, FineTuningClassifier, NetTailorClassifier)
}
RECORDS = (FineTuning, TailoringFineTuning, ImageFormat, Settings, *ENSEMBLES.values())
RECORDS = {cls.__name__: cls for cls in RECORDS}
FITTED = {"classes_", "image_size_", "trainable_", "fine_tuning_", "_recommended", "_image_format"}
DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


# ---------------------------------------------------------------------------------- save

SIZES = ("image_size", "companion_size")  # of a StackedNet


@shielded()
def save(estimator, path):
    """Save a fitted classifier as one safetensors file, without pickle.

    Parameters
    ----------
    estimator : RRRNetClassifier or other classifier
        Fitted classifier, or a search, pruner, selector or pipeline without preprocessing, from
        which the classifier inside is saved. Its parameters must be plain values: no functions,
        generators or dicts of weights.
    path : str or path
        File to write. An existing file is replaced.

    Raises
    ------
    NotFittedError
        If `estimator` is not fitted.
    TypeError
        If `estimator` is another kind of object, or a parameter cannot be stored as JSON.
    ValueError
        If `estimator` is a pipeline with preprocessing steps, which cannot be saved.
    OSError
        If the file cannot be written.

    See Also
    --------
    load : Load the file.
    export_onnx : Export the classifier for machines without torch.

    Notes
    -----
    The file contains no metadata routing requests, no in-memory images from `skipped_`, and no
    teacher of a :class:`NetTailorClassifier`, which prediction does not need.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import RRRNetClassifier, load, save
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> X = X / 16
    >>> clf = RRRNetClassifier("synth50", blocks=(1, 1, 1, 1), image_size=32, max_epochs=1)
    >>> clf = clf.fit(X[:64], y[:64])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(clf, f"{folder}/digits.safetensors")
    ...     again = load(f"{folder}/digits.safetensors")
    >>> bool((again.predict(X[64:70]) == clf.predict(X[64:70])).all())
    True
    """
    estimator = find_classifier(estimator)
    path = check_target(path)
    tensors = {key: value.contiguous() for key, value in estimator.module_.state_dict().items()}
    write(path, describe(estimator), tensors)


def describe(estimator, without=("teacher",)):
    """Return a fitted classifier without its network's tensors, as JSON-compatible values.

    Parameters named in `without` are set to None.
    """
    if type(estimator) is not ESTIMATORS.get(type(estimator).__name__):
        raise TypeError(
            f"`load` does not support the class {type(estimator).__qualname__}, only "
            f"{', '.join(ESTIMATORS)}. Use joblib.dump for other classes."
        )
    state = estimator._state_without_code()
    for name in ("_metadata_request", "teacher_"):
        state.pop(name, None)
    state |= {name: None for name in without if name in state}
    module = state.pop("module_")
    state["skipped_"] = [
        item if isinstance(item, (int, str, os.PathLike)) else None for item in state["skipped_"]
    ]
    return {
        "estimator": type(estimator).__name__,
        "state": {name: encode(value, name) for name, value in state.items()},
        "network": _describe_network(module),
    }


def _describe_network(module):
    """Return what is needed to rebuild a network, apart from its tensors."""
    if isinstance(module, StackedNet):
        sizes = {name: getattr(module, name) for name in SIZES}
        parts = {"main": module.main, "companion": module.companion}
        return sizes | {name: _describe_network(part) for name, part in parts.items()}
    return {
        "backbone": module.backbone_name,
        "arguments": encode(module.arguments, "arguments"),
        "is_reduced": module.is_reduced,
    }


def write(path, content, tensors):
    """Write tensors and JSON-compatible content as one safetensors file, with a checksum."""
    write_atomically(path, serialize(tensors, make_metadata(json.dumps(content), tensors)))


def make_metadata(header, tensors):
    """Return the metadata of a file: its header, a str, and a checksum of header and tensors."""
    return {HEADER: header, CHECKSUM: _digest_content(header, tensors)}


def _digest_content(header, tensors):
    """Return the SHA-256 of all that a file contains."""
    parts = [header.encode()]
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        parts.append(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        parts.append(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest_bytes(*parts)


def check_target(path):
    """Return `path` as a Path, after checking before the work that a file can be written there."""
    path = check_path("path", path)
    try:
        target, _ = find_target(path)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise type(error)(f"`path`={str(path)!r}: {error.strerror or error}") from error
    return path


def find_classifier(estimator):
    """Return the fitted classifier inside an estimator without preprocessing steps."""
    kind = (
        f"a classifier of sklearn_rrr, such as {', '.join(ESTIMATORS)}, or a pipeline, search, "
        "pruner or selector of one"
    )
    classifier, steps = unwrap(estimator, "module_", "_image_format", kind=kind)
    refuse_steps(steps)
    return classifier


def encode(value, name):
    """Return a JSON-compatible copy of a value; tuples, dicts, arrays and records get a tag."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic) and not isinstance(value.item(), np.generic):
        return encode(value.item(), name)
    if isinstance(value, (list, tuple)):
        items = [encode(item, name) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        pairs = [[encode(k, name), encode(v, name)] for k, v in value.items()]
        return {"dict": pairs}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufUO" and value.ndim == 1:
        return {"array": encode(value.tolist(), name), "dtype": value.dtype.str}
    if isinstance(value, pd.DataFrame):
        return {"frame": encode({str(c): value[c].tolist() for c in value}, name)}
    if type(value) is RECORDS.get(type(value).__name__):
        fields = value.__dict__ if is_dataclass(value) else value.get_params()
        return {type(value).__name__: encode(dict(fields), name)}
    if isinstance(value, (os.PathLike, torch.device)):
        return str(value)
    cure = "Use joblib.dump." if name.endswith("_") else "Set a plain value, or use joblib.dump."
    raise TypeError(
        f"`{name}` contains a {type(value).__name__}, which cannot be saved without pickle; got "
        f"{repr(value)[:80]}. {cure}"
    )


# ---------------------------------------------------------------------------------- load


@shielded()
def load(path):
    """Load a classifier from a file written by :func:`save`, without executing code from it.

    Parameters
    ----------
    path : str or path
        File written by `save`.

    Returns
    -------
    estimator : object
        Fitted classifier, on the CPU.

    Raises
    ------
    ValueError
        If the file is missing, damaged or not written by `save`, or if its backbone is not
        registered.

    See Also
    --------
    save : Save the classifier.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import RRRNetClassifier, load, save
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> X = X / 16
    >>> clf = RRRNetClassifier("synth50", blocks=(1, 1, 1, 1), image_size=32, max_epochs=1)
    >>> clf = clf.fit(X[:32], y[:32])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(clf, f"{folder}/digits.safetensors")
    ...     load(f"{folder}/digits.safetensors").classes_
    array([0, 1])
    """
    content, tensors = read(path)
    if TASK in content:
        raise ValueError(f"{path} contains a task without its backbone; use sklearn_rrr.load_task.")
    with explained_damage(path):
        return rebuild(content, tensors, str(path))


def read(path):
    """Return the content and the tensors of a file written by :func:`write`."""
    path = check_path("path", path)
    with explaining("path", path), opened(path) as file:
        data = file.read()  # before parsing: a file may change while it is read
    try:
        tensors = deserialize(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{path} was not written by sklearn_rrr.save, or is damaged ({error}). Nothing in it "
            "was executed. If it is a joblib file that you trust, use joblib.load."
        ) from error
    header = metadata.get(HEADER)
    if header is None:
        raise ValueError(f"{path} contains tensors, but was not written by sklearn_rrr.save.")
    if metadata.get(CHECKSUM) != _digest_content(header, tensors):
        raise ValueError(
            f"{path} is damaged or was changed: its checksum is wrong. Save the classifier again."
        )
    with explained_damage(path):
        content = json.loads(header)
        if not isinstance(content, dict):
            raise ValueError(f"its header is a {type(content).__name__}")
        return content, tensors


@contextmanager
def explained_damage(path):
    """Re-raise errors caused by the content of a file as a ValueError that names the file."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(
            f"{path} cannot be loaded: {error or type(error).__name__}. It is damaged, was "
            "saved by another version of sklearn_rrr, or needs a backbone that is not registered."
        ) from error


def rebuild(content, tensors, source, complete=None):
    """Rebuild a fitted estimator from the content and the tensors of a file.

    If the file contains only part of the tensors, `complete(module, tensors)` returns all of them.
    """
    cls, network = ESTIMATORS[content["estimator"]], content["network"]
    state = {name: decode(value) for name, value in content["state"].items()}
    known = cls().get_params(deep=False)
    if missing := (FITTED | set(known)) - state.keys():
        raise ValueError(f"{min(missing)!r} is missing")
    if unknown := [name for name in state if hasattr(cls, name) and name not in known]:
        raise ValueError(f"{unknown[0]!r} is not an attribute of a fitted classifier")
    size = state["image_size_"]
    if type(size) is not int or not 8 <= size <= 4096:
        raise ValueError(f"the image size {size!r} is not in [8, 4096]")
    with drawing(0):  # the initial random weights are overwritten below
        module = _rebuild_network(cls, network, tensors, len(state["classes_"]))
    if complete is not None:
        tensors = complete(module, tensors)
    check_state(tensors, module.state_dict(), source, module.backbone_name)
    module.load_state_dict(tensors)
    if name := find_invalid(module):
        raise ValueError(f"{name!r} has values that are NaN, infinite or impossible")
    if module.is_reduced:  # the shapes of successive layers might not match
        with torch.no_grad():
            module.eval()(torch.zeros(2, 3, 32, 32))
    module.to(memory_format=torch.channels_last).freeze(state["trainable_"]).eval()
    estimator = cls.__new__(cls)
    estimator.__setstate__({**state, "module_": module})
    return estimator


def _rebuild_network(cls, network, tensors, n_classes):
    """Return a network with the shapes of `tensors`, but without their values."""
    if "companion" in network and cls is not NetTailorClassifier:
        parts, head = {}, {k: v for k, v in tensors.items() if k.startswith("head.")}
        for name in ("main", "companion"):
            prefix = f"stump.{name}."
            if "companion" in network[name]:
                raise ValueError("a companion cannot have a companion")
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            parts[name] = _rebuild_network(cls, network[name], own | head, n_classes)
        sizes = {name: network[name] for name in SIZES}
        if not all(isinstance(size, int) and 8 <= size <= 4096 for size in sizes.values()):
            raise ValueError(f"the image sizes {sizes} are not in [8, 4096]")
        return StackedNet(**parts, **sizes)
    arguments = decode(network["arguments"])
    backbone = make_backbone(network["backbone"])
    _check_arguments(cls, arguments, tensors, n_classes, backbone)
    module = (TailoredNet if cls is NetTailorClassifier else RRRNet)(backbone, **arguments)
    if network["is_reduced"] and cls is not NetTailorClassifier:
        reshape_like(module, tensors)
    return module


def _check_arguments(cls, arguments, tensors, n_classes, backbone):
    """Check the sizes stored in a file before building a network from them."""
    n_branches, n_outputs = tensors["head.bias"].shape
    valid = arguments["n_classes"] == n_outputs == n_classes
    if cls is NetTailorClassifier:  # TailoredNet checks the paths itself
        valid &= arguments.keys() == {"n_classes", "paths", "static"}
        valid &= n_branches == 1 and arguments["static"] is True
    else:
        valid &= arguments["n_branches"] == n_branches <= MAX_BRANCHES
        valid &= type(arguments["width_offset"]) is int and arguments["width_offset"] >= 0
        valid &= all(map(_is_possible, arguments["blocks"], backbone.depths, backbone.phases))
        valid &= len(arguments["blocks"]) == len(backbone.phases)
    if not valid:
        raise ValueError("the description of the network does not match its tensors")


def _is_possible(blocks, depth, phase):
    """Tell whether `blocks` are a number of blocks of a phase, or positions of some of them."""
    if isinstance(blocks, int):
        return 1 <= blocks <= depth
    return list(blocks) == sorted({*blocks} & {*range(len(phase))})


def decode(value):
    """Invert :func:`encode`."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), None)
    content = decode(value[tag])
    if tag == "tuple":
        return tuple(content)
    if tag == "dict":
        return dict(content)
    if tag == "array":
        return decode_array({"array": content, "dtype": value["dtype"]})
    if tag == "frame":
        return pd.DataFrame(content)
    return RECORDS[tag](**content)
