"""Files that are whole or not there, and whose content is what was written."""

import errno
import hashlib
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_path(name, value):
    """Return the parameter `name` as a Path.

    Raises
    ------
    TypeError
        If `value` is neither a str nor a path.
    ValueError
        If it is empty, or contains a null character, which no file name does.
    """
    text = value.__fspath__() if isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        raise TypeError(f"`{name}` must be a str or a path; got {value!r}.")
    if not text or "\0" in text:
        raise ValueError(f"`{name}` must be a path, without null characters; got {text!r}.")
    return Path(text)


@contextmanager
def opened(path):
    """Open a regular file for reading.

    Raises
    ------
    OSError
        If it is missing, or another kind of file: a FIFO would wait for ever, a device never end.
    """
    flags = getattr(os, "O_NONBLOCK", 0)  # a FIFO is opened without waiting for a writer
    with open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{str(path)!r} is not a regular file.")
        yield file


@contextmanager
def explaining(name, path):
    """Raise a ValueError about the parameter `name` if reading its file fails in the block."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"`{name}`={str(path)!r} is not a file that can be read: {error.strerror or error}"
        ) from error


def write_atomically(path, content):
    """Write bytes atomically: a reader sees either the old file or the complete new one.

    A link stays, and the file that it names is replaced. An existing file keeps its permissions.

    Raises
    ------
    OSError
        If `path` is a device, a FIFO or another special file, or cannot be written. The existing
        file is unchanged.
    """
    path, _ = find_target(path)
    temporary = path.parent / f".{uuid4().hex}"
    try:
        with replacing(path, temporary, mode="xb") as file:
            file.write(content)
    except OSError as error:
        cure = "Free space or choose" if error.errno in FULL else "Choose"
        raise type(error)(
            error.errno,
            f"The file cannot be written ({error.strerror}); what was there is unchanged. {cure} "
            "another folder",
            str(path),
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder):
    """Remove what :func:`write_atomically` was writing to a folder when the process died."""
    for path in Path(folder).glob("." + 32 * "[0-9a-f]"):
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path, temporary, **form):
    """Open the file `temporary`, which replaces `path` when the block ends without an error.

    Links and permissions are treated as by :func:`write_atomically`. After an error, `temporary`
    remains. `form` are arguments of ``open``.
    """
    path, mode = find_target(path)
    with open(temporary, **form) as file:
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def find_target(path):
    """Return the file that `path` names, after links, and its mode, None if it is new.

    Raises
    ------
    OSError
        If no file can be there: it is a folder or a special file, or has no folder.
    """
    try:
        path = Path(path).resolve()
    except RuntimeError:  # Python before 3.13
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            folder = str(path.parent)
            raise FileNotFoundError(f"The folder {folder!r} does not exist.") from None
        return path, None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{str(path)!r} is a folder; give the path of a file.")
    if not stat.S_ISREG(mode):
        raise OSError(f"{str(path)!r} is not a regular file and was not replaced.")
    return path, mode


def digest_bytes(*parts):
    """Return the SHA-256 of bytes, as 64 hexadecimal digits; it depends on how they are split."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
