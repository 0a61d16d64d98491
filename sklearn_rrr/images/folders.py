"""Folders with one sub-folder per class."""

import os
import warnings
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from sklearn_rrr.images.decoding import EXTENSIONS


def load_image_folder(path):
    """List the images of a folder with one sub-folder per class.

    Nothing is decoded: the paths go to an estimator as they are.

    Parameters
    ----------
    path : str or path
        Folder whose sub-folders are the classes. Images may lie deeper.

    Returns
    -------
    bunch : sklearn.utils.Bunch
        With the attributes ``paths`` (ndarray of str, sorted by class, then by name),
        ``target`` (ndarray of int) and ``target_names`` (list of str).

    Raises
    ------
    ValueError
        If the folder is missing, has no sub-folder, or a class has no image.

    Warns
    -----
    UserWarning
        If files that are no images, by their extension, were left out. Hidden files are
        left out silently.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> from PIL import Image
    >>> from sklearn_rrr import load_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         pathlib.Path(folder, name).mkdir()
    ...         Image.fromarray(np.zeros((8, 8), np.uint8)).save(f"{folder}/{name}/1.png")
    ...     bunch = load_image_folder(folder)
    >>> bunch.target, bunch.target_names
    (array([0, 1]), ['cat', 'dog'])
    """
    root = Path(path)
    if not root.is_dir():
        raise ValueError(
            f"`path` must be a folder with one sub-folder per class; got {str(path)!r}."
        )
    classes = sorted(p for p in root.iterdir() if p.is_dir() and not _is_hidden(p.name))
    if not classes:
        raise ValueError(f"The folder {str(path)!r} has no sub-folder; each class needs one.")
    paths, target, others = [], [], []
    for label, folder in enumerate(classes):
        found = sorted(_walk(folder, others))
        if not found:
            raise ValueError(f"The class folder {str(folder)!r} holds no image.")
        paths += found
        target += [label] * len(found)
    if others:
        warnings.warn(
            f"{len(others)} file(s) with other extensions were left out, such as {others[0]}.",
            stacklevel=2,
        )
    return Bunch(
        paths=np.array(paths, dtype=object),
        target=np.array(target),
        target_names=[folder.name for folder in classes],
    )


def _is_hidden(name):
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini")


def _walk(folder, others):
    """Yield the images below a folder; links are followed, but none twice."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        place = os.path.realpath(parent)
        if place in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in files:
            file = os.path.join(parent, name)
            if _is_hidden(name):
                continue
            if os.path.splitext(name)[1].lower() in EXTENSIONS:
                yield file
            else:
                others.append(file)
