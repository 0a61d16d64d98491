"""Class activation maps: which pixels speak for a class."""

import copy

import numpy as np
import torch

from sklearn_rrr._surroundings import shielded
from sklearn_rrr._unwrapping import preprocess, unwrap
from sklearn_rrr._validation import check_bool, check_int
from sklearn_rrr.networks.class_activation import map_classes
from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.plotting.display import import_pyplot
from sklearn_rrr.plotting.grid_display import GridDisplay, check_panels, shorten, show_picture

BATCH = 8  # images at a time
LABEL = "contribution to the logit\nper % of the image"
SHOWN = 0.995  # quantile of the contributions that has the strongest colour


class ActivationMapDisplay(GridDisplay):
    """Plot which pixels of an image speak for and against a class.

    The logit of a class is the sum of a map over the pixels and of a constant, exactly: heads are
    linear in features that are pooled over the pixels of one or all levels of the network. Maps of
    several levels are added up; those of coarse levels are interpolated, without a change of their
    sum. A map shows an image in comparison with the mean training image if the heads read all
    levels, else with an image without any activation.

    Parameters
    ----------
    images : ndarray of shape (n, S, S, 3)
        Images as the network reads them, uint8 or in [0, 1].
    maps : ndarray of shape (n, K', S, S)
        Contribution of each pixel to the logit of K' classes of each image.
    constants : ndarray of shape (n, K')
        Rest of each logit.
    labels : ndarray of shape (n, K')
        Labels of the classes.
    probabilities : ndarray of shape (n, K')
        Their predicted probabilities.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (n * K',)
        Panels with the maps, drawn by ``Axes.imshow``: a row per image and a column per class, or
        the images row by row if each has one class.
    figure_ : matplotlib Figure
        Their figure.
    colorbar_ : matplotlib Colorbar
        Scale of all maps, the contribution of a pixel times one per cent of their number. Positive
        contributions speak for the class.

    See Also
    --------
    KernelMosaicDisplay : Activation maps of single kernels.
    ErrorGalleryDisplay : Images that are worth a look.

    References
    ----------
    Zhou, Khosla, Lapedriza, Oliva and Torralba (2016), Learning deep features for discriminative
    localization, arXiv:1512.04150, section 2, for means over the pixels; our own derivation for
    standard deviations.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import RRRNetClassifier
    >>> from sklearn_rrr.plotting import ActivationMapDisplay
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier("synth50", fine_tuning="one_pass", image_size=32)
    >>> display = ActivationMapDisplay.from_estimator(clf.fit(X[:64] / 16, y[:64]), X[64:68] / 16)
    >>> logits = display.maps.sum((2, 3)) + display.constants  # minus the mean over the classes
    >>> logits.shape
    (4, 1)
    """

    def __init__(self, images, maps, constants, labels, probabilities):
        self.images = images
        self.maps = maps
        self.constants = constants
        self.labels = labels
        self.probabilities = probabilities

    @classmethod
    def from_estimator(
        cls, estimator, X, *, classes=None, branch=None, relative=True, axes=None, **kwargs
    ):
        """Plot the activation maps of a fitted classifier.

        Parameters
        ----------
        estimator : image classifier
            Fitted, with torch; or a pipeline, search, pruner or selector of one.
        X : images
            A few images, as in :meth:`RRRNetClassifier.fit`.
        classes : label, array-like of labels or None, default=None
            Classes to draw for each image; None draws the predicted class.
        branch : int or None, default=None
            Branch whose logits are explained, from 0; None means the mean of all branches.
        relative : bool, default=True
            Whether to explain the logit of a class minus the mean logit of all classes: what speaks
            for this class rather than for others. False explains the logit itself.
        axes, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : ActivationMapDisplay
            The display, drawn.

        Raises
        ------
        ValueError, TypeError
            If a class or branch is unknown, or there are too many panels.
        """
        import_pyplot()
        kind = "a fitted image classifier with a torch network, or a pipeline or search of one"
        classifier, steps = unwrap(estimator, "module_", "classes_", kind=kind)
        check_bool("relative", relative)
        if branch is not None:
            check_int("branch", branch, 0, classifier.module_.n_branches - 1)
        if classes is not None:
            classes = _find_classes(classes, classifier.classes_)
        source = classifier._read(preprocess(steps, X), reset=False)
        check_panels("X", len(source) * (1 if classes is None else len(classes)))
        images = source.load(np.arange(len(source)), classifier.image_size_)
        device = classifier._prediction_device()
        found = _explain(classifier.module_, images, device, classes, branch, relative)
        maps, constants, chosen, probabilities = found
        pictures = images.movedim(1, 3).numpy()
        labels = classifier.classes_[chosen]
        return cls(pictures, maps, constants, labels, probabilities).plot(axes, **kwargs)

    _title_lines, _margin = 1, 0.9

    @property
    def _n_columns(self):
        return self.maps.shape[1] if self.maps.shape[1] > 1 else 5

    def _count(self):
        return self.maps.shape[0] * self.maps.shape[1]

    def _draw(self, axes, kwargs):
        percent = self.maps * self.maps[0, 0].size / 100  # (n, K', S, S)
        limit = np.quantile(abs(percent), SHOWN) or 1.0
        style = {"cmap": "bwr", "vmin": -limit, "vmax": limit, "interpolation": "bilinear"}
        for ax, (i, k) in zip(axes, np.ndindex(*percent.shape[:2]), strict=True):
            title = f"{shorten(self.labels[i, k])}: {self.probabilities[i, k]:.2f}"
            show_picture(ax, _fade(self.images[i]), title, cmap="gray", vmin=0, vmax=1)
            opacity = (abs(percent[i, k]) / limit).clip(0, 1) ** 0.7
            image = ax.imshow(percent[i, k], **{"alpha": 0.85 * opacity} | style | kwargs)
        scale = import_pyplot().cm.ScalarMappable(image.norm, image.cmap)  # which is opaque
        self.colorbar_ = self.figure_.colorbar(
            scale, ax=[*axes], label=LABEL, extend="both", aspect=30
        )


@shielded()
def _explain(network, images, device, classes, branch, relative):
    """Return maps, constants, indices of the classes and their probabilities, as arrays."""
    network = copy.deepcopy(network).eval().to(device)  # hooks stay out of the estimator
    classes = None if classes is None else torch.as_tensor(classes, device=device)
    part = slice(None) if branch is None else slice(branch, branch + 1)
    parts = []
    for batch in images.split(BATCH):
        found = map_classes(network, batch.to(device), classes, relative)
        probabilities = average_probabilities(found.logits[:, part]).gather(1, found.classes)
        means = [values[:, part].mean(1) for values in (found.maps, found.constants)]
        parts.append([*means, found.classes, probabilities])
    return [torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True)]


def _find_classes(classes, known):
    """Return the indices of labels among the known ones."""
    wanted = np.atleast_1d(np.asarray(classes)).tolist()
    places = {label: i for i, label in enumerate(known.tolist())}
    if not wanted or not places.keys() >= {*wanted}:
        raise ValueError(
            f"`classes` must be labels of the classifier, {known.tolist()}; got {wanted}. None "
            "means the predicted class of each image."
        )
    return [places[label] for label in wanted]


def _fade(image):
    """Return a pale gray picture in [0, 1], on which colours can be seen: (S, S, 3) -> (S, S)."""
    gray = image.mean(2) / (255 if image.dtype == np.uint8 else 1)
    return 0.45 + 0.5 * gray
