"""Small pictures inside an HTML page."""

import base64
import io

import numpy as np
from PIL import Image

from sklearn_rrr.images.decoding import decode_file

SIZE = 224  # largest width and height in pixels


def embed_thumbnail(path):
    """Return a file as a small JPEG image in a data URL; None if it cannot be read."""
    try:
        pixels, _ = decode_file(path)
    except ValueError:
        return None
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * 255).astype(np.uint8)
    picture, file = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((SIZE, SIZE))
    picture.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
