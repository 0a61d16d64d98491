"""What every pruner shares: score, remove, retrain, and what came of it.

A pruner wraps a classifier of this package, unfitted or frozen, and ends with one whose network is
smaller, ``estimator_``. It is lowered step by step to `target`, or as long as its score allows.
"""

import copy
import warnings
from bisect import bisect_left

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from sklearn_rrr._validation import check_choice, check_int, check_real
from sklearn_rrr.classifiers.meta import (
    ImageData,
    ImageMetaClassifier,
    check_scoring_parameter,
)
from sklearn_rrr.classifiers.rrr_net_classifier import BranchClassifier, RRRNetClassifier
from sklearn_rrr.images.labels import hold_out
from sklearn_rrr.pruning.run import MEASURES, PruningRun


class BasePruner(ImageMetaClassifier):
    """Make the network of a classifier smaller; a child says what is removed.

    A child implements ``_rank(run)``, which returns what can be removed, least important first,
    and ``_without(network, units)``, a copy of the network without some of that. It may extend
    ``_begin(run, epochs)`` and ``_retrain(run, epochs)``, and implement ``_export(network)``,
    which returns the network as it is left, and ``_cost(network, image_size)``.
    """

    _measures = ("parameters", "macs")
    _trains_before = 0  # trainings before the first removal

    def __init__(
        self,
        estimator=None,
        *,
        target=0.5,
        measure="parameters",
        max_drop=None,
        n_steps=5,
        prune_every=None,
        scoring=None,
        validation_fraction=0.2,
        then=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.target = target
        self.measure = measure
        self.max_drop = max_drop
        self.n_steps = n_steps
        self.prune_every = prune_every
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.then = then
        self.random_state = random_state
        self.verbose = verbose

    def _check_amount(self):
        """Check what says how much is removed."""
        check_real("target", self.target, 0, 0.999, "A share of what is there, to be removed.")
        check_int("n_steps", self.n_steps, 1)

    def _check_parameters(self):
        self._check_amount()
        check_choice("measure", self.measure, self._measures)
        if self.prune_every is not None:
            check_int("prune_every", self.prune_every, 0)
        check_scoring_parameter(self.scoring)
        if self.validation_fraction is not None:
            check_real("validation_fraction", self.validation_fraction, 0.001, 0.999)
        if self.max_drop is not None:
            check_real("max_drop", self.max_drop, 0)
            if self.validation_fraction is None:
                raise ValueError(
                    f"`max_drop`={self.max_drop!r} needs images to score on; got "
                    "`validation_fraction`=None. Use for example 0.2."
                )
        if not isinstance(self.verbose, bool):
            check_int("verbose", self.verbose, 0)

    # ------------------------------------------------------------------------- fitting

    def _make_estimator(self):
        """Return the classifier to start from: a frozen one as it is, else an unfitted copy."""
        estimator = RRRNetClassifier() if self.estimator is None else self.estimator
        while isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        if not isinstance(estimator, (BranchClassifier, ImageMetaClassifier)):
            raise TypeError(
                "`estimator` must be an RRRNetClassifier, FineTuningClassifier or "
                "LastLayerClassifier, or a BlockSelector or pruner of such; got "
                f"{self.estimator!r}. In a pipeline, the pruner is the last step."
            )
        return estimator if isinstance(self.estimator, FrozenEstimator) else clone(estimator)

    def fit(self, X, y=None, sample_weight=None):
        """Fit the classifier, unless it is in a FrozenEstimator, and make its network smaller.

        Parameters
        ----------
        X : images
            As in :meth:`RRRNetClassifier.fit`.
        y : array-like of shape (n,)
            Labels. None only for a Dataset whose items are (image, label).
        sample_weight : array-like of shape (n,), default=None
            Weights of the images in the loss; scores are not weighted.

        Returns
        -------
        self : object
            The fitted pruner.

        Raises
        ------
        ValueError, TypeError
            For what is wrong with parameters, images or labels, and where nothing can be
            removed.
        """
        return self._fit(X, y, sample_weight)

    def _fit(self, X, y, sample_weight, classes=None):
        estimator = self._make_estimator()
        if isinstance(self.estimator, FrozenEstimator):
            check_is_fitted(self.estimator)
        for pruner in self._chain():
            # The split is that of the first one.
            checked = copy.copy(pruner).set_params(validation_fraction=self.validation_fraction)
            checked._check_parameters()
            pruner._check_start(estimator)
        X, y = self._check_input(X, y)
        seeded_by = self if self.random_state is not None else estimator
        rng = check_random_state(getattr(seeded_by, "random_state", None))
        seed = int(rng.randint(np.iinfo(np.int32).max))
        estimator, data, split = self._prepare(estimator, X, y, sample_weight, classes, seed)
        tables, run = [], None
        for pruner in self._chain():
            run = PruningRun(pruner, estimator, data, *split, seed, before=run)
            pruner._prune(run)
            tables.append(pd.DataFrame(run.rows))
        self.results_ = pd.concat(tables, ignore_index=True)
        self.estimator_, self.skipped_ = estimator, data.skipped
        self.classes_ = estimator.classes_
        estimator.trainable_ = "all"  # from now on, after a file, too
        return self

    def _chain(self):
        """Yield this pruner, and those that follow it."""
        pruner = self
        while pruner is not None:
            if not isinstance(pruner, BasePruner):
                raise TypeError(f"`then` must be another pruner or None; got {pruner!r}.")
            if pruner is not self and pruner.estimator is not None:
                raise ValueError(
                    f"The pruner in `then` goes on with what is left; got its own `estimator`, "
                    f"{pruner.estimator!r}. Leave that out."
                )
            yield pruner
            pruner = pruner.then

    def _check_start(self, estimator):
        """Raise where nothing of the estimator, fitted or not, can be removed."""

    def _prepare(self, estimator, X, y, sample_weight, classes, seed):
        """Return a fitted classifier of our own, the data, and their split."""
        inner = estimator
        while isinstance(inner, ImageMetaClassifier):
            inner = inner.estimator_ if hasattr(inner, "estimator_") else inner._make_estimator()
        fitted = hasattr(estimator, "module_") or hasattr(estimator, "estimator_")
        data = ImageData(clone(inner), X, y, sample_weight, classes)
        if fitted and len(unknown := np.setdiff1d(data.classes, estimator.classes_)):
            raise ValueError(
                f"y holds the labels {unknown.tolist()}, but `estimator` was fitted on "
                f"{estimator.classes_.tolist()}. Leave them out, or pass `estimator` without "
                "FrozenEstimator, so that it is fitted anew."
            )
        everything = np.arange(len(data.y))
        split = everything, everything[:0]
        if self.validation_fraction is not None:
            split = hold_out(data.labels, self.validation_fraction, seed)
        if not fitted:
            if "random_state" in estimator.get_params() and estimator.random_state is None:
                estimator.set_params(random_state=seed)
            estimator._fit(*data.part(split[0]), classes=data.classes)
        if isinstance(estimator, ImageMetaClassifier):
            estimator = estimator.estimator_
        return _copy_fitted(estimator), data, split

    # ------------------------------------------------------------------------- pruning

    def _begin(self, run, epochs):
        """Do what precedes the first removal: everything learns from now on."""
        run.put(copy.deepcopy(run.network).freeze("all"))

    def _retrain(self, run, epochs):
        run.train(epochs)

    def _export(self, network):
        return network

    def _cost(self, network, image_size):
        return MEASURES[self.measure](self._export(network), image_size)

    def _prune(self, run):
        """Lower the cost step by step, with a training after each."""
        epochs = self._epochs(run)
        start, start_cost = run.record(), run.cost()
        last = copy.deepcopy(run.network)
        self._begin(run, epochs)
        shares = np.linspace(0, self.target, self.n_steps + 1)[1:]
        for share in tqdm(shares, desc=type(self).__name__, unit="step", disable=not self.verbose):
            limit = (1 - share) * start_cost
            if run.cost() <= limit:  # what went before was more than asked for
                continue
            more = self._cut(run, limit)
            self._retrain(run, epochs)
            row = run.record()
            if self.max_drop is not None and start["score"] - row["score"] > self.max_drop:
                row["kept"] = False
                run.put(last)
                break
            last = copy.deepcopy(run.network)
            if not more:
                warnings.warn(
                    f"{type(self).__name__} removed all that it may, "
                    f"{1 - run.cost() / start_cost:.1%} of the {self.measure}; `target` is "
                    f"{self.target:g}.",
                    stacklevel=3,
                )
                break
        run.put(self._export(run.network))

    def _epochs(self, run):
        """Return the epochs of a step: all steps together take as many as the first fit."""
        if self.prune_every is not None:
            return self.prune_every
        trainings = self.n_steps + self._trains_before
        return max(1, run.classifier._resolve_epochs(len(run.images)) // trainings)

    def _cut(self, run, limit):
        """Remove as little as brings the cost to `limit`; tell whether that was possible."""
        units, network = self._rank(run), run.network
        size = run.classifier.image_size_

        def fits(number):
            return self._cost(self._without(network, units[:number]), size) <= limit

        number = bisect_left(range(len(units) + 1), True, key=fits)
        run.put(self._without(network, units[: min(number, len(units))]))
        return number <= len(units)


def _copy_fitted(estimator):
    """Return a fitted classifier that shares no network with another one."""
    copied = type(estimator).__new__(type(estimator))
    copied.__setstate__(estimator.__getstate__())
    return copied
