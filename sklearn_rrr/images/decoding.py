"""One picture, from a file or in memory, to RGB pixels; whatever is wrong is said.

A decoded picture is an array (h, w, 3) of uint8, or of float32 in [0, 1].
"""

import os
import re
import struct

import numpy as np
from PIL import Image, ImageOps

from sklearn_rrr.images.brightness import full_scale

# What people keep photographs and scans in. Pillow reads more (EPS starts Ghostscript).
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp",
    ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
))  # fmt: skip
MAX_IMAGE_PIXELS = 64_000_000
# What Pillow's plugins raise on damaged input.
DAMAGE = (OSError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, struct.error)


class BadImages(ValueError):
    """Images that cannot be used: a list of (index, reason)."""

    def __init__(self, bad, n_images=None, hint=""):
        self.bad, self.n_images, self.hint = bad, n_images, hint
        of = "" if n_images is None else f" of {n_images}"
        lines = "\n  ".join(reason for _, reason in bad)
        super().__init__(f"{len(bad)}{of} image(s) cannot be used:\n  {lines}{hint}")

    def __reduce__(self):  # workers of a grid search send it home
        return type(self), (self.bad, self.n_images, self.hint)


def decode_file(path, max_pixels=MAX_IMAGE_PIXELS):
    """Decode a file: upright, first frame, gray repeated, alpha on white.

    Returns
    -------
    pixels : ndarray of shape (h, w, 3)
    animated : bool
        Whether there are more frames.

    Raises
    ------
    ValueError
        Says what is wrong with the file, and names it.
    """
    path = os.fsdecode(path)
    try:
        if not os.path.isfile(path) and os.path.exists(path):
            raise ValueError("is a directory or device; load_image_folder reads a folder")
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(_too_large(image.width * image.height, max_pixels))
            return decode_pil(image), is_animated(image)
    except (ValueError, Image.DecompressionBombError, Warning, *DAMAGE) as error:
        raise ValueError(f"{path or repr(path)}: {_reason(error, path, max_pixels)}") from None


def _reason(error, path, max_pixels):
    """Say what is wrong with a file that could not be decoded."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return _too_large(re.search(r"\d+|$", str(error))[0], max_pixels)
    if isinstance(error, Image.UnidentifiedImageError):
        if os.path.exists(path) and os.path.getsize(path) == 0:
            return "is empty"
        return f"is no image of a known format ({', '.join(FORMATS)}); convert it"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({error.strerror})"
    return str(error) if isinstance(error, ValueError) else f"is damaged ({error})"


def _too_large(n_pixels, limit):
    return (
        f"has {n_pixels} pixels, over the limit `max_image_pixels`={limit}; such a file may be "
        "an attack on memory. Raise the limit if you trust it; Pillow's own, 178956970, comes "
        "from PIL.Image.MAX_IMAGE_PIXELS"
    )


def is_animated(image):
    """Tell whether a PIL image has frames that are left out.

    The second picture of an MPO file, as telephones write them, is the first one once more.
    """
    return image.format != "MPO" and getattr(image, "is_animated", False)


def decode_pil(image):
    """Turn a PIL image into pixels (h, w, 3), whatever its mode.

    Raises
    ------
    ValueError
        If the mode has no sure way to RGB, or float values lie outside [0, 1] and [0, 255].
    """
    # A palette image looks up its colours; it must not be turned as numbers.
    image = ImageOps.exif_transpose(image)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return _deep_gray(np.asarray(image), image.mode)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode == "PA":
        image = image.convert("RGBA")
    elif image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    elif image.mode in ("1", "CMYK", "YCbCr", "HSV", "RGBX"):
        image = image.convert("RGB")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise ValueError(f"the colour mode {image.mode!r} cannot be turned into RGB")
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA")
    pixels = np.asarray(image)
    if image.mode == "LA":
        pixels = pixels[..., [0, 0, 0, 1]]
    return to_rgb(pixels if pixels.ndim == 3 else pixels[..., None])


def _deep_gray(values, mode):
    scale = 65535
    if mode == "F":
        scale = full_scale(values, "the float image", scales=(1, 255))
    elif mode == "I" and 0 < values.max() <= 255:
        raise ValueError("32-bit values up to 255 could be 8 or 16 bits; convert it to either")
    elif values.min() < 0 or values.max() > scale:
        raise ValueError("32-bit values outside the 16-bit range [0, 65535]; convert it")
    return to_rgb((values / scale).astype(np.float32)[..., None])


def to_rgb(pixels):
    """(…, h, w, 1, 3 or 4) uint8 or unit float -> (…, h, w, 3): gray repeated, alpha on white."""
    channels = pixels.shape[-1]
    if channels == 1:
        return np.repeat(pixels, 3, axis=-1)
    if channels == 3:
        return pixels
    white = 255 if pixels.dtype == np.uint8 else 1
    alpha = pixels[..., 3:].astype(np.float32) / white
    blend = white + (pixels[..., :3].astype(np.float32) - white) * alpha
    return np.rint(blend).astype(np.uint8) if white == 255 else blend
