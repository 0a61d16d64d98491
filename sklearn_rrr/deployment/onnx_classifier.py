"""Predict with an exported classifier, without importing torch or torchvision."""

import os
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import validate_data

from sklearn_rrr._files import check_path, explaining, opened
from sklearn_rrr.classifiers.uncertainty import UncertaintyMixin
from sklearn_rrr.deployment.onnx_engines import ENGINES
from sklearn_rrr.deployment.onnx_files import is_sealed, read_metadata
from sklearn_rrr.images.array_likes import is_tensor
from sklearn_rrr.images.forms import is_dataset, sort_input
from sklearn_rrr.images.readers import make_reader, read_batches
from sklearn_rrr.images.resizing import NumpyResizer

PRECISIONS = ("fp32", "bf16")
BATCH = 64


class OnnxClassifier(UncertaintyMixin, ClassifierMixin, BaseEstimator):
    """Classifier read from a file written by :func:`~sklearn_rrr.export_onnx`.

    Predictions run in ONNX Runtime or OpenVINO, without torch. Images are read as the exported
    classifier reads them. The classifier needs no fitting; the file is read at the first
    prediction.

    Parameters
    ----------
    path : str or path
        The ``.onnx`` file.
    engine : {"onnxruntime", "openvino"}, default="onnxruntime"
        Engine that runs the network.
    precision : {"fp32", "bf16"}, default="fp32"
        Arithmetic precision. "bf16" needs OpenVINO, and is meant for processors with bf16
        instructions; its probabilities agree with those of "fp32" to about two digits.
        Convolutions that were exported in int8 are computed in int8 in both cases.
    n_threads : int or None, default=None
        Number of threads that run the network and read image files, at least 1; more than the
        number of processors have no effect. None leaves the choice to the engine; files are then
        read by as many threads as OpenMP would use.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels of the exported classifier.
    image_size_ : int
        Height and width in pixels to which images are resized.
    image_shape_in_ : tuple or None
        Shape (h, w) or (h, w, c) of the images passed to `fit` of the exported classifier, or
        None if they may differ in size.
    n_features_in_ : int
        Number of features. Defined if the exported classifier was fitted on rows.
    feature_names_in_ : ndarray of str
        Column names. Defined if the exported classifier was fitted on a frame of rows whose column
        names are all strings.

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
        return self._attribute("classes_", "classes")

    @property
    def image_size_(self):
        return self._attribute("image_size_", "image_size")

    @property
    def image_shape_in_(self):
        return self._attribute("image_shape_in_", "format").shape

    @property
    def n_features_in_(self):
        return self._attribute_of_rows("n_features_in_", "n_features")

    @property
    def feature_names_in_(self):
        return self._attribute_of_rows("feature_names_in_", "feature_names")

    def _attribute(self, name, field):
        try:
            return getattr(self._open()[0], field)
        except (ValueError, ImportError) as error:  # so that hasattr returns False
            raise AttributeError(f"{name} is not available: {error}") from error

    def _attribute_of_rows(self, name, field):
        value = self._attribute(name, field)
        if value is None:
            raise AttributeError(f"{name} is not available: the fit of this classifier set none.")
        return value

    def predict_proba(self, X):
        """Predict the probability of each class.

        Parameters
        ----------
        X : images
            Anything that `predict_proba` of the exported classifier accepts, except torch tensors
            and Datasets: an array of shape (n, h, w), (n, h, w, c) or (n, c, h, w); rows of shape
            (n, n_features), if it was fitted on rows; or a list, 1-D array, Series or frame of
            one column, of arrays, PIL images or paths, which may differ in size. White levels and
            errors are the same, too.

        Returns
        -------
        probabilities : ndarray of shape (n, n_classes)
            Probabilities as float32. Rows sum to 1; columns are in the order of `classes_`.

        Raises
        ------
        ValueError
            If the exported file cannot be read, or if the exported classifier would not accept X.
        TypeError
            If X contains torch objects or no images.
        ImportError
            If the engine is not installed.
        """
        return self._predict(X, 0)[1]

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
        return self._predict(X, 1)[1]

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
        exported, probabilities = self._predict(X, 0)
        return exported.classes[probabilities.argmax(1)]

    def _predict(self, X, output):
        """Return an Exported and one output of the graph; one error names all bad images."""
        exported, run = self._open()
        batches = read_batches(self._make_reader(X, exported), exported.image_size, BATCH)
        return exported, np.concatenate([run(_as_bytes(images))[output] for images in batches])

    def _make_reader(self, X, exported):
        """Return a reader of X that reads as the exported classifier does."""
        _refuse_torch(X)
        kind, X = sort_input(X)
        if kind == "items":
            for item in X:
                _refuse_torch(item)
        if kind == "rows":
            X = validate_data(self, X, reset=False)
        resizer, limit = NumpyResizer(self._count_threads()), exported.max_image_pixels
        return make_reader(kind, X, resizer, fitted=exported.format, max_pixels=limit)

    def _open(self):
        """Return (Exported, function that runs the graph); read the file again if it changed."""
        self._check_parameters()
        path = check_path("path", self.path)
        with explaining("path", path), opened(path) as file:
            state = os.fstat(file.fileno())
            # Copies that keep the time of a file change its number, or its time of change.
            version = (state.st_dev, state.st_ino, state.st_size)
            version += (state.st_mtime_ns, state.st_ctime_ns)
            key = (version, self.engine, self.precision, self.n_threads)
            found = getattr(self, "_opened", None)
            if found is None or found[0] != key:
                self._opened = found = key, self._read(str(path), file.read())
        return found[1]

    def _check_parameters(self):
        for name, allowed in (("engine", tuple(ENGINES)), ("precision", PRECISIONS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                choices = ", ".join(map(repr, allowed))
                raise ValueError(f"`{name}` must be one of {choices}; got {value!r}.")
        if self.precision == "bf16" and self.engine != "openvino":
            raise ValueError("`precision`='bf16' needs `engine`='openvino'; got 'onnxruntime'.")
        n = self.n_threads
        if n is not None and (not isinstance(n, Integral) or isinstance(n, bool) or n < 1):
            raise ValueError(f"`n_threads` must be an int >= 1 or None; got {n!r}.")

    def _count_threads(self):
        """Return `n_threads`, at most the number of processors; more would hinder each other."""
        return None if self.n_threads is None else min(self.n_threads, os.cpu_count() or 1)

    def _read(self, path, content):
        try:
            run, metadata = ENGINES[self.engine](content, self._count_threads(), self.precision)
        except ImportError as error:
            raise ImportError(
                f"`engine`={self.engine!r} is not installed: pip install {self.engine}."
            ) from error
        except Exception as error:  # each engine raises its own types
            raise ValueError(f"{path} cannot be run by {self.engine}: {error}") from error
        try:
            if not is_sealed(content):
                raise ValueError("its checksum is missing or wrong")
            return read_metadata(metadata), run
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} was not written by sklearn_rrr.export_onnx, or is damaged: {error!r}."
            ) from error

    def __getstate__(self):
        return {k: v for k, v in super().__getstate__().items() if k != "_opened"}


def _refuse_torch(X):
    if is_tensor(X) or is_dataset(X):
        raise TypeError(
            f"OnnxClassifier reads no objects of torch; got a {type(X).__name__}. Pass the array "
            "X.numpy() of a tensor, or a list of the images of a Dataset."
        )


def _as_bytes(images):
    """Return images as float32 in [0, 255], the input of the graph."""
    return images.astype(np.float32) if images.dtype == np.uint8 else images * np.float32(255)
