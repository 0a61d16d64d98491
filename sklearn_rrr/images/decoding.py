"""Decode one image, from a file or in memory, to RGB pixels.

A decoded image is an array (h, w, 3) of uint8, or of float32 in [0, 1].
"""

import os
import re
import struct
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from sklearn_rrr.images.brightness import BRIGHT, Span, find_span, measure_and_scale
from sklearn_rrr.images.whole_files import refusing_truncated

# Formats of photographs and scans. Pillow reads more, but EPS, for one, starts Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp",
    ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
))  # fmt: skip
MAX_IMAGE_PIXELS = 64_000_000
PNG = b"\x89PNG\r\n\x1a\n"
LISTED = 20  # images in a message
# Least width and height, over those to which an image is resized, at which JPEG files are decoded.
# Resized pixels then differ by 0.3 of 255 levels in the mean at 192 pixels, by 0.8 at 32.
REDUCED = 4
ORIENTATION = 0x0112  # EXIF tag
# Exceptions that Pillow's plugins raise on damaged input.
DAMAGE = (
    *(OSError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, struct.error),
    *(MemoryError, AttributeError),
)


class BadImages(ValueError):
    """Error that lists unusable images as (index, reason)."""

    def __init__(self, bad, n_images=None, hint=""):
        self.bad, self.n_images, self.hint = bad, n_images, hint
        of = "" if n_images is None else f" of {n_images}"
        super().__init__(f"{len(bad)}{of} image(s) cannot be used:{list_reasons(bad)}{hint}")

    def __reduce__(self):  # grid search workers pickle this error
        return type(self), (self.bad, self.n_images, self.hint)


def list_reasons(bad):
    """Return the first reasons of a list of (index, reason), on a line each."""
    lines = [reason for _, reason in bad[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"and {len(bad) - LISTED} more; `bad` of the error lists all")
    return "".join(f"\n  {line}" for line in lines)


def decode_file(path, max_pixels=MAX_IMAGE_PIXELS, scale=measure_and_scale, image_size=None):
    """Decode the first frame of a file to upright RGB, with alpha on white.

    Large JPEG files are decoded at a half, a quarter or an eighth of their width and height, which
    is several times faster, if that is still REDUCED times `image_size` or more.

    Parameters
    ----------
    path : str or path
    max_pixels : int, default=64_000_000
    scale : callable, default=measure_and_scale
        Function of pixels, and of whether they have 16 bits, that divides them by their white
        level.
    image_size : int or None, default=None
        Height and width, in pixels, to which the image will be resized. None decodes all pixels.

    Returns
    -------
    pixels : ndarray of shape (h, w, 3)
    animated : bool
        Whether the file has more frames.

    Raises
    ------
    ValueError
        If the file cannot be decoded; the message gives its path and the reason.
    """
    with _opened(path, max_pixels) as image:
        _check_size(image, max_pixels)
        if image_size is not None:
            image.draft(None, (REDUCED * image_size, REDUCED * image_size))  # JPEG; else no effect
        return decode_pil(image, max_pixels, scale), is_animated(image)


def find_file_span(path, max_pixels=MAX_IMAGE_PIXELS, decode=False):
    """Return the Span of a file; see :func:`find_image_span`."""
    with _opened(path, max_pixels) as image:
        return find_image_span(image, max_pixels, decode)


def read_size(path, decode=False, max_pixels=MAX_IMAGE_PIXELS):
    """Read the width and height of the upright image in a file, and check the file.

    Parameters
    ----------
    path : str or path
    decode : bool, default=False
        Whether to decode the pixels to find damage. JPEG files are decoded at an eighth of their
        width and height, which reads all their data but is several times faster. Otherwise, only
        the header is read, and in PNG files the checksums.
    max_pixels : int, default=64_000_000

    Returns
    -------
    width, height : int

    Raises
    ------
    ValueError
        If the file cannot be decoded; the message gives its path and the reason.
    """
    with _opened(path, max_pixels) as image:
        _check_size(image, max_pixels)
        width, height = image.size
        if decode:
            image.draft(None, (max(1, width // 8), max(1, height // 8)))  # JPEG; else no effect
            decode_pil(image, max_pixels)
        is_turned = _is_turned(image)
        if not decode:
            image.verify()
    return (height, width) if is_turned else (width, height)


def _is_turned(image):
    """Tell whether the EXIF tag of an opened file turns its image by 90 degrees."""
    # Pillow itself turns TIFF files. It would decode a PNG file to search it for a tag.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return False
    try:
        return image.getexif().get(ORIENTATION) in (5, 6, 7, 8)
    except (ValueError, Warning, *DAMAGE):
        return False


@contextmanager
def _opened(path, max_pixels):
    """Open a file as a PIL image; turn all errors into a ValueError with path and reason."""
    path = str(os.fsdecode(path))
    try:
        if not os.path.isfile(path) and os.path.exists(path):
            raise ValueError("is a directory or device; use load_image_folder for a folder")
        _check_chunks(path)
        with refusing_truncated(), Image.open(path, formats=FORMATS) as image:
            yield image
    except (ValueError, Image.DecompressionBombError, Warning, *DAMAGE) as error:
        raise ValueError(f"{path!r}: {_reason(error, path, max_pixels)}") from None


def _check_chunks(path):
    """Refuse a PNG file with a chunk that is longer than the file: Pillow would allocate it."""
    with open(path, "rb") as file:
        if file.read(8) != PNG:
            return
        size, place = os.fstat(file.fileno()).st_size, 8
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if length > size:
                raise ValueError("is damaged (a chunk is longer than the file)")
            place += 12 + length
            file.seek(place)


def _reason(error, path, max_pixels):
    """Return the reason why a file could not be decoded."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return _too_large(re.search(r"\d+|$", str(error))[0], max_pixels)
    if isinstance(error, Image.UnidentifiedImageError):
        if os.path.exists(path) and os.path.getsize(path) == 0:
            return "is empty"
        return f"is not an image of a known format ({', '.join(FORMATS)}); convert it"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read ({error.strerror})"
    return str(error) if isinstance(error, ValueError) else f"is damaged ({error})"


def _too_large(n_pixels, limit):
    return (
        f"has {n_pixels} pixels, more than `max_image_pixels`={limit}; decoding it could exhaust "
        "memory. Raise the limit if you trust the file; Pillow's own limit, 178956970, is twice "
        "PIL.Image.MAX_IMAGE_PIXELS"
    )


def is_animated(image):
    """Tell whether a PIL image has frames that are ignored.

    MPO files, as phones write them, do not count: their second frame repeats the first.
    """
    return image.format != "MPO" and getattr(image, "is_animated", False)


def decode_pil(image, max_pixels=MAX_IMAGE_PIXELS, scale=measure_and_scale):
    """Convert a PIL image of any supported mode to pixels (h, w, 3); see :func:`decode_file`.

    Raises
    ------
    ValueError
        If the mode cannot be converted to RGB, the image is too large, or values are invalid.
    """
    pixels = _read_pixels(image, max_pixels)
    return to_rgb(scale(pixels, _has_16_bits(pixels)))


def find_image_span(image, max_pixels=MAX_IMAGE_PIXELS, decode=False):
    """Return the Span of a PIL image. 8-bit pixels count as bright, unless `decode` is True."""
    if image.mode == "1":
        return Span(1, "bool")
    if not (decode or _is_deep(image)):
        return BRIGHT
    pixels = _read_pixels(image, max_pixels)
    return find_span(pixels, "it", _has_16_bits(pixels))


def _has_16_bits(pixels):
    return pixels.dtype.kind in "iu" and pixels.dtype != np.uint8


def _read_pixels(image, max_pixels):
    """Return the pixels of a PIL image: (h, w, 1, 3 or 4)."""
    _check_size(image, max_pixels)
    # Apply the EXIF orientation first; palettes are converted below, never read as gray.
    with refusing_truncated():
        image = _turn_upright(image)
    if _is_deep(image):
        return np.asarray(image)[..., None]
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode == "PA":
        image = image.convert("RGBA")
    elif image.mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
    elif image.mode in ("1", "CMYK", "YCbCr", "HSV", "RGBX"):
        image = image.convert("RGB")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise ValueError(f"the colour mode {image.mode!r} cannot be converted to RGB")
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA")
    pixels = np.asarray(image)
    if image.mode == "LA":
        pixels = pixels[..., [0, 0, 0, 1]]
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _is_deep(image):
    return image.mode in ("F", "I") or image.mode.startswith("I;16")


def _check_size(image, max_pixels):
    if image.width * image.height > max_pixels:
        raise ValueError(_too_large(image.width * image.height, max_pixels))


def _turn_upright(image):
    """Apply the orientation of the EXIF tag; a broken tag has none, and the picture is good."""
    image.load()  # damaged pixels must raise
    try:
        return ImageOps.exif_transpose(image)
    except (ValueError, Warning, *DAMAGE):
        return image


def to_rgb(pixels):
    """Convert uint8 or [0, 1] floats (…, h, w, 1, 3 or 4) to RGB, blending alpha with white."""
    channels = pixels.shape[-1]
    if channels == 1:
        return np.repeat(pixels, 3, axis=-1)
    if channels == 3:
        return pixels
    white = 255 if pixels.dtype == np.uint8 else 1
    alpha = pixels[..., 3:].astype(np.float32) / white
    blend = white + (pixels[..., :3].astype(np.float32) - white) * alpha
    return np.rint(blend).astype(np.uint8) if white == 255 else blend
