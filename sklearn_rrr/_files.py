"""Atomic writing of files."""

import os
from uuid import uuid4


def write_atomically(path, content):
    """Write bytes atomically: a reader sees either the old file or the complete new one."""
    temporary = path.parent / f".{uuid4().hex}"
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
