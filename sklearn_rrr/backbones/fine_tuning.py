"""Settings of a training, and which of them suit a backbone."""

from dataclasses import dataclass

from sklearn_rrr._validation import check_choice, check_int, check_real

TRAINABLE = ("head", "branches", "all")
SPLITS = ("paper", "aligned")
HEAD_INITS = ("random", "ridge")
AUGMENTATIONS = ("paper", "geometric", None)
LR_SCHEDULES = ("constant", "linear", "cosine", "steps", "onecycle")


@dataclass(frozen=True)
class FineTuning:
    """How a network is best trained on top of a backbone: what "auto" means to estimators.

    The defaults are the settings of RRR-Net (section 4.2 and appendix C).

    Parameters
    ----------
    trainable : {"head", "branches", "all"}, default="branches"
        What learns.
    split : {"paper", "aligned"}, default="paper"
        How branches take their kernels.
    head_init : {"random", "ridge"}, default="random"
        How the heads start.
    augmentation : {"paper", "geometric"} or None, default="paper"
        Random transformations of the training images.
    steps : int, default=3750
        Optimiser steps. The paper's budget is 300 epochs of 12.5 batches.
    learning_rate : float, default=1e-3
        Step size of AdamW.
    stump_lr_factor : float, default=1.0
        Factor on the learning rate of the stump, where it learns.
    lr_schedule : {"constant", "linear", "cosine", "onecycle", "steps"}, default="constant"
        Course of the learning rate; "steps" divides it by ten at 40 % and at 80 %.
    """

    trainable: str = "branches"
    split: str = "paper"
    head_init: str = "random"
    augmentation: str | None = "paper"
    steps: int = 3750
    learning_rate: float = 1e-3
    stump_lr_factor: float = 1.0
    lr_schedule: str = "constant"

    def __post_init__(self):
        check_choice("trainable", self.trainable, TRAINABLE)
        check_choice("split", self.split, SPLITS)
        check_choice("head_init", self.head_init, HEAD_INITS)
        check_choice("augmentation", self.augmentation, AUGMENTATIONS)
        check_int("steps", self.steps, 1)
        check_real("learning_rate", self.learning_rate, 0, open_low=True)
        check_real("stump_lr_factor", self.stump_lr_factor, 0, 1, open_low=True)
        check_choice("lr_schedule", self.lr_schedule, LR_SCHEDULES)

    def from_scratch(self):
        """Return the settings for random weights: everything learns, at the paper's rate."""
        return FineTuning(trainable="all", augmentation=self.augmentation, steps=self.steps)
