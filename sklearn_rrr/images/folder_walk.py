"""List the files and folders below a folder, following links and reading each folder once."""

import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tree:
    """Content of a folder. Each path is a tuple of the names below the root.

    Hidden files and folders are left out.
    """

    files: list = field(default_factory=list)
    folders: list = field(default_factory=list)  # without the root
    repeats: list = field(default_factory=list)  # links to folders that are listed already


def walk_folder(root, is_split=False):
    """List the files and folders below `root`.

    A folder is listed at its own place and not at the links to it. If several links lead to a
    folder outside the root, the first one counts. Links to a parent are left out.

    Parameters
    ----------
    root : str or path
    is_split : bool, default=False
        Read a folder once for each folder at the top, instead of once.

    Returns
    -------
    tree : Tree

    Raises
    ------
    ValueError
        If a folder cannot be read.
    """
    tree, seen = Tree(), set()
    queue, links = deque([((), ())]), deque()  # (names, real paths of the parents)
    while queue or links:
        names, parents = (queue or links).popleft()  # links come last
        place = os.path.realpath(os.path.join(root, *names))
        if any(Path(parent).is_relative_to(place) for parent in parents):
            continue
        key = (names[:1] if is_split else (), place)
        if key in seen:
            tree.repeats.append(names)
            continue
        seen.add(key)
        if names:
            tree.folders.append(names)
        for entry in _list_entries(os.path.join(root, *names)):
            if _is_hidden(entry.name):
                continue
            item = ((*names, entry.name), (*parents, place))
            if entry.is_dir(follow_symlinks=False):
                queue.append(item)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append(item)
            else:
                tree.files.append(item[0])
    return tree


def _list_entries(folder):
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{error.filename}: cannot be read ({error.strerror})") from None


def _is_hidden(name):
    return name.startswith(".") or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")
