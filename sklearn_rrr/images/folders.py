"""Image folders with one sub-folder per class."""

import os
import warnings
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from sklearn_rrr.images.decoding import EXTENSIONS


def load_image_folder(path):
    """List the images of a folder with one sub-folder per class.

    Images are not decoded: pass the paths to an estimator.

    Parameters
    ----------
    path : str or path
        Folder whose sub-folders are the classes. They may contain nested folders.

    Returns
    -------
    bunch : sklearn.utils.Bunch
        With the attributes ``paths`` (ndarray of str, sorted by class, then by name),
        ``target`` (ndarray of int) and ``target_names`` (list of str).

    Raises
    ------
    ValueError
        If the folder is missing, unreadable or has no sub-folder, or if a class has no
        images.

    Warns
    -----
    UserWarning
        If files are skipped because they lack an image extension or lie outside the class
        folders. Hidden files and links to a parent folder are skipped silently.

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
    paths, target, others, classes = [], [], [], []
    for entry in _entries(root):
        if entry.is_dir() and not _is_hidden(entry.name) and not _leads_up(entry, root):
            classes.append(entry)
        elif entry.is_file() and not _is_hidden(entry.name):
            others.append(str(entry))
    if not classes:
        raise ValueError(f"The folder {str(path)!r} has no sub-folder; each class needs one.")
    for label, folder in enumerate(classes):
        found = sorted(_walk(folder, root, others))
        if not found:
            raise ValueError(
                f"The class folder {str(folder)!r} contains no images. Add some or remove it."
            )
        paths += found
        target += [label] * len(found)
    if others:
        warnings.warn(
            f"{len(others)} file(s) were skipped, such as {others[0]}: they lack an image "
            "extension or lie outside the class folders.",
            stacklevel=2,
        )
    return Bunch(
        paths=np.array(paths, dtype=object),
        target=np.array(target),
        target_names=[folder.name for folder in classes],
    )


def _entries(root):
    try:
        return sorted(root.iterdir())
    except OSError as error:
        _raise(error)


def _is_hidden(name):
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def _leads_up(folder, root):
    """Tell whether a folder is a link to the root or its parents, and so not a class."""
    return Path(os.path.realpath(root)).is_relative_to(os.path.realpath(folder))


def _walk(folder, root, others):
    """Yield the images below a folder, following links but visiting each folder once."""
    seen = set()
    for parent, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        place = os.path.realpath(parent)
        if place in seen or _leads_up(parent, root):
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


def _raise(error):
    raise ValueError(f"{error.filename}: cannot be read ({error.strerror})") from None
