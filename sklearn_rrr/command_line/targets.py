"""Files that commands write."""

import os
from pathlib import Path

from sklearn_rrr.command_line.outcomes import USAGE, CommandError


def check_target(option, path, suffix=None, replace=True):
    """Check before the work that a file can be written.

    Parameters
    ----------
    option : str
        Option that named the file, for messages.
    path : str
    suffix : str or None, default=None
        Extension that the file must have.
    replace : bool, default=True
        Whether an existing file may be replaced.

    Raises
    ------
    CommandError
        If the extension is wrong, the folder does not exist or cannot be written, or the file
        exists and must not be replaced.
    """
    target = Path(path)
    if suffix is not None and target.suffix.lower() != suffix:
        raise CommandError(f"{option} must be a file {suffix}; got {path!r}.", USAGE)
    if target.is_dir():
        raise CommandError(f"{option} {path!r} is a folder; give the path of a file.")
    if not target.parent.is_dir():
        raise CommandError(f"{option} {path!r}: the folder {str(target.parent)!r} does not exist.")
    if target.exists() and not replace:
        raise CommandError(f"{path!r} exists. Choose another {option}, or replace it by --force.")
    if not os.access(target if target.exists() else target.parent, os.W_OK):
        raise CommandError(f"{option} {path!r}: no permission to write there.")


def describe_size(path):
    """Return the size of a file, such as "3.4 MB"."""
    size = os.path.getsize(path)
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
