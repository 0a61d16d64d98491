"""Find the images that the arguments of a command name."""

import glob
import os
from dataclasses import dataclass

import numpy as np

from sklearn_rrr import load_image_folder, report_images
from sklearn_rrr.command_line.outcomes import CommandError, note, say

LISTED = 20  # bad files in a message
TRAINING = ("train", "training")


@dataclass
class Photos:
    """Labelled images that can be read, and the report of all images.

    Parameters
    ----------
    paths, target : ndarray of shape (n,)
    split, groups : ndarray of shape (n,) or None
    report : ImageReport
    """

    paths: np.ndarray
    target: np.ndarray
    split: np.ndarray | None
    groups: np.ndarray | None
    report: object

    def separate(self):
        """Return the positions of the training images, of the others, and the others' splits."""
        is_training = np.array([name.lower() in TRAINING for name in self.split])
        if is_training.all() or not is_training.any():
            raise CommandError(
                "with --splits, one sub-folder must be called train or training, and another one "
                f"must have a different name; got {', '.join(sorted(set(self.split)))}."
            )
        rest = np.flatnonzero(~is_training)
        return np.flatnonzero(is_training), rest, sorted(set(self.split[rest]))


def read_photos(args, groups=None, skip_bad=True):
    """List the images of a labelled folder, print a summary, and drop bad files.

    Parameters
    ----------
    args : argparse.Namespace
        With `photos`, `level` and `splits`.
    groups : callable or None, default=None
        See :func:`load_image_folder`.
    skip_bad : bool, default=True
        Whether to drop files that cannot be read, instead of raising an error.

    Returns
    -------
    photos : Photos
    """
    bunch = load_image_folder(args.photos, level=args.level, splits=args.splits, groups=groups)
    note(f"Checking {len(bunch.paths)} files ...")
    report = report_images(bunch)
    say(report)
    if report.bad:
        note(list_bad(report.bad))
    if report.bad and not skip_bad:
        raise CommandError(
            f"{len(report.bad)} of {report.n_images} files cannot be read. Mend or remove them, "
            "or skip them with --on-bad-file skip."
        )
    bad = {path for path, _ in report.bad}
    good = np.array([path not in bad for path in bunch.paths])
    if not good.any():
        raise CommandError(f"none of the {report.n_images} files can be read.")
    parts = (bunch.paths, bunch.target, bunch.split, bunch.groups)
    return Photos(*(None if part is None else part[good] for part in parts), report)


def list_bad(bad):
    """Return the first of some (path, reason), on a line each."""
    lines = [f"  {path}: {reason}" for path, reason in bad[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"  and {len(bad) - LISTED} more")
    return "\n".join(lines)


def list_photos(arguments):
    """List the files that folders, files and patterns name, each once.

    Folders are searched at any depth for files with the extension of an image. Files that are
    named or match a pattern are listed whatever their extension; folders that match ``**`` are not
    searched again.

    Raises
    ------
    CommandError
        If an argument names nothing.
    """
    paths = {}  # keeps the order
    for argument in arguments:
        is_pattern = not os.path.lexists(argument) and glob.has_magic(argument)
        names = sorted(glob.glob(argument, recursive=True)) if is_pattern else [argument]
        if not names:
            raise CommandError(f"no file matches the pattern {argument!r}.")
        for name in names:
            if os.path.isdir(name):
                if not (is_pattern and "**" in argument):
                    paths |= dict.fromkeys(_search_folder(name))
            elif os.path.lexists(name):
                paths[name] = None
            else:
                raise CommandError(f"{name!r}: no such file or folder.")
    if not paths:
        raise CommandError(f"no images in {', '.join(map(repr, arguments))}.")
    return list(paths)


def _search_folder(folder):
    try:
        return load_image_folder(folder, level=lambda path: "").paths.tolist()
    except ValueError as error:
        raise CommandError(f"no images in {folder!r}: {error}") from error
