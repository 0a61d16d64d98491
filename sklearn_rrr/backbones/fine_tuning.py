"""Fine-tuning settings.

They belong to the backbones because each backbone recommends some.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from numbers import Integral

from sklearn.base import BaseEstimator

from sklearn_rrr._validation import check_bool, check_choice, check_int, check_real

TRAINABLE = ("head", "branches", "all")
SPLITS = ("paper", "aligned")
SAMPLINGS = ("shared", "independent")
HEAD_INITS = ("random", "ridge")
AUGMENTATIONS = ("paper", "geometric", "none")
OPTIMIZERS = ("adamw", "sgd")
LR_SCHEDULES = ("constant", "linear", "cosine", "steps", "onecycle")
NONE = "Use None for the value that suits the backbone."


@dataclass(repr=False)
class FineTuning(BaseEstimator):
    """Settings for training a network on top of a backbone.

    A field that is None takes the backbone's recommendation or, if there is none, the fallback
    named below, mostly the setting of RRR-Net (section 4.2 and appendix C). With random weights,
    all layers are trained at the paper's learning rate, for the backbone's number of steps. A
    search sets the fields as ``fine_tuning__learning_rate`` and so on; a fitted estimator has the
    resolved settings in ``fine_tuning_``.

    Parameters
    ----------
    trainable : {"head", "branches", "all"} or None, default=None
        Parts to train. "branches", the fallback, includes the heads and freezes the stump; with
        it and ``split="paper"``, even an unsplit network starts with fresh norms (model [C]).
    split : {"paper", "aligned"} or None, default=None
        How branches inherit their kernels. "paper", the fallback: by Algorithm 2, which mixes
        channels, with fresh norms. "aligned": each branch is a true sub-network with its norms.
    dropout : float or None, default=None
        Probability in [0, 0.99] of dropout after each activation of the last two blocks. The
        fallback is 0; model [D] uses 0.05.
    sampling : {"shared", "independent"} or None, default=None
        "shared", the fallback: all branches see the same batches, with one pass through the
        stump. "independent", as published: each branch has a separate order and augmentation.
    head_init : {"random", "ridge"} or None, default=None
        Initial heads: random, as published and the fallback, or a ridge regression on the
        features of the training images before training.
    steps : int or None, default=None
        Number of optimiser steps if the estimator has ``max_epochs=None``. The fallback is the
        paper's 3,750: 300 epochs of 12.5 batches.
    optimizer : {"adamw", "sgd"} or None, default=None
        "adamw", the paper's and the fallback, or stochastic gradient descent with momentum 0.9.
    learning_rate : float or None, default=None
        Learning rate of the optimiser, > 0. The fallback is the paper's 1e-3.
    stump_lr_factor : float or None, default=None
        Factor in (0, 1] on the learning rate of the stump, if it is trained. The fallback is 1.
    weight_decay : float or None, default=None
        Weight decay >= 0, decoupled for AdamW. The fallback is the paper's 0.01.
    lr_schedule : {"constant", "linear", "cosine", "onecycle", "steps"} or None, default=None
        Learning rate schedule. The fallback is the paper's "constant"; "steps" divides the rate
        by ten after 40 % and after 80 % of the steps.
    ema_epochs : int, float or None, default=None
        Number of last epochs over which weights are averaged; a float is a fraction of all
        epochs. The fallback is 0.2; 0 disables averaging. So does early stopping, because the
        last epoch is not known in advance.
    norm_warmup_epochs : int or None, default=None
        Passes that adapt the norm statistics of frozen layers before training. The fallback
        is enough passes to show 4,000 images, 1 to 10, but 0 for an entire pre-trained network
        if only its head is trained (model [A]).
    augmentation : {"paper", "geometric", "none"}, callable or None, default=None
        "paper", the fallback: two of 14 random transformations per image. "geometric": two of
        rotation, translation, scaling and shear. A callable takes and returns one image, a float
        tensor (3, S, S) in [0, 1]. Rows and arrays less than 8 pixels high or wide are augmented
        only if this field is set.
    cache_features : bool or None, default=None
        Whether to cache the features of frozen layers if there is no augmentation: up to 1 GiB
        in memory, up to 16 GiB in a temporary file. The fallback is True.
    patience : int or None, default=None
        Epochs without a better validation loss before early stopping ends the training. The
        fallback is 10.

    See Also
    --------
    RRRNetClassifier : ``fine_tuning=FineTuning(...)``.

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

    @classmethod
    def published(cls):
        """Return the published settings of RRR-Net, independent of the backbone."""
        return replace(DEFAULTS, sampling="independent", ema_epochs=60)

    def fill(self, *others):
        """Return a copy with each None replaced by the first other value in `others`."""
        chain = (self, *others)
        names = [field.name for field in fields(self)]
        values = {
            name: next((v for o in chain if (v := getattr(o, name, None)) is not None), None)
            for name in names
        }
        return replace(self, **values)

    def from_scratch(self):
        """Return the recommendation for the same backbone with random weights.

        All weights are trained at the paper's learning rate.
        """
        return FineTuning(trainable="all", augmentation=self.augmentation, steps=self.steps)

    def check(self):
        """Raise ValueError or TypeError for a field that is out of range."""
        for name, check in self._checks().items():
            if getattr(self, name) is not None:
                check(name, getattr(self, name))

    def _checks(self):
        """Return a dict from each field to its check, a function of name and value."""
        return {
            "trainable": one_of(TRAINABLE),
            "split": one_of(SPLITS),
            "dropout": real_in(0, 0.99),
            "sampling": one_of(SAMPLINGS),
            "head_init": one_of(HEAD_INITS),
            "steps": int_from(1),
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
        }


def one_of(allowed):
    """Return a function that checks that a field is one of `allowed`."""
    return lambda name, value: check_choice(name, value, allowed, NONE)


def int_from(low):
    """Return a function that checks that a field is an int >= `low`."""
    return lambda name, value: check_int(name, value, low, hint=NONE)


def real_in(low, high=None, open_low=False):
    """Return a function that checks that a field is in [low, high] or (low, high]."""
    return lambda name, value: check_real(name, value, low, high, NONE, open_low)


def _check_averaging(name, value):
    if isinstance(value, Integral):
        check_int(name, value, 0)
    else:
        check_real(name, value, 0, 1, "Or use an int for a number of epochs.")


def _check_augmentation(name, value):
    if not callable(value):
        hint = "Or use a callable that maps an image (3, S, S) to another."
        check_choice(name, value, AUGMENTATIONS, hint)


# Fallbacks if neither the user nor the backbone sets a field: the paper's settings, except that
# all branches share one pass through the stump and averaging covers a fraction of the epochs.
DEFAULTS = FineTuning(
    trainable="branches",
    split="paper",
    dropout=0.0,
    sampling="shared",
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
)
