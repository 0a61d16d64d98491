"""Predict with an exported classifier, without importing torch or torchvision."""

import json
import os
import threading
import warnings
from functools import cache
from numbers import Integral
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin

from sklearn_rrr._files import digest_bytes
from sklearn_rrr.classifiers.uncertainty import UncertaintyMixin
from sklearn_rrr.images.decoding import decode_file, decode_pil, is_animated, to_rgb

ENGINES = ("onnxruntime", "openvino")
PRECISIONS = ("fp32", "bf16")
BATCH = 64
METADATA = ("classes", "image_size")
WANTED = "X must be uint8 images, (n, h, w) or (n, h, w, c), or a list of images or paths"
EIGHT_BITS = "images must have 8 bits per channel, such as gray or RGB"
CONVERT = "Scale it to 0 to 255 and convert it to mode 'L'."


class OnnxClassifier(UncertaintyMixin, ClassifierMixin, BaseEstimator):
    """Classifier read from a file written by :func:`~sklearn_rrr.export_onnx`.

    Predictions run in ONNX Runtime or OpenVINO, without torch. The classifier needs no fitting;
    the file is read at the first prediction.

    Parameters
    ----------
    path : str or path
        The ``.onnx`` file.
    engine : {"onnxruntime", "openvino"}, default="onnxruntime"
        Engine that runs the network.
    precision : {"fp32", "bf16"}, default="fp32"
        Arithmetic precision. "bf16" needs OpenVINO, and is meant for processors with bf16
        instructions; its probabilities agree with those of "fp32" to about two digits.
    n_threads : int or None, default=None
        Number of threads, at least 1. None leaves the choice to the engine.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels of the exported classifier.
    image_size_ : int
        Height and width in pixels to which images are resized.

    See Also
    --------
    export_onnx : Export a fitted classifier.

    Examples
    --------
    The example of :func:`~sklearn_rrr.export_onnx` writes a file and predicts with it.

    >>> from sklearn_rrr import OnnxClassifier
    >>> clf = OnnxClassifier("birds.onnx", engine="openvino", precision="bf16")
    """

    def __init__(self, path, *, engine="onnxruntime", precision="fp32", n_threads=None):
        self.path = path
        self.engine = engine
        self.precision = precision
        self.n_threads = n_threads

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.three_d_array = True
        return tags

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X=None, y=None):
        """Read the file without training.

        Parameters
        ----------
        X : object, default=None
            Ignored.
        y : object, default=None
            Ignored.

        Returns
        -------
        self : object
            The unchanged classifier.
        """
        self._open()
        return self

    @property
    def classes_(self):
        return self._metadata("classes_", 0)

    @property
    def image_size_(self):
        return self._metadata("image_size_", 1)

    def _metadata(self, name, index):
        try:
            return self._open()[index]
        except (ValueError, ImportError) as error:  # so that hasattr returns False
            raise AttributeError(f"{name} is not available: {error}") from error

    def predict_proba(self, X):
        """Predict the probability of each class.

        Parameters
        ----------
        X : images
            uint8 array of shape (n, h, w) or (n, h, w, c), in gray, RGB or RGBA; or a list, 1-D
            array or Series of such images, of PIL images with 8 bits per channel, or of paths.
            Items may differ in size. Decoding is the same as in :class:`RRRNetClassifier`.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            Probabilities as float32. Rows sum to 1; columns are in the order of `classes_`.

        Raises
        ------
        ValueError
            If the exported file or an image file cannot be read, or if images have another
            shape or dtype.
        ImportError
            If the engine is not installed.
        """
        return self._predict(X, 0)

    def predict_branches(self, X):
        """Predict the class probabilities of each branch.

        Parameters
        ----------
        X : images
            As in :meth:`predict_proba`.

        Returns
        -------
        probabilities : ndarray of shape (n, n_branches, n_classes)
            Probabilities by branch; their mean over branches is :meth:`predict_proba`.
        """
        return self._predict(X, 1)

    def predict(self, X):
        """Predict the label of each image.

        Parameters
        ----------
        X : images
            As in :meth:`predict_proba`.

        Returns
        -------
        y : ndarray of shape (n,)
            Labels with the largest probability.
        """
        classes, _, _ = self._open()
        return classes[self.predict_proba(X).argmax(1)]

    def _predict(self, X, output):
        _, _, run = self._open()
        return np.concatenate([run(batch)[output] for batch in _batches(X)])

    def _open(self):
        """Return (classes, image size, function); read the file again if anything changed."""
        self._check_parameters()
        path = Path(self.path)
        if not path.is_file():
            raise ValueError(f"`path`={str(path)!r} is not a file.")
        changed = path.stat().st_mtime_ns
        key = (str(path), changed, self.engine, self.precision, self.n_threads)
        if getattr(self, "_opened", (None,))[0] != key:
            self._opened = key, self._read(str(path))
        return self._opened[1]

    def _check_parameters(self):
        for name, allowed in (("engine", ENGINES), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                choices = ", ".join(map(repr, allowed))
                raise ValueError(f"`{name}` must be one of {choices}; got {getattr(self, name)!r}.")
        if self.precision == "bf16" and self.engine != "openvino":
            raise ValueError("`precision`='bf16' needs `engine`='openvino'; got 'onnxruntime'.")
        n = self.n_threads
        if n is not None and (not isinstance(n, Integral) or isinstance(n, bool) or n < 1):
            raise ValueError(f"`n_threads` must be an int >= 1 or None; got {n!r}.")

    def _read(self, path):
        start = _start_openvino if self.engine == "openvino" else _start_onnxruntime
        content = Path(path).read_bytes()
        try:
            run, metadata = start(content, self.n_threads, self.precision)
        except ImportError as error:
            raise ImportError(
                f"`engine`={self.engine!r} is not installed: pip install {self.engine}."
            ) from error
        except Exception as error:  # each engine raises its own types
            raise ValueError(f"{path} cannot be run by {self.engine}: {error}") from error
        try:
            classes = decode_array(json.loads(metadata["classes"]))
            if not is_sealed(content):
                raise ValueError("its checksum is missing or wrong")
            return classes, int(metadata["image_size"]), run
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} was not written by sklearn_rrr.export_onnx, or is damaged: {error!r}."
            ) from error

    def __getstate__(self):
        return {k: v for k, v in super().__getstate__().items() if k != "_opened"}


def decode_array(record):
    """Return the array of {"array": list, "dtype": str}: numbers, booleans, strings or objects.

    The length of strings is inferred: an excessive one in a damaged dtype would exhaust memory.
    """
    dtype = np.dtype(record["dtype"])
    if dtype.kind not in "biufUO":
        raise ValueError(f"dtype {dtype}")
    return np.array(record["array"], dtype=str if dtype.kind == "U" else dtype)


# ------------------------------------------------------------------------------ checksum

# A last entry of the model's metadata, as protobuf writes it: field 14 of the model is a pair of a
# key and a value, which are its fields 1 and 2.
SEAL = b"\x72\x4a\x0a\x06sha256\x12\x40"


def seal(content):
    """Append the SHA-256 of an ONNX file to it, as an entry of its metadata."""
    return content + SEAL + digest_bytes(content).encode()


def is_sealed(content):
    """Tell whether an ONNX file is as :func:`seal` wrote it."""
    end = len(content) - len(SEAL) - 64
    return end > 0 and content[end:] == seal(content[:end])[end:]


# -------------------------------------------------------------------------------- images


def _batches(X):
    """Yield uint8 batches (n, h, w, 3); all images of a batch have the same size."""
    if isinstance(X, np.ndarray) and X.ndim in (3, 4) and len(X):
        if X.ndim == 3 and X.shape[2] in (1, 3, 4):
            raise ValueError(
                f"X has the shape {X.shape}, which could be one image. Add a batch axis, "
                "X[np.newaxis], to one image, or a channel axis, X[..., np.newaxis], to gray ones."
            )
        yield from (_as_rgb(X[start : start + BATCH]) for start in range(0, len(X), BATCH))
    elif (isinstance(X, (list, tuple)) or getattr(X, "ndim", 0) == 1) and len(X):
        yield from (_as_rgb(_decode(image)[None]) for image in X)
    else:
        shape = f" of shape {X.shape}" if isinstance(X, np.ndarray) else ""
        raise ValueError(f"{WANTED}, at least one; got a {type(X).__name__}{shape}.")


def _decode(image):
    """Return the pixels of an image file, PIL image or array-like."""
    if isinstance(image, (str, os.PathLike)):
        pixels, animated = decode_file(image)
        if pixels.dtype != np.uint8:
            raise ValueError(f"{os.fsdecode(image)!r}: {EIGHT_BITS}; it has more. {CONVERT}")
    elif isinstance(image, Image.Image):
        if image.mode in ("F", "I") or image.mode.startswith("I;16"):
            raise ValueError(f"{EIGHT_BITS}; got the mode {image.mode!r}. {CONVERT}")
        pixels, animated = decode_pil(image), is_animated(image)
    else:
        return np.asarray(image)
    if animated:
        warnings.warn(f"{image} has several frames; only one is used.", stacklevel=2)
    return pixels


def _as_rgb(images):
    n_axes, shape = images.ndim, images.shape[1:]
    if n_axes == 3:
        images = images[..., None]
    channels = images.shape[3] if images.ndim == 4 else 0
    if images.dtype != np.uint8 or channels not in (1, 3, 4) or 0 in shape:
        raise ValueError(
            f"{WANTED}; got {images.dtype} of shape {shape} as one image. Put channels last and "
            "scale values to uint8, with 255 for white."
        )
    return np.ascontiguousarray(to_rgb(images))


# ------------------------------------------------------------------------------- engines


def _start_onnxruntime(content, n_threads, precision):
    """Return a function that maps images to the outputs, and the file's metadata."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads or 0
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    return lambda images: session.run(None, {"images": images}), metadata


_first_use = threading.Lock()


@cache
def _openvino_core():
    """Return the process's only OpenVINO core, which is never released.

    OpenVINO's CPU plugin gives the thread that first compiles a model an alternate signal stack,
    and unmaps it with the last model, in whichever thread; the next signal would then be fatal.
    """
    import openvino

    return openvino.Core()


def _start_openvino(content, n_threads, precision):
    with _first_use:
        core = _openvino_core()
    model = core.read_model(content)
    try:
        metadata = {k: model.get_rt_info(["framework", k]).astype(str) for k in METADATA}
    except RuntimeError:  # the file has no such metadata
        metadata = {}
    config = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision]}
    if n_threads:
        config["INFERENCE_NUM_THREADS"] = n_threads
    compiled, own = core.compile_model(model, "CPU", config), threading.local()

    def run(images):
        if not hasattr(own, "request"):  # a request is not thread-safe
            own.request = compiled.create_infer_request()
        return list(own.request.infer([images]).values())

    return run, metadata
