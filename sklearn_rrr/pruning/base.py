"""Base classes of pruners that remove units in steps, the least important first."""

from bisect import bisect_left
from dataclasses import KW_ONLY, dataclass

import numpy as np

from sklearn_rrr._validation import check_int
from sklearn_rrr._warnings import warn
from sklearn_rrr.pruning.loop import CostPruner, PruningLoop


@dataclass(eq=False, repr=False)
class StepwisePruner(PruningLoop):
    """Lowers a cost in `n_steps` steps to `target`; see :class:`BasePruner`."""

    _trains_before = 0  # number of trainings before the first removal

    _: KW_ONLY
    n_steps: int = 5

    def _check_amount(self):
        super()._check_amount()
        check_int("n_steps", self.n_steps, 1)

    def _steps(self, run, start):
        """Lower the cost by equal shares until `target` is reached."""
        shares = np.linspace(0, self.target, self.n_steps + 1)[1:]
        for share in self._show_progress(shares, "step"):
            limit = (1 - share) * start[self._cost_name()]
            if self._cost(run.network, run.image_size) <= limit:  # by an earlier, larger step
                continue
            reached = self._cut(run, limit)
            yield {}
            if not reached:
                gone = 1 - self._cost(run.network, run.image_size) / start[self._cost_name()]
                warn(
                    f"{type(self).__name__} removed all that it may, {gone:.1%} of the "
                    f"{self._cost_name()}; `target` is {self.target:g}."
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

    def _count_trainings(self, run):
        """Return the largest possible number of trainings."""
        return self.n_steps + self._trains_before


@dataclass(eq=False, repr=False)
class BasePruner(CostPruner, StepwisePruner):
    """Base class of the pruners, which make the network of a classifier smaller.

    The cost of the network is reduced in `n_steps` steps until `target` is reached or the score
    drops by more than `tolerance`. The network is retrained after each step.

    A child implements ``_rank`` and ``_without``. It may override ``_begin``, ``_retrain`` and
    ``_export``; a child that removes in another way overrides ``_cut`` or ``_steps`` instead.

    Parameters
    ----------
    estimator : classifier or None, default=None
        An :class:`RRRNetClassifier`, :class:`FineTuningClassifier` or
        :class:`LastLayerClassifier`, or a :class:`BlockSelector` or pruner of one. It is cloned,
        and fitted to the images that are not held out. A fitted one in a
        :class:`sklearn.frozen.FrozenEstimator` is pruned as it is, and left unchanged. None uses
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
        epochs of the estimator's own fit by the number of trainings; if that fit only computes
        heads, the number of epochs that its backbone recommends for training.
    scoring : str, callable or None, default=None
        Scorer of `results_`, `tolerance` and :meth:`score`, as in scikit-learn. None uses
        accuracy. While fitting, a callable gets a Dataset of the images that were read as X; it
        has a shape and can be sliced.
    validation_fraction : float or None, default=0.2
        Fraction of the images held out for scores, in [0.001, 0.999]. None holds out none: all
        images are used for training, and scores are NaN. If `estimator` was fitted on the same
        images before, its hold-out scores are optimistic.
    then : pruner or None, default=None
        Pruner that is applied to the result of this one, on the same split. Its `estimator` must
        be None, its `validation_fraction` and `random_state` are ignored, and its `target` and
        `tolerance` are relative to the result of this pruner.
    checkpoint_dir : str, path or None, default=None
        Folder from which an interrupted fit goes on, as in :class:`RRRNetClassifier`. That of
        `estimator` or `then` is ignored.
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
