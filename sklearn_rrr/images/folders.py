"""Lists of the images in nested folders, with labels from the names of the folders."""

import os
from numbers import Integral, Number
from pathlib import Path, PurePath

import numpy as np
from sklearn.utils import Bunch

from sklearn_rrr._warnings import warn
from sklearn_rrr.images.decoding import EXTENSIONS
from sklearn_rrr.images.folder_walk import walk_folder

SPLITS = frozenset((
    "train", "training", "val", "valid", "validation", "dev", "test", "testing", "holdout",
))  # fmt: skip


def load_image_folder(path, *, level=1, splits=False, groups=None, as_frame=False):
    """List the images of a folder, with the names of its sub-folders as labels.

    Images are not decoded: pass the paths to an estimator, and the labels as they are.

    Parameters
    ----------
    path : str or path
        Folder of folders of images, nested to any depth.
    level : int, "leaf" or callable, default=1
        Which part of an image's path is its label.

        - An int: the name of the folder at this depth. 1 stands for the sub-folders of `path`, or
          of each split; images in deeper folders belong to them, too.
        - "leaf": the name of the folder that directly contains the image.
        - A callable: it is called with the path of each image relative to `path`, a
          :class:`pathlib.PurePath`, and returns the label. None skips the image.

        Folders with the same name are one class, whatever folders contain them: with ``level=2``,
        ``north/cat`` and ``south/cat`` have the label "cat".
    splits : bool, default=False
        Whether the sub-folders of `path` are splits of the data, such as "train" and "test". Their
        names become `split`, and levels count below them. A split may lack some classes.
    groups : callable or None, default=None
        Called with the relative path of each image, as a callable `level` is. Returns the group of
        the image, for example for :class:`sklearn.model_selection.GroupKFold`.
    as_frame : bool, default=False
        Whether to add a pandas DataFrame.

    Returns
    -------
    bunch : sklearn.utils.Bunch
        With the attributes

        - paths : ndarray of str objects of shape (n,), sorted.
        - target : ndarray of shape (n,). Labels; strings, unless `level` returns something else.
        - target_names : list. The labels that occur, sorted, each once.
        - split : ndarray of str of shape (n,), or None without `splits`.
        - groups : ndarray of shape (n,), or None without `groups`.
        - frame : DataFrame with the columns "path", "label" and, where they exist, "split" and
          "group". Only with ``as_frame=True``.

    Raises
    ------
    ValueError
        If the folder is missing, cannot be read or has no folder at `level`, if a class has no
        images, or if `groups` returns None.
    TypeError
        If a parameter or a label has the wrong type.

    Warns
    -----
    UserWarning
        If files are skipped: those without an image extension, those above `level`, and those
        whose label is None. Also if a link to a folder that is listed already is skipped, or if
        the sub-folders look like splits but `splits` is False. Hidden files and links to a parent
        folder are skipped silently.

    See Also
    --------
    report_images : Summarise classes, sizes, bad files and duplicates.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> from PIL import Image
    >>> from sklearn_rrr import load_image_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("train/cat/1.png", "train/dog/2.png", "test/cat/3.png"):
    ...         file = pathlib.Path(folder, name)
    ...         file.parent.mkdir(parents=True, exist_ok=True)
    ...         Image.new("L", (8, 8)).save(file)
    ...     bunch = load_image_folder(folder, splits=True)
    >>> bunch.target
    array(['cat', 'cat', 'dog'], dtype='<U3')
    >>> bunch.split
    array(['test', 'train', 'train'], dtype='<U5')
    >>> bunch.target_names
    ['cat', 'dog']
    """
    _check_parameters(path, level, splits, groups, as_frame)
    tree = walk_folder(path, is_split=splits)
    tops = [names[0] for names in tree.folders if len(names) == 1]
    if not tops and (splits or not callable(level)):
        needs = "with splits=True, each split needs one" if splits else "each class needs one"
        raise ValueError(f"The folder {str(path)!r} has no sub-folder; {needs}.")
    if not splits and len(tops) > 1 and {name.lower() for name in tops} <= SPLITS:
        warn(
            f"The sub-folders {', '.join(tops)} look like splits of the data, but are read as the "
            "folders of level 1. Pass splits=True to read the labels from the folders below them."
        )
    images, labels, skipped = _label_files(tree, level, splits)
    _check_classes(path, tree.folders, labels, level, splits)
    _warn_of_skipped(path, skipped)
    root = Path(path)
    bunch = Bunch(
        paths=np.array([str(root.joinpath(*names)) for names in images], dtype=object),
        target=_as_array(labels),
        target_names=_sort_labels(labels),
        split=np.array([names[0] for names in images]) if splits else None,
        groups=None if groups is None else _find_groups(images, groups),
    )
    if as_frame:
        bunch.frame = _make_frame(bunch)
    return bunch


def _check_parameters(path, level, splits, groups, as_frame):
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"`path` must be a str or a path; got {path!r}.")
    if not os.path.isdir(path):
        raise ValueError(
            f"`path` must be a folder with one sub-folder per class; got {str(path)!r}."
        )
    if not callable(level):
        rule = '`level` must be an int of at least 1, "leaf" or a callable'
        if isinstance(level, bool) or not isinstance(level, (Integral, str)):
            raise TypeError(f"{rule}; got {level!r}.")
        if level != "leaf" and (isinstance(level, str) or level < 1):
            raise ValueError(f"{rule}; got {level!r}.")
    for name, value in {"splits": splits, "as_frame": as_frame}.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"`{name}` must be True or False; got {value!r}.")
    if groups is not None and not callable(groups):
        raise TypeError(
            f"`groups` must be None or a callable from a path to its group; got {groups!r}."
        )


def _label_files(tree, level, splits):
    """Sort files into images, with their labels, and skipped files, by the reason."""
    images, labels, skipped = [], [], {}
    for names in sorted(tree.files, key="/".join):
        label, reason = None, "whose label is None"
        folders = names[bool(splits) : -1]
        if os.path.splitext(names[-1])[1].lower() not in EXTENSIONS:
            reason = "without an image extension"
        elif splits and len(names) == 1:
            reason = "outside the splits"
        elif callable(level):
            label = level(PurePath(*names))
        elif len(folders) < (1 if level == "leaf" else level):
            reason = "outside the class folders"
        else:
            label = folders[-1 if level == "leaf" else level - 1]
        if label is None:
            skipped.setdefault(reason, []).append(names)
        else:
            images.append(names)
            labels.append(label)
    if tree.repeats:
        skipped["that are links to folders listed already"] = tree.repeats
    return images, labels, skipped


def _check_classes(path, folders, labels, level, splits):
    """Raise if there are no images, or if a class folder has none and no namesake has any."""
    if not callable(level):
        below = [names for names in folders if len(names) > bool(splits)]
        if level == "leaf":
            parents = {names[:-1] for names in folders}
            classes = [names for names in below if names not in parents]
        else:
            classes = [names for names in below if len(names) == level + bool(splits)]
        if not classes:
            where = " below the splits" if splits else ""
            raise ValueError(
                f"The folder {str(path)!r} has no folders at level {level!r}{where}, so that no "
                "image has a label. Change `level` or `splits`."
            )
        known = set(labels)
        for names in classes:
            if names[-1] not in known:
                folder = str(Path(path, *names))
                raise ValueError(
                    f"The class folder {folder!r} contains no images. Add some or remove it."
                )
    if not labels:
        raise ValueError(
            f"The folder {str(path)!r} contains no image with a label. Supported are files "
            f"{', '.join(sorted(EXTENSIONS))} for which `level` does not return None."
        )


def _warn_of_skipped(path, skipped):
    if skipped:
        lines = [
            f"\n  {len(items)} {reason}, such as {Path(path, *items[0])}"
            for reason, items in skipped.items()
        ]
        warn(
            f"{sum(map(len, skipped.values()))} file(s) or link(s) were skipped:{''.join(lines)}",
        )


def _as_array(values):
    """Return an array of strings or of numbers; an array of objects for others or a mixture."""
    for kind in (str, Number):
        if all(isinstance(value, kind) for value in values):
            return np.array(values)
    return np.fromiter(values, dtype=object, count=len(values))


def _sort_labels(labels):
    try:
        return sorted(set(labels))
    except TypeError as error:
        raise TypeError(
            f"`level` must return labels that can be hashed and sorted; got {labels[0]!r}, for "
            f"example ({error}). Return strings."
        ) from None


def _find_groups(images, groups):
    found = [groups(PurePath(*names)) for names in images]
    for names, group in zip(images, found, strict=True):
        if group is None:
            raise ValueError(
                f"`groups` must return a group for every image; got None for {PurePath(*names)}."
            )
    return _as_array(found)


def _make_frame(bunch):
    import pandas as pd  # not needed for the arrays

    columns = {
        "path": bunch.paths,
        "label": bunch.target,
        "split": bunch.split,
        "group": bunch.groups,
    }
    return pd.DataFrame({name: array for name, array in columns.items() if array is not None})
