"""Strategies to train the branches of a network: naive, bagging, snapshot, fast geometric.

RRR-Net (arXiv:2310.01157), section 3.3, compares these four. Each results in a network of the
same form, with M branches that vote. Bagging: Breiman (1996). Snapshot: Huang et al. (2017),
arXiv:1704.00109. Fast geometric: Garipov et al. (2018), arXiv:1802.10026.
"""

import math
from dataclasses import replace

import numpy as np
from sklearn.base import BaseEstimator

from sklearn_rrr._validation import check_int, check_real
from sklearn_rrr.networks.branch_layers import put_branch, take_branch
from sklearn_rrr.training.loop import count_steps, make_net, make_schedule, train


class EnsembleStrategy(BaseEstimator):
    """Base class of strategies to train the branches; trains every branch on all images.

    A subclass overrides ``weigh`` or ``train``. It stores its parameters in ``__init__``, like
    scikit-learn's estimators, so that a search reaches them as ``ensemble__<name>``.

    Examples
    --------
    >>> from sklearn_rrr import EnsembleStrategy, RRRNetClassifier
    >>> class Halves(EnsembleStrategy):
    ...     def weigh(self, n_images, n_branches, rng):
    ...         return rng.integers(2, size=(n_images, n_branches))
    >>> clf = RRRNetClassifier(ensemble=Halves())
    """

    # Whether one branch is trained in cycles and copied to the others. If so, early stopping and
    # partial_fit are not available.
    cyclic = False

    def weigh(self, n_images, n_branches, rng):
        """Return factors on the weights of the images in the loss of each branch.

        Parameters
        ----------
        n_images, n_branches : int
            n and M.
        rng : numpy.random.Generator
            Generator, seeded by the estimator's `random_state`.

        Returns
        -------
        factors : array-like of shape (n, M) or None
            Numbers of at least 0, with a positive one for each branch. None: 1 everywhere.
        """
        return None

    def train(self, module, images, validation, settings):
        """Train the network.

        Parameters
        ----------
        module : RRRNet
            Network, trained in place.
        images, validation : LabelledSet
            Training and validation images; the latter may be None.
        settings : Settings
            Resolved training settings.

        Returns
        -------
        net : BranchNet
            skorch net, as returned by :func:`sklearn_rrr.training.loop.train`.
        """
        return train(module, images, validation, settings)

    def check(self):
        """Raise an error if a parameter is out of range."""


class NaiveEnsemble(EnsembleStrategy):
    """Train every branch on all images; branches differ in their kernels and heads.

    Examples
    --------
    >>> from sklearn_rrr import NaiveEnsemble, RRRNetClassifier
    >>> clf = RRRNetClassifier(ensemble=NaiveEnsemble())  # same as ensemble="naive"
    """


class BaggingEnsemble(EnsembleStrategy):
    """Train every branch on its own bootstrap sample, drawn once per fit.

    An image that is drawn twice counts twice in the loss of the branch. Trainable norms use all
    images of a batch. ``partial_fit`` draws a sample of the images of each call.

    Parameters
    ----------
    max_samples : float, default=1.0
        Size of a sample as a fraction of the number of images, in (0, 1].

    References
    ----------
    Breiman (1996), Bagging predictors, Machine Learning 24.

    Examples
    --------
    >>> from sklearn_rrr import BaggingEnsemble, RRRNetClassifier
    >>> clf = RRRNetClassifier(ensemble=BaggingEnsemble(max_samples=0.8))
    """

    def __init__(self, max_samples=1.0):
        self.max_samples = max_samples

    def check(self):
        check_real("max_samples", self.max_samples, 0, 1, open_low=True)

    def weigh(self, n_images, n_branches, rng):
        """Return how often each image was drawn for each branch: (n, M)."""
        size = max(1, round(self.max_samples * n_images))
        return rng.multinomial(size, np.full(n_images, 1 / n_images), n_branches).T


class _CyclicEnsemble(EnsembleStrategy):
    """Train one branch with a cyclic learning rate; store its weights of each cycle as a branch.

    All branches share one stump, which is therefore frozen once the first branch is stored.
    Validation scores are those of the branch that is trained.
    """

    cyclic = True

    def train(self, module, images, validation, settings):
        total = count_steps(images, settings)
        rate, taken = self._plan(total, module.n_branches, settings)
        member = take_branch(module, module.n_branches - 1)  # stored last in an earlier fit

        def take(step):
            if step in taken:
                put_branch(module, taken[step], member)
                if not member.is_frozen("stump"):
                    member.freeze("branches")

        single = replace(settings, ema_epochs=0, sampling="shared")
        try:
            net = train(member, images, validation, single, rate, take, others=[module])
        finally:  # also if the user interrupts the training
            module.stump.load_state_dict(member.stump.state_dict())
        return make_net(module, settings, history=net.history)

    def _plan(self, total, n_branches, settings):
        """Return a function from step to factor on the rate, and {step: branch to store}."""
        raise NotImplementedError


class SnapshotEnsemble(_CyclicEnsemble):
    """Train one branch in cosine cycles; store its weights at the end of each as a branch.

    The learning rate at step t of T in M cycles is lr / 2 (cos(π mod(M t, T) / T) + 1), Huang
    et al., eq. (2). A trainable stump is frozen once the first branch is stored. `lr_schedule`,
    `ema_epochs` and `sampling` have no effect.

    Parameters
    ----------
    n_cycles : int or None, default=None
        Number of cycles M, at least `n_branches` and at most the number of training steps. If it
        is larger than `n_branches`, the last cycles are stored. None uses `n_branches`.

    References
    ----------
    Huang et al. (2017), Snapshot ensembles: train 1, get M for free, arXiv:1704.00109.

    Examples
    --------
    >>> from sklearn_rrr import RRRNetClassifier, SnapshotEnsemble
    >>> clf = RRRNetClassifier(n_branches=4, ensemble=SnapshotEnsemble(n_cycles=6))
    """

    def __init__(self, n_cycles=None):
        self.n_cycles = n_cycles

    def check(self):
        if self.n_cycles is not None:
            check_int("n_cycles", self.n_cycles, 1, hint="None uses `n_branches`.")

    def _plan(self, total, n_branches, settings):
        n_cycles = n_branches if self.n_cycles is None else self.n_cycles
        if n_cycles < n_branches:
            raise ValueError(
                f"`n_cycles`={n_cycles} is less than `n_branches`={n_branches}; use at least "
                "one cycle per branch."
            )
        if total < n_cycles:
            raise ValueError(
                f"{n_cycles} snapshot cycles need at least {n_cycles} training steps, but there "
                f"are {total}; use a larger `max_epochs` or fewer cycles."
            )

        def rate(step):
            return (math.cos(math.pi * (n_cycles * step % total) / total) + 1) / 2

        ends = [-(-total * (i + 1) // n_cycles) for i in range(n_cycles)]
        return rate, dict(zip(ends[-n_branches:], range(n_branches), strict=True))


class FastGeometricEnsemble(_CyclicEnsemble):
    """Train one branch, then continue in short triangular cycles; store a branch in each.

    In the first half of a cycle, the learning rate falls linearly from `alpha_1` to `alpha_2`; in
    the second half, it rises again; Garipov et al., section 4. The weights in the middle of the
    cycle are stored as a branch. Before the cycles, the learning rate follows `lr_schedule`. A
    trainable stump is frozen once the first branch is stored. `ema_epochs` and `sampling` have no
    effect.

    Parameters
    ----------
    alpha_1 : float, default=1e-3
        Largest learning rate of the cycles.
    alpha_2 : float, default=5e-4
        Smallest learning rate of the cycles.
    pretraining : float, default=0.8
        Fraction of the steps before the cycles, in [0, 0.99]. It is reduced in steps of 0.1 until
        each cycle has at least two training steps.

    References
    ----------
    Garipov et al. (2018), Loss surfaces, mode connectivity, and fast ensembling of DNNs,
    arXiv:1802.10026.

    Examples
    --------
    >>> from sklearn_rrr import FastGeometricEnsemble, RRRNetClassifier
    >>> clf = RRRNetClassifier(ensemble=FastGeometricEnsemble(alpha_1=2e-3))
    """

    def __init__(self, alpha_1=1e-3, alpha_2=5e-4, pretraining=0.8):
        self.alpha_1 = alpha_1
        self.alpha_2 = alpha_2
        self.pretraining = pretraining

    def check(self):
        check_real("alpha_2", self.alpha_2, 0, open_low=True)
        hint = "It must not be smaller than `alpha_2`."
        check_real("alpha_1", self.alpha_1, self.alpha_2, hint=hint)
        check_real("pretraining", self.pretraining, 0, 0.99)

    def _plan(self, total, n_branches, settings):
        start, cycle = self._split(total, n_branches)
        before = make_schedule(settings, start)

        def rate(step):
            if step < start:
                return before(step)
            t = ((step - start) % cycle + 1) / cycle
            peak = abs(1 - 2 * t)  # 1 at the ends of a cycle, 0 in its middle
            return (peak * self.alpha_1 + (1 - peak) * self.alpha_2) / settings.learning_rate

        middles = [start + i * cycle + cycle // 2 for i in range(n_branches)]
        return rate, dict(zip(middles, range(n_branches), strict=True))

    def _split(self, total, n_branches):
        """Return the number of steps before the cycles and, an even number, in each cycle."""
        for tenths in range(11):
            share = max(self.pretraining - tenths / 10, 0)
            cycle = int((total - round(share * total)) / n_branches) // 2 * 2
            if cycle:
                return total - cycle * n_branches, cycle
        raise ValueError(
            f"{n_branches} fast geometric cycles need {2 * n_branches} training steps, but there "
            f"are {total}; use a larger `max_epochs` or fewer branches."
        )


ENSEMBLES = {
    "naive": NaiveEnsemble,
    "bagging": BaggingEnsemble,
    "snapshot": SnapshotEnsemble,
    "fge": FastGeometricEnsemble,
}


def make_strategy(ensemble):
    """Return `ensemble`, or the strategy that it names, after checking its parameters.

    Raises
    ------
    ValueError, TypeError
        If `ensemble` is neither a name nor a strategy, or a parameter is out of range.
    """
    if isinstance(ensemble, str) and ensemble in ENSEMBLES:
        return ENSEMBLES[ensemble]()
    if not isinstance(ensemble, EnsembleStrategy):
        kind = ValueError if isinstance(ensemble, str) else TypeError
        names = ", ".join(map(repr, ENSEMBLES))
        hint = " Pass an instance, not a class." if isinstance(ensemble, type) else ""
        raise kind(
            f"`ensemble` must be one of {names}, or an EnsembleStrategy; got {ensemble!r}.{hint}"
        )
    ensemble.check()
    return ensemble
