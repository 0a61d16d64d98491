"""Inspect all images before training: bad files, conflicting labels, a bounded cache."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from sklearn_rrr._warnings import warn
from sklearn_rrr.images.decoding import BadImages, list_reasons
from sklearn_rrr.images.sources import TorchResizer

CACHE_BYTES = 256 * 2**20
CHUNK = 256


@dataclass
class Inspection:
    """Source of the usable images, their original positions, and the skipped images."""

    source: object
    kept: np.ndarray
    skipped: list


def inspect_images(source, labels, image_size, on_bad_file="raise"):
    """Decode all images to find bad ones and conflicting labels, and cache a small set.

    Parameters
    ----------
    source : ArrayImages or ItemImages
    labels : ndarray of shape (n,)
        Encoded labels, to find equal images with different labels.
    image_size : int
        Height and width in pixels.
    on_bad_file : {"raise", "skip"}, default="raise"

    Returns
    -------
    inspection : Inspection
        Its source contains the resized images if they fit into CACHE_BYTES.

    Raises
    ------
    BadImages
        If some images cannot be used; lists them all.
    """
    n, bad, seen, twice = len(source), [], {}, 0
    cached = [] if n * 3 * image_size**2 <= CACHE_BYTES else None
    for start in range(0, n, CHUNK):
        indices = np.arange(start, min(start + CHUNK, n))
        try:
            images = source.load(indices, image_size)
        except BadImages as error:
            bad += error.bad
            cached = cached if on_bad_file == "raise" else None
            continue
        if bad and on_bad_file == "raise":
            continue
        if cached is not None:
            if images.dtype != torch.uint8 and n * 12 * image_size**2 > CACHE_BYTES:
                cached = None
            else:
                cached.append(images.contiguous())
        for label, image in zip(labels[indices], images.numpy(), strict=True):
            digest = hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()
            twice += seen.setdefault(digest, label) != label
    if bad and on_bad_file == "raise":
        hint = "\nRepair or remove them, or use on_bad_file='skip' to leave them out of fit."
        raise BadImages(bad, n, hint)
    if bad:
        return _skip(source, labels, image_size, bad)
    if twice:
        warn(f"{twice} image(s) repeat an earlier image with another label; check the labels.")
    if cached is not None:
        source = TensorImages(TorchResizer.join(cached))
    return Inspection(source, np.arange(n), [])


def _skip(source, labels, image_size, bad):
    """Leave the bad images out and inspect the rest."""
    index = {i for i, _ in bad}
    kept = np.array([i for i in range(len(source)) if i not in index], dtype=int)
    if len(kept) == 0:
        raise BadImages(bad, len(source))
    warn(f"{len(bad)} image(s) were skipped, see skipped_:{list_reasons(bad)}")
    rest = inspect_images(source.select(kept), labels[kept], image_size)
    return Inspection(rest.source, kept, [source.name(i) for i in sorted(index)])


class TensorImages:
    """Source of images already resized to (n, 3, S, S); selections share their memory."""

    def __init__(self, images, numbers=None):
        self.images = images
        self.numbers = torch.arange(len(images)) if numbers is None else numbers

    def __len__(self):
        return len(self.numbers)

    def select(self, indices):
        return TensorImages(self.images, self.numbers[torch.as_tensor(indices)])

    def load(self, indices, image_size):
        """Return the images at `indices`, already resized to `image_size`."""
        return self.images[self.numbers[torch.as_tensor(indices)]]
