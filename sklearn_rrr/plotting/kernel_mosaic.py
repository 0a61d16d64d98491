"""What the kernels of a layer respond to."""

import math

import numpy as np

from sklearn_rrr._validation import check_choice
from sklearn_rrr.plotting.display import Display, get_fitted, import_pyplot
from sklearn_rrr.pruning.activation_maps import activation_maps
from sklearn_rrr.pruning.channel_groups import find_groups

GAP = 1  # pixels between maps; twice as many between kernels side by side


class KernelMosaicDisplay(Display):
    """Draw what the kernels of a layer respond to, for a person who judges them.

    Each kernel has a mosaic, a map of its activations for each image, all from zero to the
    kernel's largest; above it stand the kernel's number and its score. The first mosaic shows the
    images themselves, in the same order.

    Parameters
    ----------
    activations : ndarray of shape (C, n_images, h, w)
        Of C kernels, at least 0.
    scores : array-like of shape (C,) or None, default=None
        Relevance; kernels are drawn in its order, the least relevant first. None draws them
        by number.
    images : ndarray of shape (n_images, S, S, 3) or None, default=None
        RGB in [0, 1] or uint8.
    layer : str or None, default=None
        A title.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn, by ``Axes.imshow``.
    order_ : ndarray of shape (C,)
        Numbers of the kernels as they are drawn, row by row.
    mosaic_ : matplotlib AxesImage
        The maps, each kernel's divided by its largest activation.
    pictures_ : matplotlib AxesImage or None
        The mosaic of the images.

    See Also
    --------
    ProgressiveKernelPruner : Its `selector` is given these activations.

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
        """Draw what the kernels of a fitted classifier's layer respond to.

        Parameters
        ----------
        estimator : image classifier, or meta-estimator of such
            Fitted: an :class:`RRRNetClassifier`, a selector, a pruner.
        X : images
            As in :meth:`RRRNetClassifier.fit`; a few.
        layer : str
            Name of a convolution, as in ``results_`` of a :class:`ProgressiveKernelPruner`.
        scores : array-like of shape (C,) or None, default=None
            Relevance of the layer's channels.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : KernelMosaicDisplay
            Drawn.
        """
        import_pyplot()
        kind = "a classifier of this package, or a pruner or selector of one,"
        while hasattr(estimator, "estimator_"):
            estimator = estimator.estimator_
        network = get_fitted("estimator", estimator, "module_", kind)
        groups = {group.name: group for group in find_groups(network)}
        check_choice("layer", layer, tuple(groups))
        source = estimator._read(X, reset=False)
        images = source.load(np.arange(len(source)), estimator.image_size_)
        maps = activation_maps(network, groups[layer], images)
        pictures = images.movedim(1, 3).numpy()
        return cls.from_activations(
            maps, scores=scores, images=pictures, layer=layer, ax=ax, **kwargs
        )

    @classmethod
    def from_activations(
        cls, activations, *, scores=None, images=None, layer=None, ax=None, **kwargs
    ):
        """Draw activations that are given, as to a `selector`.

        Parameters
        ----------
        activations : array-like of shape (C, n_images, h, w)
            Of C kernels, at least 0.
        scores : array-like of shape (C,) or None, default=None
            Relevance of the kernels.
        images : array-like of shape (n_images, S, S, 3) or None, default=None
            RGB in [0, 1] or uint8.
        layer : str or None, default=None
            A title.
        ax, **kwargs : optional
            See :meth:`plot`.

        Returns
        -------
        display : KernelMosaicDisplay
            Drawn.
        """
        activations = np.asarray(activations, dtype=float)
        if activations.ndim != 4 or not activations.size:
            raise ValueError(
                "`activations` must have the shape (C, n_images, h, w); got "
                f"{activations.shape}. Pass what a `selector` is given."
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
        # Room for the names, which are as large however many rows there are.
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
        """Draw the images where the first mosaic is, as large as it."""
        images = self.images / (255 if self.images.dtype == np.uint8 else 1)
        size = images.shape[1]
        gap = round(GAP * size / self.activations.shape[2])
        layers = [make_mosaic(channel, (gap, gap), 1.0) for channel in np.moveaxis(images, 3, 0)]
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        limits = ax.get_xlim(), ax.get_ylim()
        self.pictures_ = ax.imshow(np.stack(layers, 2).clip(0, 1), extent=extent)
        ax.set(xlim=limits[0], ylim=limits[1])


def _check_shape(name, array, fits, rule):
    if not fits:
        raise ValueError(f"`{name}` must have the shape {rule}; got {array.shape}.")


def make_mosaic(tiles, gaps, fill=np.nan):
    """Lay tiles (n, h, w) row by row in a square, with gaps between rows and columns."""
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
