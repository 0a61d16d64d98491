"""Training in steps of one epoch, on images that come in parts: ``partial_fit``."""

from dataclasses import replace

import numpy as np
from sklearn.utils.metaestimators import available_if

from sklearn_rrr._surroundings import drawing, shielded
from sklearn_rrr.images.labels import check_classes
from sklearn_rrr.networks.stacked_net import StackedNet
from sklearn_rrr.training.loop import handing_over, make_net


def _trains_on(estimator):
    """Tell whether partial_fit is available; it reports invalid parameters itself."""
    try:
        strategy = estimator._strategy()
    except (TypeError, ValueError):
        return True
    if strategy.cyclic:
        raise AttributeError(
            f"`ensemble`={estimator.ensemble!r} trains in cycles and does not support "
            'partial_fit; use "naive" or "bagging".'
        )
    return True


class IncrementalMixin:
    """Add ``partial_fit`` to a ``BaseImageClassifier``."""

    @available_if(_trains_on)
    @shielded()
    def partial_fit(self, X, y=None, classes=None, sample_weight=None):
        """Train for one more epoch, on the given images.

        The learning rate is constant, whatever `lr_schedule` is, and weights are not averaged.
        After :meth:`fit`, training continues from its final weights with a new optimiser. Later
        calls keep the optimiser, unless a training parameter was set or the estimator was
        pickled in between. The first call, if there was no fit, builds the network, determines
        the scale of the pixels and adapts the norms of frozen parts to its images. Later
        changes of the network's parameters need a new :meth:`fit`.

        Parameters
        ----------
        X : images
            As in :meth:`fit`.
        y : array-like of shape (n,)
            Labels, each in `classes`.
        classes : array-like of shape (n_classes,), default=None
            All labels that may occur in any call; required at the first call only.
        sample_weight : array-like of shape (n,), default=None
            As in :meth:`fit`; only their ratios within one call matter.

        Returns
        -------
        self : object
            The fitted estimator.
        """
        self._check_parameters()
        first = not hasattr(self, "module_")
        if not first and isinstance(self.module_, StackedNet):
            raise ValueError(
                "partial_fit cannot train a network with a companion. Fit with "
                'fine_tuning=FineTuning(companion="none").'
            )
        if first and classes is None:
            raise ValueError("`classes` must be passed at the first call to partial_fit.")
        if not first:
            if classes is not None and not np.array_equal(check_classes(classes), self.classes_):
                raise ValueError(
                    f"`classes`={classes!r} differs from the classes of the earlier calls, "
                    f"{self.classes_.tolist()}. Pass it at the first call only."
                )
            classes = self.classes_
        if self.class_weight == "balanced":
            raise ValueError(
                "`class_weight`='balanced' is not supported by partial_fit, which sees the class "
                "counts of one call only; use a dict, or pass `sample_weight`."
            )
        seed = self._draw_seed()
        with drawing(seed):
            backbone = self._load_backbone() if first else None
        size = self._default_size(backbone) if first else None
        images = self._read_set(X, y, sample_weight, size, classes)
        if first:
            self._split_seed = seed
            settings = self._settings(len(images), seed)
            with drawing(seed + 1):
                self._net = make_net(self._make_module(backbone), settings)
        else:
            settings = self._renew_net(len(images))
        draw = [settings.seed, len(self._net.history)]
        images = self._weigh(images, self._net.module_, draw)
        self._folded = {}  # outdated even if training is interrupted
        with self._keeping_interrupted(self._net.module_, settings):
            if first:
                self._net.warm_up(images)
            with handing_over(self._net):
                self._net.run(images, epochs=1)
            self._finish(self._net.module_, settings)
        return self

    def _renew_net(self, n_images):
        """Create a new net if a training parameter has changed; return the settings."""
        used = self._settings_used
        settings = replace(
            self._settings(n_images, used.seed),
            max_epochs=used.max_epochs,
            ema_epochs=used.ema_epochs,
            norm_warmup_epochs=used.norm_warmup_epochs,
        )
        if not hasattr(self, "_net") or settings != self._net.settings:
            self._net = self._wrap_module(settings)
        return settings
