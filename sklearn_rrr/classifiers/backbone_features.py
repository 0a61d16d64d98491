"""Transformer from images to the features of a pre-trained network, which is not trained.

Features of all levels: Evci et al. (2022), Head2Toe: Utilizing intermediate representations for
better transfer learning.
"""

from dataclasses import KW_ONLY, dataclass
from os import PathLike

import torch
from sklearn.base import BaseEstimator
from torch import nn

from sklearn_rrr._surroundings import drawing, shielded
from sklearn_rrr._validation import check_choice
from sklearn_rrr.backbones.fine_tuning import HEAD_FEATURES
from sklearn_rrr.backbones.weights import load_backbone
from sklearn_rrr.classifiers.parameters import check_reading
from sklearn_rrr.classifiers.prediction import FeaturesMixin
from sklearn_rrr.classifiers.reading import ReadingMixin
from sklearn_rrr.images.decoding import MAX_IMAGE_PIXELS
from sklearn_rrr.networks.rrr_net import RRRNet


@dataclass(eq=False, repr=False)
class BackboneFeatures(ReadingMixin, FeaturesMixin, BaseEstimator):
    """Transform images into the features of a pre-trained network.

    Use it in front of any estimator of scikit-learn: classifiers, regressors, clustering, search
    for similar images. The network is not trained; `fit` only reads how pixels are scaled and how
    rows are shaped, and decodes no files. :class:`RRRNetClassifier` reads the same features.

    Parameters
    ----------
    backbone : str, default="efficientnet_lite0"
        Name of the pre-trained network; :func:`list_backbones` lists them.
    weights : str, path, dict or None, default="pretrained"
        As in :class:`RRRNetClassifier`. None draws random weights, the same ones in each fit.
    levels : {"all", "last"}, default="all"
        "last" returns the means of the last block's output over the pixels. "all" also returns mean
        and standard deviation of each earlier block's output, and the means of the four quadrants
        of the last block of stride 16. For images that are unlike photographs, earlier levels tell
        more than the last one.
    image_size : int or None, default=None
        Height and width, in pixels, to which images are resized, in [8, 4096]. None uses the size
        that suits the backbone.
    image_shape : tuple of int or None, default=None
        Shape of an image that is given as a row, as in :class:`RRRNetClassifier`.
    max_image_pixels : int, default=64000000
        Largest number of pixels of an image file, a protection against decompression bombs.
    device : str, torch.device or None, default=None
        "cpu", "cuda", "cuda:1" and so on. None uses a CUDA GPU if one is available.
    precision : {"fp32", "bf16"} or None, default=None
        Precision of convolutions; None uses "fp32".

    Attributes
    ----------
    module_ : RRRNet
        The network, without a head.
    image_size_ : int
        Height and width, in pixels, to which images are resized.
    image_shape_in_ : tuple or None
        Shape, (h, w) or (h, w, c), of the images passed to `fit`; None if it may vary.
    n_features_in_ : int
        Length of a row; only if X had rows.
    feature_names_in_ : ndarray of str
        Names of the columns; only if X was a frame of rows whose columns have names of type str.

    See Also
    --------
    RRRNetClassifier : Classifier whose ``transform`` returns the features of its network.

    References
    ----------
    Evci, Dumoulin, Larochelle and Mozer (2022), Head2Toe: Utilizing intermediate representations
    for better transfer learning, arXiv:2201.03529.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_rrr import BackboneFeatures
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> features = BackboneFeatures(image_size=64).set_output(transform="pandas")
    >>> features.fit_transform(X[:4] / 16).iloc[:, -1].name
    'conv5_x_6_mean_1279'
    >>> model = make_pipeline(features, StandardScaler(), LogisticRegression())
    >>> model.fit(X[:64] / 16, y[:64]).score(X[64:128] / 16, y[64:128]) > 0.9
    True
    """

    backbone: str = "efficientnet_lite0"
    _: KW_ONLY
    weights: str | PathLike | dict | None = "pretrained"
    levels: str = "all"
    image_size: int | None = None
    image_shape: tuple | None = None
    max_image_pixels: int = MAX_IMAGE_PIXELS
    device: str | torch.device | None = None
    precision: str | None = None

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    @shielded()
    def fit(self, X, y=None):
        """Load the network, and read how the images are given.

        Parameters
        ----------
        X : images
            As in :meth:`RRRNetClassifier.fit`. Files are not decoded.
        y : object, default=None
            Ignored.

        Returns
        -------
        self : object
            The fitted transformer.

        Raises
        ------
        ValueError, TypeError
            If parameters or the form of X are invalid.
        """
        check_reading(self)
        check_choice("levels", self.levels, HEAD_FEATURES)
        self.__dict__.pop("module_", None)
        with drawing(0):
            backbone, _ = load_backbone(self.backbone, self.weights)
            network = RRRNet(backbone, n_classes=1, head_features=self.levels)
        self.image_size_ = self.image_size or backbone.image_size_whole
        self._read(X, reset=True)
        network.head = nn.Identity()
        self.module_, self._folded = network.eval(), {}
        return self

    def __sklearn_is_fitted__(self):
        return hasattr(self, "module_")

    def __getstate__(self):
        return {name: v for name, v in super().__getstate__().items() if name != "_folded"}

    def __setstate__(self, state):
        super().__setstate__(state)
        if "module_" in state:
            self._folded = {}
