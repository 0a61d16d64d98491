"""How the branches of a network become an ensemble: naive, bagging, snapshot, fast geometric.

RRR-Net (arXiv:2310.01157), section 3.3, compares four strategies. Each ends in the same
network, with M branches that vote. Bagging: Breiman (1996). Snapshot: Huang et al. (2017),
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
    """Train every branch on all images; subclasses override one of the two methods.

    A subclass stores its parameters in ``__init__`` as scikit-learn's estimators do, so that
    a search reaches them as ``ensemble__<name>``.

    Examples
    --------
    >>> from sklearn_rrr import EnsembleStrategy, RRRNetClassifier
    >>> class Halves(EnsembleStrategy):
    ...     def weigh(self, n_images, n_branches, rng):
    ...         return rng.integers(2, size=(n_images, n_branches))
    >>> clf = RRRNetClassifier(ensemble=Halves())
    """

    # Whether one branch is trained in cycles that fill the others: such a training is whole,
    # without early stopping or partial_fit.
    cyclic = False

    def weigh(self, n_images, n_branches, rng):
        """Return factors (n, M) on the images' weights, or None for the same in all branches.

        Of at least 0, and above 0 for an image or more of each branch.

        Parameters
        ----------
        n_images, n_branches : int
            n and M.
        rng : numpy.random.Generator
            Seeded by the estimator's `random_state`.
        """
        return None

    def train(self, module, images, validation, settings):
        """Train the network, and return the net that did.

        Parameters
        ----------
        module : RRRNet
            Trained in place.
        images, validation : LabelledSet
            Validation may be None.
        settings : Settings

        Returns
        -------
        net : BranchNet
            As :func:`sklearn_rrr.training.loop.train` returns it.
        """
        return train(module, images, validation, settings)

    def check(self):
        """Raise for parameters that are out of range."""


class NaiveEnsemble(EnsembleStrategy):
    """Train every branch on all images; they differ by their kernels and heads.

    Examples
    --------
    >>> from sklearn_rrr import NaiveEnsemble, RRRNetClassifier
    >>> clf = RRRNetClassifier(ensemble=NaiveEnsemble())  # as ensemble="naive"
    """


class BaggingEnsemble(EnsembleStrategy):
    """Train every branch on a bootstrap sample of its own, drawn once a fit.

    An image that was drawn twice counts twice in its branch's loss. Norms that learn see all
    images of a batch. ``partial_fit`` draws a sample of each call's images.

    Parameters
    ----------
    max_samples : float, default=1.0
        Size of a sample as a share of the images, in (0, 1].

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
    """Train one branch in cycles of the learning rate; its weights in each become a branch.

    Branches share one stump, which therefore learns until the first branch is taken only.
    Scores on validation images are those of the one branch.
    """

    cyclic = True

    def train(self, module, images, validation, settings):
        total = count_steps(images, settings)
        rate, taken = self._plan(total, module.n_branches, settings)
        member = take_branch(module, module.n_branches - 1)  # where a grown network stopped

        def take(step):
            if step in taken:
                put_branch(module, taken[step], member)
                if not member.is_frozen("stump"):
                    member.freeze("branches")

        single = replace(settings, ema_epochs=0, sampling="shared")
        net = train(member, images, validation, single, rate, take)
        module.stump.load_state_dict(member.stump.state_dict())
        return make_net(module, settings, history=net.history)

    def _plan(self, total, n_branches, settings):
        """Return the rate's factor at a step, and {number of steps so far: branch}."""
        raise NotImplementedError


class SnapshotEnsemble(_CyclicEnsemble):
    """Train one branch in cycles along a cosine; where each ends, its weights are a branch.

    The learning rate at step t of T in M cycles is lr / 2 (cos(π mod(M t, T) / T) + 1), Huang
    et al., eq. (2). A stump that learns does so in the first cycle. `lr_schedule`, `ema_epochs` and
    `sampling` have no effect.

    Parameters
    ----------
    n_cycles : int or None, default=None
        At least `n_branches`, which None takes, and at most the number of training steps; of
        more cycles than branches the last ones count.

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
            check_int("n_cycles", self.n_cycles, 1, hint="None takes as many as branches.")

    def _plan(self, total, n_branches, settings):
        n_cycles = n_branches if self.n_cycles is None else self.n_cycles
        if n_cycles < n_branches:
            raise ValueError(
                f"`n_cycles`={n_cycles} cannot fill `n_branches`={n_branches}; use as many or more."
            )
        if total < n_cycles:
            raise ValueError(
                f"{n_cycles} snapshot cycles need as many training steps, and there are {total}; "
                "use a larger `max_epochs`, or fewer cycles."
            )

        def rate(step):
            return (math.cos(math.pi * (n_cycles * step % total) / total) + 1) / 2

        ends = [-(-total * (i + 1) // n_cycles) for i in range(n_cycles)]
        return rate, dict(zip(ends[-n_branches:], range(n_branches), strict=True))


class FastGeometricEnsemble(_CyclicEnsemble):
    """Train one branch, then go on in short triangular cycles whose middles are the branches.

    In step i of a cycle of c steps, t = i / c: the learning rate falls from `alpha_1` to
    `alpha_2` while t ≤ 1/2, and rises again; Garipov et al., section 4. Before the cycles it
    follows `lr_schedule`. A stump that learns does so until the first branch is taken.
    `ema_epochs` and `sampling` have no effect.

    Parameters
    ----------
    alpha_1 : float, default=1e-3
        Largest learning rate of the cycles.
    alpha_2 : float, default=5e-4
        Smallest one.
    pretraining : float, default=0.8
        Share of the steps before the cycles, in [0, 1). It is lowered by 0.1 until a cycle
        has two steps.

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
        """Return the steps before the cycles and those of a cycle, an even number."""
        for tenths in range(11):
            share = max(self.pretraining - tenths / 10, 0)
            cycle = int((total - round(share * total)) / n_branches) // 2 * 2
            if cycle:
                return total - cycle * n_branches, cycle
        raise ValueError(
            f"{n_branches} fast geometric cycles need {2 * n_branches} training steps, and there "
            f"are {total}; use a larger `max_epochs`, or fewer branches."
        )


ENSEMBLES = {
    "naive": NaiveEnsemble,
    "bagging": BaggingEnsemble,
    "snapshot": SnapshotEnsemble,
    "fge": FastGeometricEnsemble,
}


def make_strategy(ensemble):
    """Return the strategy of a name, or the one given, after a check of its parameters.

    Raises
    ------
    ValueError, TypeError
        If it is neither, or its parameters are out of range.
    """
    if isinstance(ensemble, str) and ensemble in ENSEMBLES:
        return ENSEMBLES[ensemble]()
    if not isinstance(ensemble, EnsembleStrategy):
        kind = ValueError if isinstance(ensemble, str) else TypeError
        names = ", ".join(map(repr, ENSEMBLES))
        hint = " Make an object of it: ()." if isinstance(ensemble, type) else ""
        raise kind(
            f"`ensemble` must be one of {names}, or an EnsembleStrategy; got {ensemble!r}.{hint}"
        )
    ensemble.check()
    return ensemble
