"""Files that are whole or not there, and whose content is what was written."""

import hashlib
import os
import stat
from pathlib import Path
from uuid import uuid4


def write_atomically(path, content):
    """Write bytes atomically: a reader sees either the old file or the complete new one.

    A link stays, and the file that it names is replaced. An existing file keeps its permissions.

    Raises
    ------
    OSError
        If `path` is a device, a FIFO or another special file, or cannot be written. The existing
        file is unchanged.
    """
    path = Path(path).resolve()  # follows links
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and not stat.S_ISREG(mode):
        raise OSError(f"{str(path)!r} is not a regular file and was not replaced.")
    temporary = path.parent / f".{uuid4().hex}"
    try:
        with open(temporary, "xb") as file:
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise type(error)(
            error.errno,
            f"The file cannot be written ({error.strerror}); what was there is unchanged. Free "
            "space or choose another folder",
            str(path),
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def digest_bytes(*parts):
    """Return the SHA-256 of bytes, as 64 hexadecimal digits; it depends on how they are split."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
