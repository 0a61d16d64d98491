"""The models that RRR-Net is compared with: arXiv:2310.01157, section 4.2.

[A] the last layer learns, [B] the whole network does. [C], the reduced network unsplit, and
[D], with dropout, are settings of RRRNetClassifier, as is [E], RRR-Net; :func:`paper_models`
gives all five.
"""

from dataclasses import dataclass, replace

from sklearn.base import clone

from sklearn_rrr.classifiers.rrr_net_classifier import BranchClassifier, RRRNetClassifier

# Section 4.2 and appendix C, whatever the backbone.
PUBLISHED = {"fine_tuning": "published", "batch_size": 32, "max_epochs": 300, "image_size": 128}
# What means nothing to a network that is one branch with the backbone's kernels and norms.
UNSPLIT = {"split": "paper", "sampling": "shared", "dropout": 0.0}


@dataclass(eq=False, repr=False)
class LastLayerClassifier(BranchClassifier):
    """Train a new last layer on a frozen pre-trained network: the paper's model [A].

    Parameters
    ----------
    backbone, weights : optional
        The pre-trained network.
    fine_tuning, max_epochs, batch_size, class_weight : optional
        Training; types and defaults, here and below, as in :class:`RRRNetClassifier`. What learns
        is fixed here, and there are no branches to split.
    validation_fraction, early_stopping : optional
        Validation while it is trained.
    image_shape, image_size, on_bad_file, max_image_pixels : optional
        Images.
    device, precision, random_state, verbose : optional
        How it runs.

    See Also
    --------
    RRRNetClassifier : Explains the parameters, and the attributes of a fitted classifier.

    Notes
    -----
    Without augmentation the network sees each image once, see `cache_features`.

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

    def _settle_tuning(self):
        tuning = super()._settle_tuning()
        return replace(tuning, trainable=self._trains, **UNSPLIT)

    def _check_parameters(self):
        super()._check_parameters()
        asked = self._given_tuning().trainable
        if asked not in (None, self._trains) and self.fine_tuning != "published":
            raise ValueError(
                f"{type(self).__name__} trains {self._trains!r}; got a `fine_tuning` with "
                f"`trainable`={asked!r}. Leave that None, or use RRRNetClassifier."
            )


@dataclass(eq=False, repr=False)
class FineTuningClassifier(LastLayerClassifier):
    """Train a whole pre-trained network with a new last layer: the paper's model [B].

    Parameters
    ----------
    backbone, weights : optional
        The pre-trained network.
    fine_tuning, max_epochs, batch_size, class_weight : optional
        Training; types and defaults, here and below, as in :class:`RRRNetClassifier`. What learns
        is fixed here, and there are no branches to split.
    validation_fraction, early_stopping : optional
        Validation while it is trained.
    image_shape, image_size, on_bad_file, max_image_pixels : optional
        Images.
    device, precision, random_state, verbose : optional
        How it runs.

    See Also
    --------
    RRRNetClassifier : Explains the parameters, and the attributes of a fitted classifier.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import FineTuningClassifier
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> clf = FineTuningClassifier(max_epochs=1, image_size=32, random_state=0)
    >>> clf.fit(X[:64] / 16, y[:64]).blocks_
    (3, 4, 6, 3)
    """

    _trains = "all"


def paper_models(**parameters):
    """Return the five models that the paper compares, unfitted.

    Parameters
    ----------
    **parameters : dict
        Of :class:`RRRNetClassifier`, but `n_branches`; given to each model that has them. What
        makes the models, `n_branches` and the `dropout` and, for [A] and [B], `trainable` of
        `fine_tuning`, is set here. As published: ``PUBLISHED`` of this module, with
        ``backbone="resnet152"``.

    Returns
    -------
    models : dict
        "A": :class:`LastLayerClassifier`, "B": :class:`FineTuningClassifier`, "C": the reduced
        network unsplit, "D": with dropout 0.05, "E": RRR-Net with 8 branches.

    Raises
    ------
    TypeError
        For names that no model has, and those that tell the models apart.

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
        raise TypeError(f"`{name}` tells the models apart; set it on the one you mean.")
    models = {
        "A": LastLayerClassifier(fine_tuning=replace(tuning, trainable=None)),
        "B": FineTuningClassifier(fine_tuning=replace(tuning, trainable=None)),
        "C": RRRNetClassifier(n_branches=1, fine_tuning=clone(tuning)),
        "D": RRRNetClassifier(n_branches=1, fine_tuning=replace(tuning, dropout=0.05)),
        "E": RRRNetClassifier(n_branches=8, fine_tuning=clone(tuning)),
    }
    for model in models.values():
        known = model.get_params(deep=False)
        model.set_params(**{key: value for key, value in parameters.items() if key in known})
    return models
