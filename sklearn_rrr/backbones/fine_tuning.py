"""Training settings.

They are defined next to the backbones because each backbone recommends its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from numbers import Integral

from sklearn.base import BaseEstimator

from sklearn_rrr._validation import check_bool, check_choice, check_int, check_real
from sklearn_rrr.backbones.registry import list_backbones

TRAINABLE = ("head", "branches", "all")
SPLITS = ("paper", "aligned")
SAMPLINGS = ("shared", "independent")
HEAD_FEATURES = ("last", "all")
HEAD_INITS = ("random", "ridge")
AUGMENTATIONS = ("paper", "geometric", "none")
OPTIMIZERS = ("adamw", "sgd")
LR_SCHEDULES = ("constant", "linear", "cosine", "steps", "onecycle")
NONE = "None uses the value that suits the backbone."


@dataclass(repr=False)
class FineTuning(BaseEstimator):
    """Settings to train a network that is built from a backbone.

    A field that is None uses the value that the backbone recommends or, if it recommends none, the
    default named below, which follows RRR-Net (section 4.2 and appendix C). With random weights,
    all parts are trained, at the paper's learning rate and for the backbone's number of steps. A
    search reaches the fields as ``fine_tuning__learning_rate`` and so on. A fitted estimator has
    the resolved settings in ``fine_tuning_``.

    Parameters
    ----------
    trainable : {"head", "branches", "all"} or None, default=None
        Part of the network to train. "branches", the default and the paper's choice, trains the
        branches with their heads and freezes the stump; with ``split="paper"``, it resets the
        norms of an unsplit network, too (the paper's model [C]).
    split : {"paper", "aligned"} or None, default=None
        How the branches get their kernels from the backbone. "paper", the default, uses Algorithm
        2, which mixes channels, and resets the norms. With "aligned", each branch is a sub-network
        of the backbone, including its norms.
    dropout : float or None, default=None
        Probability of dropout after each activation of the last two blocks, in [0, 0.99]. The
        default is 0; the paper's model [D] uses 0.05.
    sampling : {"shared", "independent"} or None, default=None
        Whether all branches use the same batches, with a single pass through the stump ("shared",
        the default), or each branch its own order and augmentation, as in the paper.
    head_features : {"last", "all"} or None, default=None
        What the heads read: means over the pixels of the last block's output ("last", the default
        and the paper's choice), or means and standard deviations of all blocks that a branch sees,
        standardised by statistics kept with the head.
    head_init : {"random", "ridge"} or None, default=None
        Initial weights of the heads: random, the default and the paper's choice, or those of a
        ridge regression on the features of the training images. Exact leave-one-out chooses its
        penalty.
    steps : int or None, default=None
        Number of optimiser steps if the estimator has ``max_epochs=None``. The default is 3,750,
        the paper's 300 epochs of 12.5 batches. 0 keeps the initial weights.
    optimizer : {"adamw", "sgd"} or None, default=None
        AdamW, the default and the paper's choice, or stochastic gradient descent with momentum
        0.9.
    learning_rate : float or None, default=None
        Learning rate, greater than 0. The default is the paper's 1e-3.
    stump_lr_factor : float or None, default=None
        Factor on the learning rate of a trainable stump, in (0, 1]. The default is 1.
    weight_decay : float or None, default=None
        Weight decay, at least 0; decoupled with AdamW. The default is the paper's 0.01.
    lr_schedule : {"constant", "linear", "cosine", "onecycle", "steps"} or None, default=None
        Schedule of the learning rate, constant by default and in the paper. "steps" divides it by
        ten after 40 % and after 80 % of the steps.
    ema_epochs : int, float or None, default=None
        Number of last epochs over which weights are averaged; a float is a fraction of all epochs.
        The default is 0.2; 0 disables averaging. Early stopping disables it, too, because the
        last epoch is not known in advance.
    norm_warmup_epochs : int or None, default=None
        Number of passes that adapt the norm statistics of the frozen parts before training. They
        become exact averages over all batches, so the default is 1; the paper's moving averages
        take 10. It is 0 if only the head of a whole pre-trained backbone is trained (model [A]).
    augmentation : {"paper", "geometric", "none"}, callable or None, default=None
        "paper", the default, applies two random transformations out of 14 to each image;
        "geometric" applies two out of rotation, translation, scaling and shear. A callable maps
        one image to another, both float tensors of shape (3, S, S) in [0, 1]. If the field is
        None, rows and arrays of less than 8 pixels in height or width are not augmented.
    cache_features : bool or None, default=None
        Whether to compute the outputs of frozen parts only once if images are not augmented, and
        to cache up to 1 GiB in memory or up to 16 GiB in a temporary file. The default is True.
    patience : int or None, default=None
        Number of epochs without a better validation loss after which early stopping ends the
        training, at least 1. The default is 10.
    companion : str or None, default=None
        Name of a second backbone, such as "synth50", or "none", the default. The head also reads
        the features of its reduced network, 1_1_1_1, which is left out if leave-one-out finds that
        it does not help. It needs a head in closed form, that is ``trainable="head"``,
        ``head_init="ridge"``, no epochs and an unsplit network. There is no companion in
        ``partial_fit``, or inside pruners and selectors.
    flips : bool or None, default=None
        Whether a head in closed form on a frozen network also learns from flipped copies: of at
        most 500 images mirrored ones, and of at most 250 images also upside-down ones and ones
        turned by 180 degrees. Their weight depends on how much they help to predict left-out
        images, and is almost 0 on characters and signs. The fit takes up to four times as long,
        predictions no longer. The default is False.

    See Also
    --------
    RRRNetClassifier : Classifier with the parameter ``fine_tuning=FineTuning(...)``.

    Examples
    --------
    >>> from sklearn_rrr import FineTuning, RRRNetClassifier
    >>> clf = RRRNetClassifier(fine_tuning=FineTuning(trainable="head", augmentation="none"))
    >>> clf.set_params(fine_tuning__learning_rate=0.01).fine_tuning.learning_rate
    0.01
    >>> FineTuning.published().sampling
    'independent'
    """

    trainable: str | None = None
    split: str | None = None
    dropout: float | None = None
    sampling: str | None = None
    head_features: str | None = None
    head_init: str | None = None
    steps: int | None = None
    optimizer: str | None = None
    learning_rate: float | None = None
    stump_lr_factor: float | None = None
    weight_decay: float | None = None
    lr_schedule: str | None = None
    ema_epochs: float | None = None
    norm_warmup_epochs: int | None = None
    augmentation: str | Callable | None = None
    cache_features: bool | None = None
    patience: int | None = None
    companion: str | None = None
    flips: bool | None = None

    @classmethod
    def published(cls):
        """Return the published settings of RRR-Net, for any backbone."""
        return replace(DEFAULTS, sampling="independent", ema_epochs=60)

    @classmethod
    def one_pass(cls):
        """Return settings that only compute the heads, in closed form, in one pass.

        There are no flipped copies and no companion. If the network is reduced or split, the
        statistics of its norms are adapted before.
        """
        return cls(
            trainable="head",
            head_init="ridge",
            steps=0,
            augmentation="none",
            companion="none",
            flips=False,
        )

    def fill(self, *others):
        """Return a copy in which None is replaced by the first value that `others` set."""
        chain = (self, *others)
        names = [field.name for field in fields(self)]
        values = {
            name: next((v for o in chain if (v := getattr(o, name, None)) is not None), None)
            for name in names
        }
        return replace(self, **values)

    def from_scratch(self):
        """Return the recommendation for random weights: train all parts.

        Augmentation and steps are kept; other fields use the paper's values.
        """
        return FineTuning(trainable="all", augmentation=self.augmentation, steps=self.steps)

    def check(self):
        """Raise a ValueError or TypeError if a field is out of range."""
        for name, check in self._checks().items():
            if getattr(self, name) is not None:
                check(name, getattr(self, name))

    def _checks(self):
        """Return {field: function that checks a name and a value}."""
        return {
            "trainable": one_of(TRAINABLE),
            "split": one_of(SPLITS),
            "dropout": real_in(0, 0.99),
            "sampling": one_of(SAMPLINGS),
            "head_features": one_of(HEAD_FEATURES),
            "head_init": one_of(HEAD_INITS),
            "steps": int_from(0),
            "optimizer": one_of(OPTIMIZERS),
            "learning_rate": real_in(0, open_low=True),
            "stump_lr_factor": real_in(0, 1, open_low=True),
            "weight_decay": real_in(0),
            "lr_schedule": one_of(LR_SCHEDULES),
            "ema_epochs": _check_averaging,
            "norm_warmup_epochs": int_from(0),
            "augmentation": _check_augmentation,
            "cache_features": check_bool,
            "patience": int_from(1),
            "companion": _check_companion,
            "flips": check_bool,
        }


def one_of(allowed):
    """Return a check that a field is one of `allowed`."""
    return lambda name, value: check_choice(name, value, allowed, NONE)


def int_from(low):
    """Return a check that a field is an int of at least `low`."""
    return lambda name, value: check_int(name, value, low, hint=NONE)


def real_in(low, high=None, open_low=False):
    """Return a check that a field is a number in [low, high]."""
    return lambda name, value: check_real(name, value, low, high, NONE, open_low)


def _check_averaging(name, value):
    if isinstance(value, Integral):
        check_int(name, value, 0)
    else:
        check_real(name, value, 0, 1, "Or use an int for a number of epochs.")


def _check_companion(name, value):
    check_choice(name, value, ("none", *list_backbones()), NONE)


def _check_augmentation(name, value):
    if not callable(value):
        hint = "Or use a callable that maps one image (3, S, S) to another."
        check_choice(name, value, AUGMENTATIONS, hint)


# Defaults if neither the user nor the backbone sets a field: the paper's settings, except for a
# single pass through the stump for all branches, and averaging over a fraction of the epochs.
DEFAULTS = FineTuning(
    trainable="branches",
    split="paper",
    dropout=0.0,
    sampling="shared",
    head_features="last",
    head_init="random",
    steps=3750,
    optimizer="adamw",
    learning_rate=1e-3,
    stump_lr_factor=1.0,
    weight_decay=0.01,
    lr_schedule="constant",
    ema_epochs=0.2,
    augmentation="paper",
    cache_features=True,
    patience=10,
    companion="none",
    flips=False,
)
