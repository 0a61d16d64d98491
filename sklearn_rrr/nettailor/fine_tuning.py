"""Training settings of a tailored student: FineTuning with two more learning-rate factors."""

from dataclasses import dataclass

from sklearn_rrr.backbones.fine_tuning import DEFAULTS, FineTuning, real_in


@dataclass(repr=False)
class TailoringFineTuning(FineTuning):
    """Training settings of the student of a :class:`NetTailorClassifier`.

    A field of None takes the default given below or, without one, the value for the backbone.

    Parameters
    ----------
    trainable, split, dropout, sampling : optional
        No effect on a student: its proxies, norms and head are trained.
    head_features : optional
        No effect on a student, whose head reads the last block.
    head_init, steps, optimizer : optional
        As in :class:`FineTuning`.
    learning_rate : float or None, default=None
        Learning rate of the student; None means 0.003. Published: 0.1 with ``optimizer="sgd"``.
    stump_lr_factor : optional
        No effect on a student.
    weight_decay, lr_schedule, ema_epochs : optional
        As in :class:`FineTuning`; the attention has no weight decay.
    norm_warmup_epochs : optional
        No effect on a student.
    augmentation : optional
        As in :class:`FineTuning`.
    cache_features, patience, companion, flips : optional
        No effect on a student.
    attention_lr_factor : float or None, default=None
        Factor on the learning rate of the attention; None means 50. Published: 1.
    retrain_lr_factor : float or None, default=None
        Factor on the learning rate of the pruned students; None means 1. Published: 0.1.

    See Also
    --------
    FineTuning : Explains the fields.

    Examples
    --------
    >>> from sklearn_rrr import NetTailorClassifier, TailoringFineTuning
    >>> clf = NetTailorClassifier(fine_tuning=TailoringFineTuning(attention_lr_factor=10.0))
    """

    attention_lr_factor: float | None = None
    retrain_lr_factor: float | None = None

    @classmethod
    def published(cls):
        """Return the published settings of the student (Morgado and Vasconcelos, section 4.1)."""
        return cls(
            head_init="random",
            optimizer="sgd",
            learning_rate=0.1,
            weight_decay=5e-4,
            lr_schedule="steps",
            ema_epochs=0,
            attention_lr_factor=1.0,
            retrain_lr_factor=0.1,
        )

    def _checks(self):
        factor = real_in(0, open_low=True)
        own = dict.fromkeys(("attention_lr_factor", "retrain_lr_factor"), factor)
        return super()._checks() | own


# Default settings of the student, chosen for a few hundred images and "synth50".
TAILORING = TailoringFineTuning(
    optimizer="adamw",
    learning_rate=0.003,
    weight_decay=DEFAULTS.weight_decay,
    stump_lr_factor=1.0,
    norm_warmup_epochs=0,
    sampling="shared",
    attention_lr_factor=50.0,
    retrain_lr_factor=1.0,
)
