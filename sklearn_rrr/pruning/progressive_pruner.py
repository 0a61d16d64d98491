"""Simplification layer by layer, each followed by a retraining of the layers up to the next.

Osaku, Gomes and Falcão (2021), arXiv:2101.04699; derived from its abstract. The layers of a network
are simplified one after the other, from the first to the last. The kernels of a layer are judged
by numbers, or by a person who looks at what they respond to; those of low relevance are removed,
and only then is the network retrained, "from the next layer to the first one".
"""

import copy
import warnings
from bisect import bisect_left
from itertools import takewhile

import numpy as np
import torch
from tqdm.auto import tqdm

from sklearn_rrr._validation import check_bool, check_choice, check_int, check_real
from sklearn_rrr.pruning.activation_maps import activation_maps, pick_images
from sklearn_rrr.pruning.base import BasePruner
from sklearn_rrr.pruning.channel_groups import find_groups, list_blocks, list_layers
from sklearn_rrr.pruning.channel_pruner import rank_units
from sklearn_rrr.pruning.criteria import CRITERIA, score_channels, score_taylor
from sklearn_rrr.pruning.leave_one_out import score_leave_one_out, score_without
from sklearn_rrr.pruning.removal import keep_channels

RELEVANCE = {"leave_one_out": score_leave_one_out, **CRITERIA}
RETRAININGS = ("progressive", "usual")
ROUNDING = 1e-6  # of scores, which are means over few images


class ProgressiveKernelPruner(BasePruner):
    """Simplify a network layer by layer, and retrain the layers up to the next after each.

    A layer is a convolution, with its norm. Its kernels of low relevance are removed for good,
    and only then is it retrained, with all layers before it and the next one, which reads it;
    the layers after that keep their weights and the statistics of their norms. The shortcut of a
    block counts as part of the block's last convolution, and the head as the last layer: it is
    retrained only where `streams` removes channels that it reads.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The classifier to prune, frozen or to be fitted; see :class:`BasisScalingPruner`. None is an
        :class:`RRRNetClassifier`.
    criterion : {"leave_one_out", "taylor", "norm", "l1", "fisher"} or callable, \
default="leave_one_out"
        Objective relevance of a kernel. "leave_one_out": by how much the balanced accuracy on the
        images held out falls without it; ties go by "taylor". The others, and a callable: see
        :class:`ChannelPruner`.
    threshold : float, default=0.0
        Relevance of a kernel up to which leave-one-out removes it; and, for every criterion, how
        far the balanced accuracy on the images held out may fall by what is removed from one
        layer, before its retraining. The least relevant kernels go first.
    amount : float or None, default=None
        The share of each layer's kernels to be removed instead, the least relevant.
    target : float or None, default=None
        The share of the network's `measure` to be removed instead: `amount` is chosen so. 0
        leaves the network as it is.
    selector : callable or None, default=None
        Subjective relevance, instead of all that: ``selector(layer, activation_mosaics, scores)``
        returns which channels stay, a boolean array of shape (C,). It is shown the name of the
        layer; an array of shape (C, n_images, h, w), what each channel hands to the next layer on
        a few images; and the relevance by `criterion`, (C,). As many must stay in each of the
        equal consecutive parts of C that belong to the branches, or to the groups of a grouped
        convolution.
    mosaic_images : int, default=16
        How many images it is shown, of those held out if there are such.
    retrain : {"progressive", "usual"}, default="progressive"
        "usual", the control, retrains the whole network after each layer, in as many epochs.
    streams : bool, default=False
        Whether the channels of residual streams are removed, too, all layers of a stream at
        once; the stream's last reader is then its next layer. Else only inside the blocks.
    measure : {"parameters", "macs"}, default="parameters"
        What `target` is a share of.
    max_drop : float or None, default=None
        Largest loss of score, against the start. A layer whose pruning goes beyond, after the
        retraining, is put back as it was; the next follows.
    prune_every : int or None, default=None
        Epochs after each layer. With None all layers together take as long as the first fit, but
        each takes one epoch at least.
    scoring : str, callable or None, default=None
        Scorer of `results_`, `max_drop` and :meth:`score`; None is accuracy.
    validation_fraction : float or None, default=0.2
        Share of the images that is held out. None is for the criteria that need no such images,
        with `amount`, `target` or `selector`.
    then : pruner or None, default=None
        Another pruner that goes on with the network.
    random_state : int, RandomState or None, default=None
        Seeds the split and the training; None takes the classifier's.
    verbose : int, default=0
        Whether a progress bar is shown.

    Attributes
    ----------
    estimator_ : classifier
        Fitted, with the simpler network.
    results_ : pandas.DataFrame
        A row for the start, and one for each layer in order: layer (its name, empty at the
        start), channels_before, channels (at the start, of all layers), relevance (of each
        channel before), remaining (positions of those that stay), parameters, macs, score,
        epochs and seconds so far, and kept: False where the layer was put back.
    classes_ : ndarray of shape (n_classes,)
        Labels.
    skipped_ : list
        As of :class:`RRRNetClassifier`.

    See Also
    --------
    ChannelPruner : All layers at once, step by step.
    sklearn_rrr.plotting.KernelMosaicDisplay : What a selector sees, drawn.

    Notes
    -----
    Kernels that can each be spared cannot be spared together: two that do the same have no
    relevance each. So of those that `threshold` would remove, the least relevant are removed, as
    many as the balanced accuracy allows when they are gone together.

    References
    ----------
    Osaku, Gomes and Falcão (2021), Convolutional neural network simplification with progressive
    retraining, arXiv:2101.04699. Derived from its abstract.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import ProgressiveKernelPruner, RRRNetClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = RRRNetClassifier(n_branches=2, max_epochs=2, image_size=32, random_state=0)
    >>> pruner = ProgressiveKernelPruner(clf, criterion="l1", amount=0.25, prune_every=1)
    >>> table = pruner.fit(X[:64] / 16, y[:64]).results_
    >>> table.layer.tolist()[:3]
    ['', 'stump.4.0.conv1', 'stump.4.0.conv2']
    >>> table.channels_before.tolist()[1:3], table.channels.tolist()[1:3]
    ([32, 32], [24, 24])
    """

    def __init__(
        self,
        estimator=None,
        *,
        criterion="leave_one_out",
        threshold=0.0,
        amount=None,
        target=None,
        selector=None,
        mosaic_images=16,
        retrain="progressive",
        streams=False,
        measure="parameters",
        max_drop=None,
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
            measure=measure,
            max_drop=max_drop,
            prune_every=prune_every,
            scoring=scoring,
            validation_fraction=validation_fraction,
            then=then,
            random_state=random_state,
            verbose=verbose,
        )
        self.criterion = criterion
        self.threshold = threshold
        self.amount = amount
        self.selector = selector
        self.mosaic_images = mosaic_images
        self.retrain = retrain
        self.streams = streams

    # ------------------------------------------------------------------------- checks

    def _check_amount(self):
        check_real("threshold", self.threshold, 0, 1)
        if self.amount is not None:
            check_real("amount", self.amount, 0, 0.999, "A share of each layer's kernels.")
        if self.target is not None:
            check_real("target", self.target, 0, 0.999, "A share of what is there, to be removed.")
        if not (self.selector is None or callable(self.selector)):
            raise TypeError(f"`selector` must be a callable or None; got {self.selector!r}.")
        names = ("amount", "target", "selector")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` both say what goes; give one of them.")
        name = "criterion" if self.criterion == "leave_one_out" else "threshold"
        if self.validation_fraction is None and (name == "criterion" or not given):
            raise ValueError(
                f"`{name}`={getattr(self, name)!r} needs images to score on; got "
                "`validation_fraction`=None. Use for example 0.2."
            )

    def _check_parameters(self):
        super()._check_parameters()
        if not callable(self.criterion):
            check_choice("criterion", self.criterion, tuple(RELEVANCE), "Or use a callable.")
        check_choice("retrain", self.retrain, RETRAININGS)
        check_bool("streams", self.streams)
        check_int("mosaic_images", self.mosaic_images, 1)

    # ------------------------------------------------------------------------- pruning

    def _prune(self, run):
        """Simplify one layer after the other, with a retraining after each."""
        groups = find_groups(run.network, self.streams)
        amount, epochs = self._find_amount(run), self.prune_every
        if epochs is None:
            epochs = max(1, run.classifier._resolve_epochs(len(run.images)) // max(len(groups), 1))
        self._begin(run, epochs)
        n_channels = sum(group.size for group in groups)
        start = {"layer": "", "channels_before": n_channels, "channels": n_channels}
        start = run.record(**start, relevance=None, remaining=None)
        bar = {"desc": type(self).__name__, "unit": "layer", "disable": not self.verbose}
        for group in tqdm([] if self.target == 0 else groups, **bar):
            whole = run.network
            row = self._simplify(run, group, amount, epochs)
            if self.max_drop is not None and start["score"] - row["score"] > self.max_drop:
                row["kept"] = False
                run.put(whole)
        run.put(self._export(run.network))

    def _simplify(self, run, group, amount, epochs):
        """Remove kernels of one layer, retrain, and return the row on it."""
        relevance, remaining = self._judge(run, group, amount)
        network = copy.deepcopy(run.network)
        keep_channels(network, group, torch.as_tensor(remaining))
        run.put(network)
        if self.retrain == "progressive":
            network.hold(list_later(network, group))
        self._retrain(run, epochs)
        run.network.freeze("all")
        return run.record(
            layer=group.name,
            channels_before=group.size,
            channels=len(remaining),
            relevance=relevance,
            remaining=remaining,
        )

    def _find_amount(self, run):
        """Return the share of each layer's kernels to be removed, or None."""
        if self.target is None:
            return self.amount
        limit = (1 - self.target) * run.cost()
        amounts = np.linspace(0, 1, 1001)

        def fits(amount):
            network = copy.deepcopy(run.network)
            for group in find_groups(network, self.streams):
                positions = torch.arange(group.size).view(group.parts, -1)
                keep_channels(network, group, positions[:, count_share(amount, group) :].flatten())
            return self._cost(network, run.classifier.image_size_) <= limit

        number = bisect_left(amounts, True, key=fits)
        if number < len(amounts):
            return amounts[number]
        warnings.warn(
            f"{type(self).__name__} may not remove {self.target:.1%} of the {self.measure}, the "
            "`target`; one channel of each layer and part stays.",
            stacklevel=4,
        )
        return 1.0

    # ------------------------------------------------------------------------- judging

    def _judge(self, run, group, amount):
        """Return the relevance of a layer's channels, and the positions of those that stay."""
        criterion = self.criterion if callable(self.criterion) else RELEVANCE[self.criterion]
        (relevance,) = score_channels(criterion, run, [group])
        if self.selector is not None:
            kept = self._ask(run, group, relevance.numpy())
        else:
            units = self._rank_kernels(run, group, relevance)
            if amount is None:
                number = self._count_spared(run, group, units, relevance)
            else:
                number = count_share(amount, group)
            kept = np.ones(group.size, dtype=bool)
            kept[[i for unit in units[:number] for i in unit.tolist()]] = False
        return relevance.numpy(), np.flatnonzero(kept)

    def _rank_kernels(self, run, group, relevance):
        """Return units of one channel of each part, the least relevant first."""
        ties = torch.zeros(group.size)
        if self.criterion == "leave_one_out":  # means over few images are often equal
            (ties,) = score_taylor(run, [group])
        ranks = torch.empty(group.size)
        ranks[np.lexsort((ties.numpy(), relevance.numpy()))] = torch.arange(group.size).float()
        return [channels for _, channels in rank_units([group], [ranks])]

    def _count_spared(self, run, group, units, relevance):
        """Return how many units, the least relevant, go at the price that `threshold` allows."""
        limit = self.threshold + ROUNDING
        if self.criterion == "leave_one_out":
            units = list(takewhile(lambda unit: relevance[unit].max() <= limit, units))
        gone = [[i for unit in units[:n] for i in unit.tolist()] for n in range(len(units) + 1)]
        (full,) = score_without(run, group, [[]])

        def costs(number):
            return full - score_without(run, group, [gone[number]])[0] > limit

        return bisect_left(range(1, len(gone)), True, key=costs)

    def _ask(self, run, group, relevance):
        """Return which channels the selector keeps."""
        images = pick_images(run.watched, self.mosaic_images)
        maps = activation_maps(run.network, group, images)
        kept = np.asarray(self.selector(group.name, maps, relevance))
        if kept.shape != (group.size,) or kept.dtype != bool:
            raise ValueError(
                f"`selector` must return a boolean array of the shape ({group.size},) for "
                f"{group.name!r}; got {kept.dtype} of the shape {kept.shape}."
            )
        counts = kept.reshape(group.parts, -1).sum(1).tolist()
        if min(counts) < 1 or len(set(counts)) > 1:
            raise ValueError(
                "`selector` must keep a channel or more, and as many in each of the "
                f"{group.parts} equal parts (branches, groups) of {group.name!r}; got {counts}."
            )
        return kept


def count_share(amount, group):
    """Return how many channels of each part a share of them is; one stays."""
    size = group.size // group.parts
    return min(round(float(amount) * size), size - 1)


def list_later(network, group):
    """Return the names of the modules after the layer that reads a group, the last of several.

    Parameters
    ----------
    network : RRRNet
    group : ChannelGroup

    Returns
    -------
    names : list of str
        Of convolutions, norms, shortcuts, which go with their blocks' last convolutions, and
        the head.
    """
    layers = [("stump.0", "stump.1")]
    for name, block in list_blocks(network):
        layers += list_layers(name, block)
        if block.downsample is not None:
            layers[-1] += (f"{name}.downsample",)
    layers.append(("head",))
    reads = [any(_holds(names, reader) for reader in group.readers) for names in layers]
    last = max(np.flatnonzero(reads))
    return [name for names in layers[last + 1 :] for name in names]


def _holds(names, inner):
    return any(f"{inner}.".startswith(f"{name}.") for name in names)
