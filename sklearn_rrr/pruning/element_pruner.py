"""Elementwise pruning: the smallest single weights are set to zero."""

import copy
from dataclasses import dataclass

import torch
from torch.nn.utils import prune

from sklearn_rrr.networks.branch_layers import BranchLinear
from sklearn_rrr.networks.costs import count_parameters
from sklearn_rrr.pruning.base import StepwisePruner


@dataclass(eq=False, repr=False)
class ElementPruner(StepwisePruner):
    """Set the smallest weights of convolutions and heads to zero, step by step.

    The shapes of the network do not change: on processors without sparse kernels it becomes
    neither smaller nor faster, as Figure 3 of the paper shows. Later training, by
    ``partial_fit`` or by a pruner in `then`, changes the zeros again.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Classifier to prune, frozen or to be fitted; default and details, here and below, as in
        :class:`~sklearn_rrr.pruning.base.BasePruner`.
    target : float, default=0.5
        Share of the nonzero parameters to set to zero, in [0, 0.999].
    tolerance, n_steps, epochs_per_step, scoring : optional
        Course of the pruning, as in :class:`~sklearn_rrr.pruning.base.BasePruner`.
    validation_fraction, then, checkpoint_dir, random_state, verbose : optional
        As in :class:`~sklearn_rrr.pruning.base.BasePruner`.

    Attributes
    ----------
    estimator_ : classifier
        Fitted classifier whose network holds zeros.
    results_ : pandas.DataFrame
        One row for the start and one for each step; ``nonzero`` falls.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        Images that could not be read.

    References
    ----------
    Han, Pool, Tran and Dally (2015), Learning both weights and connections for efficient neural
    networks. RRR-Net, arXiv:2310.01157, Figure 3.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import ElementPruner, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> form = {"blocks": (1, 1, 1, 1), "n_branches": 2, "image_size": 32}
    >>> clf = RRRNetClassifier(**form, max_epochs=2, random_state=0)
    >>> pruner = ElementPruner(clf, target=0.8, n_steps=1).fit(X[:64] / 16, y[:64])
    >>> dense, sparse = pruner.results_.nonzero
    >>> bool(sparse <= 0.2 * dense)
    True
    """

    def _cost_name(self):
        return "nonzero"

    def _cut(self, run, limit):
        """Zero the smallest weights until only `limit` nonzero parameters are left."""
        network = copy.deepcopy(run.network)
        weights = _weights(network)
        for module, name in weights:  # global_unstructured needs them in C order
            setattr(module, name, torch.nn.Parameter(getattr(module, name).detach().contiguous()))
        possible = sum(module.weight.numel() for module, _ in weights)
        others = count_parameters(network) - possible  # trained, even those that are zero now
        wanted = max(0, possible + others - int(limit))
        prune.global_unstructured(weights, prune.L1Unstructured, amount=min(wanted, possible))
        for weight in weights:
            prune.remove(*weight)
        run.put(network)
        return wanted <= possible

    def _retrain(self, run, epochs):
        """Train the nonzero weights only."""
        weights = [module.weight for module, _ in _weights(run.network)]
        masks = [weight.detach() != 0 for weight in weights]

        def mask(_):
            with torch.no_grad():
                for weight, kept in zip(weights, masks, strict=True):
                    weight.mul_(kept.to(weight.device))

        run.train(epochs, after_step=mask)


def _weights(network):
    """Return the prunable weights in the form (module, name) of torch.nn.utils.prune."""
    kinds = (torch.nn.Conv2d, BranchLinear)
    return [(module, "weight") for module in network.modules() if isinstance(module, kinds)]
