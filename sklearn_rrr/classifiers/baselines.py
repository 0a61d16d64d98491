"""Models that RRR-Net is compared with: arXiv:2310.01157, section 4.2.

[A] trains the last layer of the backbone, [B] the whole backbone. [C], the unsplit reduced network,
[D], the same with dropout, and [E], RRR-Net, are settings of RRRNetClassifier.
:func:`paper_models` returns all five.
"""

from dataclasses import dataclass, replace

from sklearn.base import clone

from sklearn_rrr.backbones.fine_tuning import FineTuning
from sklearn_rrr.classifiers.rrr_net_classifier import BranchClassifier, RRRNetClassifier

# Section 4.2 and appendix C, for any backbone.
PUBLISHED = {"fine_tuning": "published", "batch_size": 32, "max_epochs": 300, "image_size": 128}
# Fixed fields: an unsplit network with the backbone's kernels and norms does not use them.
UNSPLIT = {"split": "paper", "sampling": "shared", "companion": "none"}


@dataclass(eq=False, repr=False)
class LastLayerClassifier(BranchClassifier):
    """Train a new last layer on a frozen pre-trained network: the paper's model [A].

    Parameters
    ----------
    backbone, weights : optional
        Pre-trained network. :class:`RRRNetClassifier` documents this and all other parameters.
    fine_tuning, max_epochs, batch_size, class_weight : optional
        Training. The model fixes the field `trainable` of `fine_tuning`, and does not use
        `split`, `sampling` and `companion`.
    validation_fraction, early_stopping : optional
        Validation during training.
    image_shape, image_size, on_bad_file, max_image_pixels : optional
        Images.
    device, precision, checkpoint_dir, random_state, verbose : optional
        Hardware, seed and output.

    See Also
    --------
    RRRNetClassifier : Documents the parameters, and the attributes of a fitted classifier.

    Notes
    -----
    Without augmentation, the frozen layers process each image only once: their outputs are
    cached, see ``cache_features`` of :class:`FineTuning`.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import LastLayerClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = LastLayerClassifier(max_epochs=5, image_size=32, random_state=0)
    >>> clf.fit(X[:64] / 16, y[:64]).predict(X[64:66] / 16).shape
    (2,)
    """

    _trains = "head"

    def _network_form(self):
        return {"blocks": None, "n_branches": 1, "split_at": "conv4_x", "width_offset": 0}

    def _make_tuning(self, given):
        tuning = super()._make_tuning(given)
        return replace(tuning, trainable=None) if given == "published" else tuning

    def _recommend(self, backbone, is_inside):
        return FineTuning(head_features="last").fill(backbone.fine_tuning)

    def _settle_tuning(self):
        tuning = super()._settle_tuning()
        return replace(tuning, trainable=self._trains, **UNSPLIT)

    def _check_parameters(self):
        super()._check_parameters()
        tuning = self._given_tuning()
        asked = tuning.trainable
        if asked not in (None, self._trains) and tuning != FineTuning.published():
            raise ValueError(
                f"{type(self).__name__} trains {self._trains!r}; got a `fine_tuning` with "
                f"`trainable`={asked!r}. Leave `trainable` at None, or use RRRNetClassifier."
            )


@dataclass(eq=False, repr=False)
class FineTuningClassifier(LastLayerClassifier):
    """Train a whole pre-trained network with a new last layer: the paper's model [B].

    Parameters
    ----------
    backbone, weights : optional
        Pre-trained network. :class:`RRRNetClassifier` documents this and all other parameters.
    fine_tuning, max_epochs, batch_size, class_weight : optional
        Training. The model fixes the field `trainable` of `fine_tuning`, and does not use
        `split`, `sampling` and `companion`.
    validation_fraction, early_stopping : optional
        Validation during training.
    image_shape, image_size, on_bad_file, max_image_pixels : optional
        Images.
    device, precision, checkpoint_dir, random_state, verbose : optional
        Hardware, seed and output.

    See Also
    --------
    RRRNetClassifier : Documents the parameters, and the attributes of a fitted classifier.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import FineTuningClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = FineTuningClassifier(max_epochs=1, image_size=32, random_state=0)
    >>> clf.fit(X[:64] / 16, y[:64]).blocks_
    (2, 2, 5, 4)
    """

    _trains = "all"


def paper_models(**parameters):
    """Return the five models that the paper compares, unfitted.

    Parameters
    ----------
    **parameters : dict
        Parameters of :class:`RRRNetClassifier`, passed to each model that has them. `n_branches`
        and the field `dropout` of `fine_tuning` distinguish the models and cannot be passed; for
        [A] and [B], the field `trainable` is ignored. To reproduce the paper, pass ``PUBLISHED``
        of this module and ``backbone="resnet152"``.

    Returns
    -------
    models : dict
        "A": :class:`LastLayerClassifier`; "B": :class:`FineTuningClassifier`; "C": the unsplit
        reduced network; "D": the same with dropout 0.05; "E": RRR-Net with 8 branches.

    Raises
    ------
    TypeError
        If a parameter is unknown, or distinguishes the models.

    Examples
    --------
    >>> from sklearn_rrr import paper_models
    >>> models = paper_models(backbone="resnet152", max_epochs=30)
    >>> models["D"].fine_tuning.dropout, models["E"].n_branches
    (0.05, 8)
    """
    if unknown := parameters.keys() - RRRNetClassifier().get_params(deep=False).keys():
        raise TypeError(f"RRRNetClassifier has no parameter `{min(unknown)}`.")
    tuning = RRRNetClassifier(fine_tuning=parameters.pop("fine_tuning", None))._given_tuning()
    if "n_branches" in parameters or tuning.dropout:
        name = "n_branches" if "n_branches" in parameters else "dropout"
        raise TypeError(
            f"`{name}` distinguishes the models and cannot be passed; set it on one of them."
        )
    reduced = {"blocks": (1, 1, 1, 1)}
    models = {
        "A": LastLayerClassifier(fine_tuning=replace(tuning, trainable=None)),
        "B": FineTuningClassifier(fine_tuning=replace(tuning, trainable=None)),
        "C": RRRNetClassifier(n_branches=1, fine_tuning=clone(tuning), **reduced),
        "D": RRRNetClassifier(n_branches=1, fine_tuning=replace(tuning, dropout=0.05), **reduced),
        "E": RRRNetClassifier(n_branches=8, fine_tuning=clone(tuning), **reduced),
    }
    for model in models.values():
        known = model.get_params(deep=False)
        model.set_params(**{key: value for key, value in parameters.items() if key in known})
    return models
