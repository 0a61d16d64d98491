"""Activation maps of the kernels of a layer."""

import math

import numpy as np

from sklearn_rrr._unwrapping import preprocess, unwrap
from sklearn_rrr._validation import check_choice
from sklearn_rrr.plotting.display import Display, import_pyplot
from sklearn_rrr.pruning.activation_maps import activation_maps
from sklearn_rrr.pruning.channel_groups import find_groups

GAP = 1  # pixels between maps; twice as wide between the mosaics of two kernels


class KernelMosaicDisplay(Display):
    """Plot the activation maps of the kernels of a layer.

    Each kernel has a mosaic with one activation map per image, scaled by the largest activation of
    the kernel, under the number and the score of the kernel. The first mosaic shows the images, in
    the same order.

    Parameters
    ----------
    activations : ndarray of shape (C, n_images, h, w)
        Activations of C kernels, at least 0. Kernels without an activation function, the last ones
        of an inverted residual block, have absolute values.
    scores : array-like of shape (C,) or None, default=None
        Relevance of the kernels, which are drawn in increasing order of it. None draws them by
        number.
    images : ndarray of shape (n_images, S, S, 3) or None, default=None
        RGB images in [0, 1] or uint8.
    layer : str or None, default=None
        Title of the plot.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Axes with the mosaics, drawn by ``Axes.imshow``, and their figure.
    order_ : ndarray of shape (C,)
        Numbers of the kernels in the order of drawing, row by row.
    mosaic_ : matplotlib AxesImage
        Activation maps, divided by the largest activation of each kernel.
    pictures_ : matplotlib AxesImage or None
        Mosaic of the images.

    See Also
    --------
    ProgressiveKernelPruner : Its `selector` receives these activations.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_rrr.plotting import KernelMosaicDisplay
    >>> activations = np.random.default_rng(0).random((6, 4, 5, 5))
    >>> scores = [0.2, 0.0, 0.1, 0.0, 0.3, 0.1]
    >>> display = KernelMosaicDisplay.from_activations(activations, scores=scores)
    >>> display.order_.tolist()
    [1, 3, 2, 5, 0, 4]
    """

    def __init__(self, activations, scores=None, *, images=None, layer=None):
        self.activations = activations
        self.scores = scores
        self.images = images
        self.layer = layer

    @classmethod
    def from_estimator(cls, estimator, X, layer, *, scores=None, ax=None, **kwargs):
        """Plot the activation maps of a layer of a fitted classifier.

        Parameters
        ----------
        estimator : image classifier
            Fitted; or a pipeline, search, pruner or selector of one.
        X : images
            A few images, as in :meth:`RRRNetClassifier.fit`.
        layer : str
            Name of a convolution, as in ``results_`` of a :class:`ProgressiveKernelPruner`.
        scores : array-like of shape (C,) or None, default=None
            Relevance of the channels of the layer.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : KernelMosaicDisplay
            The display, drawn.
        """
        import_pyplot()
        classifier, steps = unwrap(estimator, "module_", "image_size_")
        network = getattr(classifier.module_, "main", classifier.module_)  # without a companion
        groups = {group.name: group for group in find_groups(network)}
        check_choice("layer", layer, tuple(groups))
        source = classifier._read(preprocess(steps, X), reset=False)
        images = source.load(np.arange(len(source)), classifier.image_size_)
        maps = activation_maps(network, groups[layer], images)
        pictures = images.movedim(1, 3).numpy()
        return cls.from_activations(
            maps, scores=scores, images=pictures, layer=layer, ax=ax, **kwargs
        )

    @classmethod
    def from_activations(
        cls, activations, *, scores=None, images=None, layer=None, ax=None, **kwargs
    ):
        """Plot given activations, such as those passed to a `selector`.

        Parameters
        ----------
        activations : array-like of shape (C, n_images, h, w)
            Activations of C kernels, at least 0.
        scores : array-like of shape (C,) or None, default=None
            Relevance of the kernels.
        images : array-like of shape (n_images, S, S, 3) or None, default=None
            RGB images in [0, 1] or uint8.
        layer : str or None, default=None
            Title of the plot.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : KernelMosaicDisplay
            The display, drawn.
        """
        activations = np.asarray(activations, dtype=float)
        if activations.ndim != 4 or not activations.size:
            raise ValueError(
                "`activations` must have the shape (C, n_images, h, w); got "
                f"{activations.shape}. Pass the argument of a `selector`."
            )
        if not (activations.min() >= 0 and np.isfinite(activations).all()):
            raise ValueError(
                "`activations` must be finite and at least 0, as after a ReLU; got a smallest of "
                f"{activations.min():g}."
            )
        if scores is not None:
            scores = np.asarray(scores, dtype=float)
            _check_shape(
                "scores", scores, scores.shape == activations.shape[:1], f"({len(activations)},)"
            )
        if images is not None:
            images, n = np.asarray(images), activations.shape[1]
            fits = images.ndim == 4 and images.shape[::3] == (n, 3)
            _check_shape("images", images, fits, f"({n}, S, S, 3)")
        return cls(activations, scores, images=images, layer=layer).plot(ax, **kwargs)

    def _draw(self, ax, kwargs):
        peaks = self.activations.max((1, 2, 3), keepdims=True)
        maps = self.activations / np.where(peaks > 0, peaks, 1)
        by = np.arange(len(maps)) if self.scores is None else self.scores
        self.order_ = np.argsort(by, kind="stable")
        cells = [make_mosaic(maps[i], (GAP, GAP)) for i in self.order_]
        names = [str(i) if self.scores is None else f"{i}: {by[i]:.2g}" for i in self.order_]
        if self.images is not None:
            cells.insert(0, np.full_like(cells[0], np.nan))
            names.insert(0, "images")
        height, width = cells[0].shape
        columns = math.ceil(math.sqrt(len(cells)))
        # The names have the same size for any number of rows, so the gaps grow with it.
        gaps = (2 * GAP + height * -(-len(cells) // columns) // 40, 2 * GAP)
        style = {"cmap": "magma", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
        whole = make_mosaic(np.stack(cells), gaps)
        self.mosaic_, self.pictures_ = ax.imshow(whole, **style | kwargs), None
        if self.images is not None:
            self._draw_images(ax, width, height)
        for place, name in enumerate(names):
            row, column = divmod(place, columns)
            x, y = column * (width + gaps[1]) - 0.5, row * (height + gaps[0]) - 0.5
            ax.annotate(name, (x, y), fontsize=6, va="bottom", annotation_clip=False)
        ax.set_axis_off()
        ax.set_title(self.layer or "", pad=12)

    def _draw_images(self, ax, width, height):
        """Draw the images at the place and in the size of the first mosaic."""
        images = self.images / (255 if self.images.dtype == np.uint8 else 1)
        size = images.shape[1]
        gap = round(GAP * size / self.activations.shape[2])
        layers = [make_mosaic(channel, (gap, gap), 1.0) for channel in np.moveaxis(images, 3, 0)]
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        limits = ax.get_xlim(), ax.get_ylim()
        self.pictures_ = ax.imshow(np.stack(layers, 2).clip(0, 1), extent=extent)
        ax.set(xlim=limits[0], ylim=limits[1])


def _check_shape(name, array, fits, rule):
    """Raise a ValueError unless the shape of an array fits the rule."""
    if not fits:
        raise ValueError(f"`{name}` must have the shape {rule}; got {array.shape}.")


def make_mosaic(tiles, gaps, fill=np.nan):
    """Arrange tiles (n, h, w) row by row in a square, with gaps between rows and columns."""
    n, height, width = tiles.shape
    columns = math.ceil(math.sqrt(n))
    rows = -(-n // columns)
    height, width = height + gaps[0], width + gaps[1]
    mosaic = np.full((rows * height, columns * width), fill)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        y, x = row * height, column * width
        mosaic[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return mosaic[: mosaic.shape[0] - gaps[0], : mosaic.shape[1] - gaps[1]]
