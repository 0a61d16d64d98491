"""Settings of a training, and which of them suit a backbone.

They stand with the backbones because a backbone recommends its own.
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
NONE = "None takes what suits the backbone."


@dataclass(repr=False)
class FineTuning(BaseEstimator):
    """How a network is trained on top of a backbone.

    Each field may be None: then the backbone's recommendation counts and, where it has none, the
    setting of RRR-Net (section 4.2 and appendix C), named below. With random weights, everything
    learns at the paper's rate, in the backbone's steps. A search reaches the fields as
    ``fine_tuning__learning_rate`` and so on; a fitted estimator shows what they became as
    ``fine_tuning_``.

    Parameters
    ----------
    trainable : {"head", "branches", "all"} or None, default=None
        What learns. "branches", the paper's, includes the heads and freezes the stump; with it
        and ``split="paper"``, an unsplit network starts with fresh norms, too (model [C]).
    split : {"paper", "aligned"} or None, default=None
        How branches take their kernels: "paper", by Algorithm 2, which mixes channels, with fresh
        norms; "aligned", so that each branch is a true sub-network and keeps its norms.
    dropout : float or None, default=None
        Probability in [0, 0.99] of dropout after each activation of the last two blocks; 0 unless
        it is set. Model [D] has 0.05.
    sampling : {"shared", "independent"} or None, default=None
        Whether the branches see the same batches, with one pass through the stump ("shared",
        unless it is set), or each its own order and augmentation, as published.
    head_init : {"random", "ridge"} or None, default=None
        How the heads start: at random, as published, or as a ridge regression on the features
        that the training images have before training.
    steps : int or None, default=None
        Optimiser steps that an estimator with ``max_epochs=None`` spends. The paper's budget is
        3,750: 300 epochs of 12.5 batches.
    optimizer : {"adamw", "sgd"} or None, default=None
        "adamw", the paper's, or stochastic gradient descent with momentum 0.9.
    learning_rate : float or None, default=None
        Step size of the optimiser; 1e-3 in the paper.
    stump_lr_factor : float or None, default=None
        Factor in (0, 1] on the learning rate of the stump, where the stump learns.
    weight_decay : float or None, default=None
        Weight decay, decoupled with AdamW; 0.01 in the paper.
    lr_schedule : {"constant", "linear", "cosine", "onecycle", "steps"} or None, default=None
        Course of the learning rate, constant in the paper; "steps" divides it by ten after 40 %
        and after 80 % of the steps.
    ema_epochs : int, float or None, default=None
        Last epochs over which weights are averaged; a float is a fraction of all epochs, 0.2
        unless it is set. 0 switches averaging off. Early stopping does, too: its end is not known
        beforehand.
    norm_warmup_epochs : int or None, default=None
        Passes that adapt the norm statistics of the frozen parts before training. None: as many
        as show 4,000 images, from 1 to 10, but none for a whole pre-trained network of which only
        the head learns (model [A]).
    augmentation : {"paper", "geometric", "none"}, callable or None, default=None
        "paper": two random transformations an image, out of 14. "geometric": two of rotation,
        translation, scaling and shear. A callable takes and returns one image, a float tensor
        (3, S, S) in [0, 1]. Rows and arrays less than 8 pixels high or wide are no pictures, and
        are not augmented unless the field is set.
    cache_features : bool or None, default=None
        Whether the features of frozen parts are computed once and kept where no augmentation
        changes them: up to 1 GiB in memory, up to 16 GiB in a temporary file. True unless it is
        set.
    patience : int or None, default=None
        Epochs without a better validation loss after which early stopping ends; 10 unless it is
        set.

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
        """Return the settings of RRR-Net as published, whatever the backbone."""
        return replace(DEFAULTS, sampling="independent", ema_epochs=60)

    def fill(self, *others):
        """Return a copy in which each field that is None takes the first value that others have."""
        chain = (self, *others)
        names = [field.name for field in fields(self)]
        values = {
            name: next((v for o in chain if (v := getattr(o, name, None)) is not None), None)
            for name in names
        }
        return replace(self, **values)

    def from_scratch(self):
        """Return what a backbone's recommendation is for random weights.

        Everything learns, at the paper's rate.
        """
        return FineTuning(trainable="all", augmentation=self.augmentation, steps=self.steps)

    def check(self):
        """Raise ValueError or TypeError for a field that is out of range."""
        for name, check in self._checks().items():
            if getattr(self, name) is not None:
                check(name, getattr(self, name))

    def _checks(self):
        """Return {field: function of its name and its value}."""
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
        check_real(name, value, 0, 1, "Or use an int, a number of epochs.")


def _check_augmentation(name, value):
    if not callable(value):
        hint = "Or use a callable from one image (3, S, S) to another."
        check_choice(name, value, AUGMENTATIONS, hint)


# What counts where neither the user nor the backbone says otherwise: the paper's settings, but
# with one pass through the stump for all branches, and an average over a share of the epochs.
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
