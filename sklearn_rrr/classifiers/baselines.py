"""The models that RRR-Net is compared with: arXiv:2310.01157, section 4.2.

[A] the last layer learns, [B] the whole network does. [C], the reduced network unsplit, and
[D], with dropout, are settings of RRRNetClassifier, as is [E], RRR-Net; :func:`paper_models`
gives all five.
"""

from sklearn_rrr.classifiers.rrr_net_classifier import BranchClassifier, RRRNetClassifier

# Section 4.2 and appendix C, whatever the backbone.
PUBLISHED = {
    "trainable": "branches",
    "split": "paper",
    "sampling": "independent",
    "head_init": "random",
    "augmentation": "paper",
    "lr_schedule": "constant",
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "batch_size": 32,
    "max_epochs": 300,
    "ema_epochs": 60,
    "image_size": 128,
}


class LastLayerClassifier(BranchClassifier):
    """Train a new last layer on a frozen pre-trained network: the paper's model [A].

    Parameters
    ----------
    backbone, weights : optional
        The pre-trained network.
    max_epochs, batch_size, learning_rate, weight_decay, lr_schedule, ema_epochs : optional
        Training; types and defaults, here and below, as in :class:`RRRNetClassifier`.
    head_init, augmentation, cache_features, class_weight : optional
        Training.
    validation_fraction, early_stopping, patience : optional
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
    >>> clf = LastLayerClassifier(augmentation=None, max_epochs=5, image_size=32, random_state=0)
    >>> clf.fit(X[:64] / 16, y[:64]).predict(X[64:66] / 16).shape
    (2,)
    """

    blocks, n_branches, trainable = None, 1, "head"
    split_at, split, width_offset = "conv4_x", "paper", 0
    dropout, ensemble, sampling = 0.0, "naive", "shared"
    stump_lr_factor, norm_warmup_epochs = "auto", "auto"


class FineTuningClassifier(LastLayerClassifier):
    """Train a whole pre-trained network with a new last layer: the paper's model [B].

    Parameters
    ----------
    backbone, weights : optional
        The pre-trained network.
    max_epochs, batch_size, learning_rate, weight_decay, lr_schedule, ema_epochs : optional
        Training; types and defaults, here and below, as in :class:`RRRNetClassifier`.
    head_init, augmentation, cache_features, class_weight : optional
        Training.
    validation_fraction, early_stopping, patience : optional
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

    trainable = "all"


def paper_models(**parameters):
    """Return the five models that the paper compares, unfitted.

    Parameters
    ----------
    **parameters : dict
        Of :class:`RRRNetClassifier`, but those that make the models, n_branches and dropout;
        given to each model that has them. As published: ``PUBLISHED`` of this module, with
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
    >>> models["D"].dropout, models["E"].n_branches
    (0.05, 8)
    """
    if unknown := parameters.keys() - RRRNetClassifier().get_params().keys():
        raise TypeError(f"RRRNetClassifier has no parameter `{min(unknown)}`.")
    if fixed := parameters.keys() & {"n_branches", "dropout"}:
        raise TypeError(f"`{min(fixed)}` tells the models apart; set it on the one you mean.")
    own = {
        "A": {},
        "B": {},
        "C": {"n_branches": 1},
        "D": {"n_branches": 1, "dropout": 0.05},
        "E": {"n_branches": 8},
    }
    kinds = {"A": LastLayerClassifier, "B": FineTuningClassifier}
    models = {name: kinds.get(name, RRRNetClassifier)() for name in own}
    for name, model in models.items():
        known = model.get_params()
        given = {key: value for key, value in parameters.items() if key in known}
        model.set_params(**given | own[name])
    return models
