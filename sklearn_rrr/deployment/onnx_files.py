"""Content of ONNX files besides the graph: classes, the format of X, and a checksum."""

import json
from dataclasses import asdict, dataclass

import numpy as np

from sklearn_rrr._files import digest_bytes
from sklearn_rrr._version import __version__
from sklearn_rrr.images.image_format import ImageFormat

METADATA = ("classes", "image_size", "reading")

# A last entry of the model's metadata, as protobuf writes it: field 14 of the model is a pair of a
# key and a value, which are its fields 1 and 2.
SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"


@dataclass(frozen=True)
class Exported:
    """Attributes of an exported classifier that its predictions need, apart from the graph.

    n_features and feature_names are None unless it was fitted on rows, or on rows of a frame.
    """

    classes: np.ndarray
    image_size: int
    format: ImageFormat
    max_image_pixels: int
    n_features: int | None = None
    feature_names: np.ndarray | None = None


def make_metadata(estimator, classes):
    """Return the metadata of a fitted classifier's file; `classes` are JSON-compatible."""
    names = getattr(estimator, "feature_names_in_", None)
    reading = {
        "format": asdict(estimator._image_format),
        "max_image_pixels": estimator.max_image_pixels,
        "n_features": getattr(estimator, "n_features_in_", None),
        "feature_names": None if names is None else list(names),
    }
    return {
        "sklearn_rrr": __version__,
        "classes": json.dumps(classes),
        "image_size": str(estimator.image_size_),
        "reading": json.dumps(reading, default=np.generic.item),
    }


def read_metadata(metadata):
    """Invert :func:`make_metadata`: return an Exported."""
    reading = json.loads(metadata["reading"])
    fmt, names = reading["format"], reading["feature_names"]
    if fmt["shape"] is not None:
        fmt["shape"] = tuple(fmt["shape"])
    return Exported(
        decode_array(json.loads(metadata["classes"])),
        int(metadata["image_size"]),
        ImageFormat(**fmt),
        reading["max_image_pixels"],
        reading["n_features"],
        None if names is None else np.array(names, dtype=object),
    )


def decode_array(record):
    """Return the array of {"array": list, "dtype": str}: numbers, booleans, strings or objects.

    The length of strings is inferred: an excessive one in a damaged dtype would exhaust memory.
    """
    dtype = np.dtype(record["dtype"])
    if dtype.kind not in "biufUO":
        raise ValueError(f"dtype {dtype}")
    return np.array(record["array"], dtype=str if dtype.kind == "U" else dtype)


def seal(content):
    """Append the SHA-256 of an ONNX file to it, as an entry of its metadata."""
    return content + SEAL + digest_bytes(content).encode()


def is_sealed(content):
    """Tell whether an ONNX file is as :func:`seal` wrote it."""
    end = len(content) - len(SEAL) - 64
    return end > 0 and content[end:] == seal(content[:end])[end:]
