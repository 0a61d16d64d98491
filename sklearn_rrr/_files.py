"""Files that are whole or not there."""

import os
from uuid import uuid4


def write_atomically(path, content):
    """Write bytes so that a reader finds the old file or the whole new one."""
    temporary = path.parent / f".{uuid4().hex}"
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
