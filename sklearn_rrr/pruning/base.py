"""The loop that all pruners share: score, remove, retrain, roll back.

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
    ImageMetaClassifier,
    check_scoring_parameter,
)
from sklearn_rrr.classifiers.rrr_net_classifier import BranchClassifier, RRRNetClassifier
from sklearn_rrr.images.forms import find_labels
from sklearn_rrr.images.labels import encode_labels, hold_out
from sklearn_rrr.pruning.run import COSTS, PruningRun


class BasePruner(ImageMetaClassifier):
    """Base class of the pruners, which make the network of a classifier smaller.

    The cost of the network is reduced in `n_steps` steps until `target` is reached or the score
    drops by more than `tolerance`. The network is retrained after each step.

    A child implements ``_rank`` and ``_without``. It may override ``_begin``, ``_retrain`` and
    ``_export``; a child that removes in another way overrides ``_cut`` or ``_steps`` instead.

    Parameters
    ----------
    estimator : classifier or None, default=None
        An :class:`RRRNetClassifier`, :class:`FineTuningClassifier` or
        :class:`LastLayerClassifier`, or a :class:`BlockSelector` or pruner of one. A fitted
        estimator is copied, not changed. An unfitted one is cloned and fitted to the images that
        are not held out. Searches such as GridSearchCV clone `estimator` and so fit it anew in
        each fold; wrap it in :class:`sklearn.frozen.FrozenEstimator` to prevent that. None uses
        ``RRRNetClassifier()``.
    target : float, default=0.5
        Share of the cost to remove, in [0, 0.999].
    cost : {"parameters", "macs"}, default="parameters"
        Cost that `target` refers to: the number of parameters, or of multiply-adds for one image.
    tolerance : float or None, default=None
        Largest accepted drop of the score, at least 0, relative to the score before the first
        removal. The first step that exceeds it is undone and ends the pruning. None accepts
        every drop.
    n_steps : int, default=5
        Number of steps to `target`, at least 1. Each removes the same share of the cost.
    epochs_per_step : int or None, default=None
        Number of epochs of training after each step, at least 0. None divides the number of
        epochs of the estimator's own fit by the number of trainings.
    scoring : str, callable or None, default=None
        Scorer of `results_`, `tolerance` and :meth:`score`, as in scikit-learn. None uses
        accuracy.
    validation_fraction : float or None, default=0.2
        Fraction of the images held out for scores, in [0.001, 0.999]. None holds out none: all
        images are used for training, and scores are NaN. If `estimator` was fitted on the same
        images before, its hold-out scores are optimistic.
    then : pruner or None, default=None
        Pruner that is applied to the result of this one, on the same split. Its `estimator` must
        be None, its `validation_fraction` and `random_state` are ignored, and its `target` and
        `tolerance` are relative to the result of this pruner.
    random_state : int, RandomState instance or None, default=None
        Seed of the split and of the training. None uses the `random_state` of `estimator`.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    estimator_ : classifier
        Fitted classifier with the pruned network, which is used, saved and exported as any other.
        Its ``partial_fit`` trains the whole pruned network; its ``fit``, and that of a clone,
        starts from the unpruned backbone. Its `history_` describes the last training.
    results_ : pandas.DataFrame
        One row for the start and one for each step: ``pruner``, the class name; ``parameters``,
        ``macs`` and ``nonzero``, the number of nonzero parameters, of the network as exported;
        ``score``; ``epochs`` and ``seconds`` since the start; ``kept``, False for a step that was
        undone.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        Images that could not be read; see :class:`RRRNetClassifier`.
    n_features_in_ : int
        Length of a row; only if X had rows.
    feature_names_in_ : ndarray of str
        Names of the columns; only if X was a frame of rows whose columns have names of type str.

    Examples
    --------
    >>> import copy
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import RRRNetClassifier
    >>> from sklearn_rrr.pruning.base import BasePruner
    >>> from sklearn_rrr.pruning.removal import drop_blocks, removable_blocks
    >>> class LastBlockPruner(BasePruner):
    ...     def _rank(self, run):
    ...         return removable_blocks(run.network)[::-1]
    ...
    ...     def _without(self, network, units):
    ...         network = copy.deepcopy(network)
    ...         drop_blocks(network, units)
    ...         return network
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(
    ...     blocks=(1, 1, 2, 2), n_branches=1, max_epochs=2, image_size=32, random_state=0
    ... )
    >>> pruner = LastBlockPruner(clf, target=0.01, n_steps=1).fit(X[:64] / 16, y[:64])
    >>> pruner.estimator_.blocks_
    (1, 1, 2, 1)
    """

    _costs = ("parameters", "macs")  # values of `cost`
    _trains_before = 0  # number of trainings before the first removal
    _ends_at_roll_back = True

    def __init__(
        self,
        estimator=None,
        *,
        target=0.5,
        cost="parameters",
        tolerance=None,
        n_steps=5,
        epochs_per_step=None,
        scoring=None,
        validation_fraction=0.2,
        then=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.target = target
        self.cost = cost
        self.tolerance = tolerance
        self.n_steps = n_steps
        self.epochs_per_step = epochs_per_step
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.then = then
        self.random_state = random_state
        self.verbose = verbose

    def _check_amount(self):
        """Check the parameters that say how much is removed."""
        check_real("target", self.target, 0, 0.999, "A share of the cost, to be removed.")
        check_int("n_steps", self.n_steps, 1)

    def _check_parameters(self):
        self._check_amount()
        check_choice("cost", self.cost, self._costs)
        if self.epochs_per_step is not None:
            check_int("epochs_per_step", self.epochs_per_step, 0)
        check_scoring_parameter(self.scoring)
        if self.validation_fraction is not None:
            check_real("validation_fraction", self.validation_fraction, 0.001, 0.999)
        if self.tolerance is not None:
            check_real("tolerance", self.tolerance, 0)
            if self.validation_fraction is None:
                raise ValueError(
                    f"`tolerance`={self.tolerance!r} needs images to score on; got "
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
                "LastLayerClassifier, or a BlockSelector or pruner of one; got "
                f"{self.estimator!r}. In a pipeline, use the pruner as the last step."
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
            If a parameter, an image or a label is invalid, or if nothing can be removed.
        """
        estimator, seed = self._check_start()
        classifier = _find_classifier(estimator)
        if hasattr(classifier, "module_"):
            estimator = copy.copy(classifier)  # its __getstate__ copies the network
            images = self._read_as_fitted(estimator, X, y, sample_weight)
        else:
            images = self._read_images(clone(classifier), X, y, sample_weight)
        return self._prune_all(estimator, images, seed)

    def _fit_set(self, images):
        estimator, seed = self._check_start()
        return self._prune_all(estimator, images, seed)

    def _check_start(self):
        """Check all parameters, forget an earlier fit; return the start, and a seed."""
        estimator = self._make_estimator()
        if isinstance(self.estimator, FrozenEstimator):
            check_is_fitted(self.estimator)
        for pruner in self._chain():
            # All pruners use the split of the first.
            checked = copy.copy(pruner).set_params(validation_fraction=self.validation_fraction)
            checked._check_parameters()
            pruner._check_removable(estimator)
        self._forget()
        seeded_by = self if self.random_state is not None else estimator
        rng = check_random_state(getattr(seeded_by, "random_state", None))
        return estimator, int(rng.randint(np.iinfo(np.int32).max))

    def _read_as_fitted(self, classifier, X, y, sample_weight):
        """Read images as a fitted classifier reads them; return a LabelledSet."""
        y = find_labels(X, y, type(self).__name__)
        classes, _ = encode_labels(y)
        if len(unknown := np.setdiff1d(classes, classifier.classes_)):
            raise ValueError(
                f"y holds the labels {unknown.tolist()}, but `estimator` was fitted on "
                f"{classifier.classes_.tolist()}. Leave them out, or pass `estimator` without "
                "FrozenEstimator, so that it is fitted anew."
            )
        known = classifier.classes_
        return classifier._read_set(X, y, sample_weight, None, known, weigh_classes=False)

    def _prune_all(self, estimator, images, seed):
        """Prune with this pruner and its successors, on a LabelledSet."""
        self._adopt(images)
        everything = np.arange(len(images))
        split = everything, everything[:0]
        if self.validation_fraction is not None:
            split = hold_out(images.labels.numpy(), self.validation_fraction, seed)
        classifier = self._fit_start(estimator, images.subset(split[0]), seed)
        tables, run = [], None
        for pruner in self._chain():
            how = {"seed": seed, "scoring": pruner.scoring, "before": run}
            run = PruningRun(classifier, images, *split, **how)
            pruner._prune(run)
            tables.append(pd.DataFrame(run.rows))
        self.results_ = pd.concat(tables, ignore_index=True)
        self.estimator_, self.classes_ = classifier, classifier.classes_
        # `partial_fit` then trains the whole network, also after save and load.
        classifier._replace_network(classifier.module_, trainable="all")
        return self

    def _fit_start(self, estimator, images, seed):
        """Return the classifier to prune, after fitting it if it is not fitted."""
        if not hasattr(_find_classifier(estimator), "module_"):
            if "random_state" in estimator.get_params() and estimator.random_state is None:
                estimator.set_params(random_state=seed)
            estimator._fit_set(images)
        found = _find_classifier(estimator)
        return found if found is estimator else copy.copy(found)

    def _chain(self):
        """Yield this pruner and its successors."""
        pruner = self
        while pruner is not None:
            if not isinstance(pruner, BasePruner):
                raise TypeError(f"`then` must be another pruner or None; got {pruner!r}.")
            if pruner is not self and pruner.estimator is not None:
                raise ValueError(
                    "The pruner in `then` continues with the result of the first one, but got its "
                    f"own `estimator`, {pruner.estimator!r}. Leave it out."
                )
            yield pruner
            pruner = pruner.then

    def _check_removable(self, estimator):
        """Raise a ValueError if nothing can be removed from the estimator, fitted or not."""

    # ------------------------------------------------------------------------- pruning

    def _prune(self, run):
        """Remove, retrain and score in steps; undo steps that exceed `tolerance`."""
        epochs = self._resolve_epochs(run)
        run.put(copy.deepcopy(run.network).freeze("all"))  # freezes nothing: all parts train
        start, last = self._record(run, **self._describe_start(run)), run.network
        self._begin(run, epochs)
        for columns in self._steps(run, start):
            self._retrain(run, epochs)
            row = self._record(run, **columns)
            if self.tolerance is None or start["score"] - row["score"] <= self.tolerance:
                last = run.network
                continue
            row["kept"] = False
            run.put(last)
            if self._ends_at_roll_back:
                break
        run.put(self._export(run.network))

    def _steps(self, run, start):
        """Replace the network by a smaller one, and yield; once for each step.

        Parameters
        ----------
        run : PruningRun
            Its network was retrained, and perhaps rolled back, since the last step.
        start : dict
            Row of the start.

        Yields
        ------
        columns : dict
            Further columns of the step's row.
        """
        shares = np.linspace(0, self.target, self.n_steps + 1)[1:]
        for share in self._show_progress(shares, "step"):
            limit = (1 - share) * start[self.cost]
            if self._cost(run.network, run.image_size) <= limit:  # by an earlier, larger step
                continue
            reached = self._cut(run, limit)
            yield {}
            if not reached:
                gone = 1 - self._cost(run.network, run.image_size) / start[self.cost]
                warnings.warn(
                    f"{type(self).__name__} removed all that it may, {gone:.1%} of the "
                    f"{self.cost}; `target` is {self.target:g}.",
                    stacklevel=5,
                )
                return

    def _cut(self, run, limit):
        """Remove as little as brings the cost to `limit`; tell whether that was possible."""
        units, network = self._rank(run), run.network

        def fits(number):
            return self._cost(self._without(network, units[:number]), run.image_size) <= limit

        number = bisect_left(range(len(units) + 1), True, key=fits)
        run.put(self._without(network, units[: min(number, len(units))]))
        return number <= len(units)

    def _rank(self, run):
        """Return a list of what can be removed from ``run.network``, least important first.

        Its items are passed to :meth:`_without`, and may be of any type.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `_rank` or `_cut`.")

    def _without(self, network, units):
        """Return a copy of a network without `units`, some items of :meth:`_rank`'s list."""
        raise NotImplementedError(f"{type(self).__name__} must implement `_without` or `_cut`.")

    def _begin(self, run, epochs):
        """Prepare ``run.network`` for the first removal; by default, nothing is done.

        The start is scored before, and restored if the first step is undone.
        """

    def _retrain(self, run, epochs):
        """Train ``run.network`` after a removal."""
        run.train(epochs)

    def _export(self, network):
        """Return a network in the form that remains after pruning, without changing it."""
        return network

    def _cost(self, network, image_size):
        """Return the cost of a network as exported."""
        return COSTS[self.cost](self._export(network), image_size)

    def _describe_start(self, run):
        """Return further columns of the start's row."""
        return {}

    def _record(self, run, **columns):
        return run.record(type(self).__name__, self._export(run.network), **columns)

    def _count_trainings(self, run):
        """Return the largest possible number of trainings."""
        return self.n_steps + self._trains_before

    def _resolve_epochs(self, run):
        """Return the epochs of each training; by default, all trainings last as long as a fit."""
        if self.epochs_per_step is not None:
            return self.epochs_per_step
        fit = run.classifier._resolve_epochs(len(run.images))
        return max(1, fit // self._count_trainings(run))

    def _show_progress(self, items, unit):
        return tqdm(items, desc=type(self).__name__, unit=unit, disable=not self.verbose)


def _find_classifier(estimator):
    """Return the classifier inside nested meta-estimators, unfitted where they are."""
    while isinstance(estimator, ImageMetaClassifier):
        fitted = hasattr(estimator, "estimator_")
        estimator = estimator.estimator_ if fitted else estimator._make_estimator()
    return estimator
