"""Save and load many NetTailor tasks that share one backbone.

A NetTailor network (CVPR 2019) reuses the backbone's blocks unchanged, so a task's file contains
only proxies, scales, norm statistics and the head. Files are in the format of ``save``.
"""

import hashlib
import os
import re
from pathlib import Path
from uuid import uuid4

import pandas as pd
from safetensors.torch import save as serialize

from sklearn_rrr._files import check_path, write_atomically
from sklearn_rrr._surroundings import shielded
from sklearn_rrr._validation import check_folder
from sklearn_rrr.backbones.weights import load_backbone
from sklearn_rrr.deployment.model_files import (
    TASK,
    check_target,
    describe,
    explained_damage,
    find_classifier,
    read,
    rebuild,
    write,
)
from sklearn_rrr.nettailor.nettailor_classifier import NetTailorClassifier
from sklearn_rrr.nettailor.tailored_net import TailoredNet

BACKBONE = "backbone.safetensors"
# Names of files that are taken, on some systems by devices.
RESERVED = {"backbone", "con", "prn", "aux", "nul"}
RESERVED |= {f"{device}{number}" for device in ("com", "lpt") for number in range(10)}


@shielded()
def save_task(estimator, path):
    """Save a tailored classifier without the weights of its backbone, and without pickle.

    Parameters
    ----------
    estimator : NetTailorClassifier
        Fitted classifier with parameters that :func:`sklearn_rrr.save` supports, or a search or
        pipeline without preprocessing, from which the classifier inside is saved.
    path : str or path
        File to write. An existing file is replaced.

    Raises
    ------
    NotFittedError, TypeError, ValueError, OSError
        As in :func:`sklearn_rrr.save`; TypeError also for other classifiers.

    See Also
    --------
    load_task : Load the file.
    MultiTaskStore : Folder of tasks with their backbone.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import NetTailorClassifier, load_task, save_task
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> clf = NetTailorClassifier(
    ...     n_removed=12, max_epochs=1, validation_fraction=None, image_size=32, random_state=0
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_task(clf.fit(X[:16] / 16, y[:16]), f"{folder}/digits.safetensors")
    ...     load_task(f"{folder}/digits.safetensors").classes_
    array([0, 1])
    """
    estimator = _find_tailored(estimator)
    path = check_target(path)
    content = describe(estimator, without=("teacher", "weights"))
    content[TASK] = _digest(estimator.module_)
    tensors = {key: value.contiguous() for key, value in estimator.task_delta_.items()}
    write(path, content, tensors)


def _find_tailored(estimator):
    """Return the fitted NetTailorClassifier inside an estimator without preprocessing steps."""
    estimator = find_classifier(estimator)
    if not isinstance(estimator, NetTailorClassifier):
        raise TypeError(
            "`estimator` must be a NetTailorClassifier, which shares blocks with its backbone; "
            f"got a {type(estimator).__name__}. Use sklearn_rrr.save."
        )
    return estimator


@shielded()
def load_task(path, weights="pretrained"):
    """Load a classifier from a task's file and the weights of the backbone.

    Parameters
    ----------
    path : str or path
        File written by :func:`save_task`.
    weights : str, path or dict, default="pretrained"
        Weights of the backbone, as in :func:`sklearn_rrr.load_backbone`.

    Returns
    -------
    estimator : NetTailorClassifier
        Fitted classifier, on the CPU. Its parameter `weights` is the value given here, so that
        refitting starts from these weights; its parameter `teacher` is None.

    Raises
    ------
    ValueError
        If a file is missing or damaged, or the task was trained on other weights.

    See Also
    --------
    save_task : Save a task.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import NetTailorClassifier, load_task, save_task
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> clf = NetTailorClassifier(
    ...     n_removed=12, max_epochs=1, validation_fraction=None, image_size=32, random_state=0
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_task(clf.fit(X[:16] / 16, y[:16]), f"{folder}/digits.safetensors")
    ...     load_task(f"{folder}/digits.safetensors").classes_
    array([0, 1])
    """
    content, tensors = read(path)

    def complete(module, delta):
        backbone, _ = load_backbone(module.backbone_name, weights)
        whole = TailoredNet(backbone, **module.arguments)
        keys = set(whole.task_keys())
        if strange := sorted(keys ^ delta.keys()):
            raise ValueError(f"{strange[0]!r} is missing, or does not belong to the task")
        if _digest(whole) != content[TASK]:
            raise ValueError(
                "the task was trained on other weights of the backbone "
                f"{module.backbone_name!r}; give those as `weights`"
            )
        return whole.state_dict() | delta

    if TASK not in content:
        raise ValueError(f"{path} contains a whole classifier; use sklearn_rrr.load.")
    with explained_damage(path):
        estimator = rebuild(content, tensors, str(path), complete)
    given = str(weights) if isinstance(weights, Path) else weights
    return estimator.set_params(weights=given)


def _digest(module):
    """Return the SHA-256 digest of the weights that a network shares with its backbone."""
    digest, state = hashlib.sha256(), module.state_dict()
    for key in sorted(module.shared_keys()):
        digest.update(key.encode())
        digest.update(state[key].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class MultiTaskStore:
    """Folder with the weights of one backbone and a small file for each task.

    Parameters
    ----------
    folder : str or path
        Folder of the store, created if missing. An existing store keeps its backbone's weights.
    backbone : str, default="efficientnet_lite0"
        Name of the backbone.
    weights : str, path or dict, default="pretrained"
        Weights of the backbone on which the tasks are trained, as in
        :func:`sklearn_rrr.load_backbone`. Random weights are refused. Ignored if the store exists.

    Raises
    ------
    ValueError
        If the weights are random, or do not fit the backbone.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import MultiTaskStore, NetTailorClassifier
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> clf = NetTailorClassifier(n_removed=12, max_epochs=1, image_size=32, random_state=0)
    >>> clf = clf.fit(X[:64] / 16, y[:64])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = MultiTaskStore(folder).add("digits", clf)
    ...     again = store.load("digits")
    ...     store.sizes().index.tolist()
    ['backbone', 'digits']
    >>> bool((again.predict(X[64:70] / 16) == clf.predict(X[64:70] / 16)).all())
    True
    """

    def __init__(self, folder, backbone="efficientnet_lite0", weights="pretrained"):
        self.folder, self.backbone = check_path("folder", folder), backbone
        file = self.folder / BACKBONE
        if os.path.exists(file):  # also in a folder that is read-only
            load_backbone(backbone, file)  # raises if the file belongs to another backbone
            return
        check_folder("folder", folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        network, trained = load_backbone(backbone, weights)
        if not trained:
            raise ValueError(
                f"`weights`={weights!r} are random for the backbone {backbone!r}: tasks can only "
                "share pre-trained weights. Give a file or a state dict."
            )
        write_atomically(file, serialize(network.state_dict()))

    def __repr__(self):
        return f"MultiTaskStore({str(self.folder)!r}, backbone={self.backbone!r})"

    @property
    def tasks(self):
        """Names of the tasks, sorted."""
        found = self.folder.glob("*.safetensors")
        files = (path.name for path in found if path.is_file())
        # A leading dot marks a file whose writing was interrupted.
        names = (name for name in files if name != BACKBONE and not name.startswith("."))
        return sorted(name.removesuffix(".safetensors") for name in names)

    def add(self, name, estimator):
        """Add a task to the store.

        Parameters
        ----------
        name : str
            Name of the task: letters, digits, "_", "-" and ".". An existing task of the same
            name is replaced.
        estimator : NetTailorClassifier
            Classifier fitted on the store's backbone.

        Returns
        -------
        store : MultiTaskStore
            The store itself.

        Raises
        ------
        TypeError, ValueError
            If `name` or `estimator` is invalid, or `estimator` was trained on other weights.
        """
        path = self._path(name)
        estimator = _find_tailored(estimator)
        self._check_weights(estimator.module_)
        trial = path.with_name(f".{uuid4().hex}.{path.name}")
        try:
            save_task(estimator, trial)
            load_task(trial, self.folder / BACKBONE)  # keep only files that can be loaded
            write_atomically(path, trial.read_bytes())
        finally:
            trial.unlink(missing_ok=True)
        return self

    def _check_weights(self, module):
        backbone, _ = load_backbone(self.backbone, self.folder / BACKBONE)
        same = module.backbone_name == self.backbone
        if not same or _digest(module) != _digest(TailoredNet(backbone, **module.arguments)):
            raise ValueError(
                f"`estimator` was trained on other weights than the {self.backbone!r} of this "
                f"store; train it with weights={str(self.folder / BACKBONE)!r}, or use another "
                "folder."
            )

    def load(self, name):
        """Load the classifier of a task.

        Parameters
        ----------
        name : str
            Name of the task, one of `tasks`.

        Returns
        -------
        estimator : NetTailorClassifier
            Fitted classifier, on the CPU.

        Raises
        ------
        ValueError
            If the store has no task of this name, or its file is damaged.
        """
        if name not in self.tasks:
            raise ValueError(f"`name` must be one of {self.tasks}; got {name!r}.")
        return load_task(self._path(name), self.folder / BACKBONE)

    def sizes(self):
        """Return the size of each file of the store.

        Returns
        -------
        megabytes : pandas.Series
            Sizes in MB (10^6 bytes), indexed by "backbone" and the names of the tasks.
        """
        names = {"backbone": self.folder / BACKBONE, **{t: self._path(t) for t in self.tasks}}
        sizes = {name: path.stat().st_size / 1e6 for name, path in names.items()}
        return pd.Series(sizes, name="megabytes")

    def _path(self, name):
        fits = isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]{0,99}", name, re.ASCII)
        if not fits or name.split(".")[0].lower() in RESERVED:
            raise ValueError(
                "`name` must be at most 100 letters, digits, _, - and ., must not start with a "
                "dot, and must not be 'backbone' or a name that Windows reserves; got "
                f"{name!r}."
            )
        return self.folder / f"{name}.safetensors"
