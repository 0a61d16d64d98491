"""Images as training sees them, augmented."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.utils import check_random_state

from sklearn_rrr._surroundings import shielded
from sklearn_rrr._unwrapping import preprocess, unwrap
from sklearn_rrr._validation import check_choice, check_int
from sklearn_rrr.images.augmentation import GEOMETRIC, PaperAugmentation, PerImage
from sklearn_rrr.images.sources import as_unit_float
from sklearn_rrr.plotting.display import import_pyplot
from sklearn_rrr.plotting.grid_display import (
    MOST_PANELS,
    GridDisplay,
    check_panels,
    open_images,
    show_picture,
)

AUGMENTATIONS = {
    "paper": PaperAugmentation(),
    "geometric": PaperAugmentation(transformations=GEOMETRIC),
}
CURE = 'Draw an augmentation by AugmentationDisplay.from_augmentation("geometric", X).'


class AugmentationDisplay(GridDisplay):
    """Plot images and random augmentations of them, as training sees them.

    Parameters
    ----------
    images : ndarray of shape (n_images, S, S, 3)
        Original images in [0, 1].
    copies : ndarray of shape (n_images, n, S, S, 3)
        Augmented copies of each image, in [0, 1].

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes of shape (n_images * (n + 1),)
        Panels with the pictures, drawn by ``Axes.imshow``: a row per image, which begins with the
        original.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    FineTuning : Its field `augmentation` chooses the transformations.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_rrr.plotting import AugmentationDisplay
    >>> X = np.random.default_rng(0).random((2, 32, 32, 3))
    >>> AugmentationDisplay.from_augmentation("geometric", X, n=4, image_size=32).copies.shape
    (2, 4, 32, 32, 3)
    """

    _title_lines = 0

    def __init__(self, images, copies):
        self.images = images
        self.copies = copies

    @classmethod
    def from_estimator(cls, estimator, X, *, n=6, random_state=0, axes=None, **kwargs):
        """Plot the augmentation with which a classifier was fitted.

        Parameters
        ----------
        estimator : image classifier
            Fitted, with torch; or a pipeline, search, pruner or selector of one.
        X : images
            A few images, as in :meth:`RRRNetClassifier.fit`.
        n : int, default=6
            Number of augmented copies of each image, in [1, 200].
        random_state : int, RandomState instance or None, default=0
            Seed of the augmentation.
        axes, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : AugmentationDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the classifier was fitted without augmentation or without epochs, or there are too
            many panels.
        """
        import_pyplot()
        kind = "a fitted image classifier with a torch network, or a pipeline or search of one"
        classifier, steps = unwrap(estimator, "fine_tuning_", "classes_", kind=kind)
        augmentation = _get_augmentation(classifier)
        source = classifier._read(preprocess(steps, X), reset=False)
        size = classifier.image_size_
        return cls._make(augmentation, source, size, n, random_state).plot(axes, **kwargs)

    @classmethod
    def from_augmentation(
        cls, augmentation, X, *, n=6, image_size=128, random_state=0, axes=None, **kwargs
    ):
        """Plot an augmentation before any training.

        Parameters
        ----------
        augmentation : {"paper", "geometric"} or callable
            As in :class:`FineTuning`: a name, or a function that maps one float tensor of shape
            (3, S, S) in [0, 1] to another.
        X : images
            A few images, as in :meth:`RRRNetClassifier.fit`; rows must be square.
        n : int, default=6
            Number of augmented copies of each image, in [1, 200].
        image_size : int, default=128
            S, the height and width in pixels to which images are resized before.
        random_state : int, RandomState instance or None, default=0
            Seed of the augmentation.
        axes, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : AugmentationDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If the name is unknown or there are too many panels.
        """
        import_pyplot()
        check_int("image_size", image_size, 8, 4096)
        if callable(augmentation):
            augmentation = PerImage(augmentation)
        else:
            check_choice("augmentation", augmentation, tuple(AUGMENTATIONS), "Or pass a function.")
            augmentation = AUGMENTATIONS[augmentation]
        options = n, random_state
        return cls._make(augmentation, open_images(X), image_size, *options).plot(axes, **kwargs)

    @classmethod
    def _make(cls, augmentation, source, size, n, random_state):
        check_int("n", n, 1, MOST_PANELS, "It is the number of copies of each image.")
        check_panels("X", len(source) * (n + 1))
        images = as_unit_float(source.load(np.arange(len(source)), size))
        copies = _augment(augmentation, images, n, random_state)
        return cls(*(x.movedim(-3, -1).numpy() for x in (images, copies)))

    @property
    def _n_columns(self):
        return 1 + self.copies.shape[1]

    def _count(self):
        return len(self.images) * self._n_columns

    def _draw(self, axes, kwargs):
        rows = np.concatenate([self.images[:, None], self.copies], axis=1)
        for i, (ax, picture) in enumerate(
            zip(axes, rows.reshape(-1, *rows.shape[2:]), strict=True)
        ):
            title = ("original", "augmented")[i] if i < 2 else ""
            show_picture(ax, picture, title, **kwargs)


@shielded()
def _augment(augmentation, images, n, random_state):
    """Return copies of images (B, 3, S, S) in [0, 1] -> (B, n, 3, S, S)."""
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))
    generator = torch.Generator().manual_seed(seed)
    copies = augmentation(images.repeat_interleave(n, 0), generator)
    return copies.clamp(0, 1).unflatten(0, (-1, n))


def _get_augmentation(classifier):
    """Return the augmentation of the last training of a classifier."""
    tuning, settings = classifier.fine_tuning_, classifier._settings_used
    if tuning.augmentation is None:
        raise ValueError(
            "`estimator` was fitted with a function as augmentation, which its file does not "
            "contain. Pass the function to AugmentationDisplay.from_augmentation."
        )
    augmentation = classifier._resolve_augmentation(replace(tuning))
    if augmentation is None:
        raise ValueError(f"`estimator` was fitted without augmentation. {CURE}")
    if not (settings.max_epochs or settings.norm_warmup_epochs):
        raise ValueError(
            "`estimator` was fitted without augmentation: its heads were computed in closed form, "
            f"without epochs. {CURE}"
        )
    return augmentation
