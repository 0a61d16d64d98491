"""Element-wise pruning: single weights become zero, wherever they are."""

import copy

import torch
from torch.nn.utils import prune

from sklearn_rrr.networks.branch_layers import BranchLinear
from sklearn_rrr.networks.costs import count_parameters
from sklearn_rrr.pruning.base import BasePruner


class ElementPruner(BasePruner):
    """Set the smallest weights of convolutions and heads to zero, step by step.

    The network keeps its shape: on processors without sparse kernels it is neither smaller nor
    faster, which is what the paper's Figure 3 shows. Zeros stay only as long as nothing trains the
    network on: neither ``partial_fit`` nor a pruner as `then` keeps them.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The classifier to prune, frozen or to be fitted; see :class:`BasisScalingPruner`. None is an
        :class:`RRRNetClassifier`.
    target : float, default=0.5
        Share of the parameters to set to zero.
    max_drop : float or None, default=None
        If the score falls by more than this below that of the start, pruning ends, without the
        step that did it.
    n_steps : int, default=5
        Number of removals on the way to `target`, of equal shares.
    prune_every : int or None, default=None
        Epochs of training after each removal; None takes as many as make all of them together as
        long as the estimator's own fit.
    scoring : str, callable or None, default=None
        As in scikit-learn; None is the estimator's accuracy.
    validation_fraction : float or None, default=0.2
        Fraction of the images held out for scores; None scores nothing and learns from all.
    then : pruner or None, default=None
        Another pruner that goes on with what this one leaves.
    random_state : int, RandomState instance or None, default=None
        Seed of split and training; None takes the estimator's.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    estimator_ : classifier
        Fitted, with a network that has so many zeros.
    results_ : pandas.DataFrame
        A row for each step, see :class:`BasisScalingPruner`; ``nonzero`` falls.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        As of :class:`RRRNetClassifier`.

    References
    ----------
    Han, Pool, Tran and Dally (2015), Learning both weights and connections for efficient neural
    networks. RRR-Net, arXiv:2310.01157, Figure 3.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import ElementPruner, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(n_branches=2, max_epochs=2, image_size=32, random_state=0)
    >>> pruner = ElementPruner(clf, target=0.8, n_steps=1).fit(X[:64] / 16, y[:64])
    >>> dense, sparse = pruner.results_.nonzero
    >>> bool(sparse <= 0.2 * dense)
    True
    """

    _measures = ("nonzero",)

    def __init__(
        self,
        estimator=None,
        *,
        target=0.5,
        max_drop=None,
        n_steps=5,
        prune_every=None,
        scoring=None,
        validation_fraction=0.2,
        then=None,
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            estimator,
            target=target,
            measure="nonzero",
            max_drop=max_drop,
            n_steps=n_steps,
            prune_every=prune_every,
            scoring=scoring,
            validation_fraction=validation_fraction,
            then=then,
            random_state=random_state,
            verbose=verbose,
        )

    def _cut(self, run, limit):
        """Zero weights until `limit` parameters are left that are not."""
        network = copy.deepcopy(run.network)
        weights = _weights(network)
        for module, name in weights:  # which global_unstructured needs in C order
            setattr(module, name, torch.nn.Parameter(getattr(module, name).detach().contiguous()))
        possible = sum(module.weight.numel() for module, _ in weights)
        others = count_parameters(network) - possible  # which learn, where they are zero now
        wanted = max(0, possible + others - int(limit))
        prune.global_unstructured(weights, prune.L1Unstructured, amount=min(wanted, possible))
        for weight in weights:
            prune.remove(*weight)
        run.put(network)
        return wanted <= possible

    def _retrain(self, run, epochs):
        """Train the weights that are not zero."""
        weights = [module.weight for module, _ in _weights(run.network)]
        masks = [weight.detach() != 0 for weight in weights]

        def mask(_):
            with torch.no_grad():
                for weight, kept in zip(weights, masks, strict=True):
                    weight.mul_(kept.to(weight.device))

        run.train(epochs, after_step=mask)


def _weights(network):
    """Return the weights that may become zero, as torch.nn.utils.prune names them."""
    kinds = (torch.nn.Conv2d, BranchLinear)
    return [(module, "weight") for module in network.modules() if isinstance(module, kinds)]
