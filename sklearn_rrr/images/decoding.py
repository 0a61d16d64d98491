"""One picture, from a file or in memory, to RGB pixels; whatever is wrong is said.

A decoded picture is an array (h, w, 3) of uint8, or of float32 in [0, 1].
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# What people keep photographs and scans in. Pillow reads more (EPS starts Ghostscript).
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp",
    ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
))  # fmt: skip
MAX_IMAGE_PIXELS = 64_000_000
FULL_SCALES = (1, 16, 255)  # unit floats, scikit-learn's digits, 8 bits


class BadImages(ValueError):
    """Images that cannot be used: a list of (index, reason)."""

    def __init__(self, bad, n_images=None):
        self.bad = bad
        of = "" if n_images is None else f" of {n_images}"
        lines = "\n  ".join(reason for _, reason in bad)
        super().__init__(f"{len(bad)}{of} image(s) cannot be used:\n  {lines}")


def decode_file(path, max_pixels=MAX_IMAGE_PIXELS):
    """Decode a file: upright, first frame, gray repeated, alpha on white.

    Returns
    -------
    pixels : ndarray of shape (h, w, 3)
    n_frames : int

    Raises
    ------
    ValueError
        Says what is wrong with the file, and names it.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a directory; load_image_folder reads one")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(_too_large(path, image.width * image.height, max_pixels))
            return decode_pil(image), getattr(image, "n_frames", 1)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except PermissionError:
        raise ValueError(f"{path}: no permission to read it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(_too_large(path, "more", max_pixels)) from None
    except Image.UnidentifiedImageError:
        reason = "it is empty" if Path(path).stat().st_size == 0 else "no image of a format in use"
        raise ValueError(f"{path}: {reason} ({', '.join(FORMATS)})") from None
    except ValueError as error:
        prefix = "" if str(error).startswith(path) else f"{path}: "
        raise ValueError(f"{prefix}{error}") from None
    except (OSError, SyntaxError, EOFError, IndexError, TypeError, ArithmeticError) as error:
        # Pillow's plugins raise many kinds on damaged input.
        raise ValueError(f"{path}: damaged ({error})") from None


def _too_large(path, n_pixels, limit):
    return (
        f"{path}: has {n_pixels} pixels, over the limit `max_image_pixels`={limit}; such a small "
        "file may be an attack on memory. Raise the limit if you trust it"
    )


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
    if mode == "F":
        scale = full_scale(values, "the float image")
    else:
        scale = 65535
        if values.min() < 0 or values.max() > scale:
            raise ValueError("32-bit values outside the 16-bit range [0, 65535]")
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


def full_scale(values, name="X"):
    """Return the value that stands for full brightness in an array.

    bool 1, uint8 255, uint16 65535. Other dtypes by their largest value: up to 1 is 1, up
    to 16 is 16 (`sklearn.datasets.load_digits`), up to 255 is 255.

    Raises
    ------
    ValueError
        For negative values, values above 255, NaN and infinity.
    """
    known = {np.dtype(bool): 1, np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
    if values.dtype in known:
        return known[values.dtype]
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        kind = "NaN" if np.isnan(low) or np.isnan(high) else "infinity"
        raise ValueError(f"{name} contains {kind}; pixels must be finite numbers")
    if low < 0:
        raise ValueError(
            f"Negative values in data passed to the estimator: {name} has the range "
            f"[{low:g}, {high:g}], and pixels must lie in [0, 1] or [0, 255]. Scale them, for "
            "example with sklearn.preprocessing.MinMaxScaler."
        )
    if high > 255:
        raise ValueError(
            f"{name} has the range [{low:g}, {high:g}], but numbers other than uint8 and uint16 "
            "must lie in [0, 1] or [0, 255]. Divide by the value of full brightness."
        )
    return next(scale for scale in FULL_SCALES if high <= scale)
