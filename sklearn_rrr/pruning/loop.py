"""The loop that all pruners share: score, remove, retrain, roll back."""

import copy
from dataclasses import KW_ONLY, dataclass
from os import PathLike

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from sklearn_rrr._surroundings import shielded
from sklearn_rrr._validation import (
    check_choice,
    check_folder,
    check_int,
    check_real,
    check_seed,
    plain,
)
from sklearn_rrr.classifiers.meta import ImageMetaClassifier, check_scoring_parameter
from sklearn_rrr.classifiers.rrr_net_classifier import BranchClassifier, RRRNetClassifier
from sklearn_rrr.images.forms import find_labels
from sklearn_rrr.images.labels import encode_labels, hold_out
from sklearn_rrr.networks.stacked_net import StackedNet
from sklearn_rrr.pruning.run import COSTS, PruningRun
from sklearn_rrr.training.journal import journaling, settle_seed


@dataclass(eq=False, repr=False)
class PruningLoop(ImageMetaClassifier):
    """Removes, retrains and scores step by step, and undoes a step that costs too much.

    A child implements ``_steps``, ``_count_trainings`` and ``_cost_name``, and may override
    ``_begin``, ``_retrain``, ``_export``, ``_describe_start`` and the checks.
    :class:`~sklearn_rrr.pruning.base.BasePruner` documents the parameters.
    """

    _ends_at_roll_back = True

    estimator: BaseEstimator | None = None
    _: KW_ONLY
    target: float | None = 0.5
    tolerance: float | None = None
    epochs_per_step: int | None = None
    scoring: str | object = None
    validation_fraction: float | None = 0.2
    then: BaseEstimator | None = None
    checkpoint_dir: str | PathLike | None = None
    random_state: int | np.random.RandomState | None = None
    verbose: int = 0

    def _cost_name(self):
        """Return which cost `target` refers to, a name of COSTS."""
        raise NotImplementedError(f"{type(self).__name__} must implement `_cost_name`.")

    def _check_amount(self):
        """Check the parameters that say how much is removed."""
        check_real("target", self.target, 0, 0.999, "A share of the cost, to be removed.")

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
        raise NotImplementedError(f"{type(self).__name__} must implement `_steps`.")

    def _count_trainings(self, run):
        """Return the largest possible number of trainings."""
        raise NotImplementedError(f"{type(self).__name__} must implement `_count_trainings`.")

    def _check_parameters(self):
        self._check_amount()
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
        check_folder("checkpoint_dir", self.checkpoint_dir)
        check_seed("random_state", self.random_state)
        if not isinstance(plain(self.verbose), bool):
            check_int("verbose", self.verbose, 0)

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

    @shielded()
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

        def read(classifier):
            if hasattr(classifier, "module_"):  # frozen, here or in a pruner inside
                return self._read_as_fitted(classifier, X, y, sample_weight)
            return self._read_images(clone(classifier), X, y, sample_weight)

        return self._prune_all(read)

    def _fit_set(self, images):
        return self._prune_all(lambda classifier: images)

    def _check_start(self):
        """Check all parameters, forget an earlier fit, and return the estimator to start from."""
        estimator = self._make_estimator()
        if isinstance(self.estimator, FrozenEstimator):
            check_is_fitted(self.estimator)
            if isinstance(_find_classifier(estimator).module_, StackedNet):
                raise ValueError(
                    "`estimator` was fitted with a companion, a second network; a pruner needs a "
                    'single one. Fit it with fine_tuning=FineTuning(companion="none").'
                )
        for pruner in self._chain():
            # All pruners use the split of the first.
            checked = copy.copy(pruner).set_params(validation_fraction=self.validation_fraction)
            checked._check_parameters()
            pruner._check_removable(estimator)
        self._forget()
        return estimator

    def _draw_seed(self, estimator):
        seeded_by = self if self.random_state is not None else estimator
        rng = check_random_state(getattr(seeded_by, "random_state", None))
        return int(rng.randint(np.iinfo(np.int32).max))

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
        reader, known = classifier._make_reader(), classifier.classes_
        return reader._read_set(X, y, sample_weight, None, known, weigh_classes=False)

    def _prune_all(self, read):
        """Prune with this pruner and its successors, on a LabelledSet.

        `read` is a function that returns it, given the classifier to start from.
        """
        estimator = self._check_start()
        with journaling(self) as begin:
            seed = self._draw_seed(estimator)
            images = read(_find_classifier(estimator))
            begin(images)
            return self._prune_journaled(estimator, images, settle_seed(seed))

    def _prune_journaled(self, estimator, images, seed):
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
        """Return the classifier to prune: a copy of the frozen one, or a fitted estimator's."""
        if isinstance(self.estimator, FrozenEstimator):
            copied = _copy_fitted(_find_classifier(estimator))
            copied.__dict__.update(images.reading.attributes)
            return copied
        if "random_state" in estimator.get_params() and estimator.random_state is None:
            estimator.set_params(random_state=seed)
        return _find_classifier(estimator._fit_set(images))

    def _chain(self):
        """Yield this pruner and its successors."""
        pruner = self
        while pruner is not None:
            if not isinstance(pruner, PruningLoop):
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
        return COSTS[self._cost_name()](self._export(network), image_size)

    def _describe_start(self, run):
        """Return further columns of the start's row."""
        return {}

    def _record(self, run, **columns):
        return run.record(type(self).__name__, self._export(run.network), **columns)

    def _resolve_epochs(self, run):
        """Return the epochs of each training; by default, all trainings last as long as a fit."""
        if self.epochs_per_step is not None:
            return self.epochs_per_step
        fit = run.classifier._count_training_epochs(len(run.images))
        return max(1, fit // self._count_trainings(run))

    def _show_progress(self, items, unit):
        return tqdm(items, desc=type(self).__name__, unit=unit, disable=not self.verbose)


@dataclass(eq=False, repr=False)
class CostPruner(PruningLoop):
    """A PruningLoop whose cost is a parameter."""

    _: KW_ONLY
    cost: str = "parameters"

    def _cost_name(self):
        return self.cost

    def _check_parameters(self):
        super()._check_parameters()
        check_choice("cost", self.cost, ("parameters", "macs"))


def _find_classifier(estimator):
    """Return the classifier inside nested meta-estimators, unfitted where they are."""
    while isinstance(estimator, ImageMetaClassifier):
        fitted = hasattr(estimator, "estimator_")
        estimator = estimator.estimator_ if fitted else estimator._make_estimator()
    return estimator


def _copy_fitted(classifier):
    """Return a copy of a fitted classifier that shares no object which may change."""
    copied = copy.copy(classifier)  # its __getstate__ copies the network
    given = classifier.get_params(deep=False).items()
    return copied.set_params(**{k: clone(v) for k, v in given if isinstance(v, BaseEstimator)})
