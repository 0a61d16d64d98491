"""How a tailored student learns: FineTuning with two rates more."""

from dataclasses import dataclass, replace

from sklearn_rrr.backbones.fine_tuning import DEFAULTS, FineTuning, real_in


@dataclass(repr=False)
class TailoringFineTuning(FineTuning):
    """How the student of a :class:`NetTailorClassifier` is trained.

    None takes the default of NetTailorClassifier, named below, else what suits the backbone.

    Parameters
    ----------
    trainable, split, dropout, sampling, stump_lr_factor : optional
        Of no effect on a student: its proxies, norms and head learn.
    norm_warmup_epochs, cache_features, patience : optional
        Of no effect on a student, either.
    learning_rate : float or None, default=None
        Of the student: 0.003 unless it is set; published, 0.1 with ``optimizer="sgd"``.
    head_init, steps, optimizer, weight_decay, lr_schedule, ema_epochs, augmentation : optional
        As of :class:`FineTuning`; the attention has no weight decay.
    attention_lr_factor : float or None, default=None
        Factor on the learning rate of the attention: 50 unless it is set; published, 1.
    retrain_lr_factor : float or None, default=None
        Factor on the learning rate of the pruned students: 1 unless it is set; published, 0.1.

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
        """Return the authors' settings of the student (Morgado and Vasconcelos, section 4.1)."""
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


# The default student: chosen for a few hundred images and "synth50".
TAILORING = replace(
    TailoringFineTuning(),
    optimizer="adamw",
    learning_rate=0.003,
    weight_decay=DEFAULTS.weight_decay,
    stump_lr_factor=1.0,
    norm_warmup_epochs=0,
    sampling="shared",
    attention_lr_factor=50.0,
    retrain_lr_factor=1.0,
)
