"""Checks of the teacher that a NetTailorClassifier is given."""

import numpy as np

from sklearn_rrr.networks.stacked_net import StackedNet


def check_unfitted(teacher, image_size, class_weight):
    """Raise unless a teacher can be trained on images as the student reads and weights them."""
    for name, here in (("image_size", image_size), ("class_weight", class_weight)):
        own = getattr(teacher, name)
        if own is not None and own != here:
            raise ValueError(
                f"`teacher` is trained on the student's images, with `{name}`={here!r}; got a "
                f"teacher with {own!r}. Set `{name}` on the NetTailorClassifier, or pass a "
                "fitted teacher in a FrozenEstimator."
            )


def check_teacher(teacher, module, backbone, classes, image_size):
    """Raise unless a teacher has the nodes, classes and image size of the student.

    Parameters
    ----------
    teacher : BranchClassifier
        Fitted teacher, or one that is about to be trained.
    module : RRRNet or StackedNet
        Its network.
    backbone : Backbone
        Backbone of the student.
    classes : ndarray of shape (n_classes,)
        Labels.
    image_size : int
        Height and width in pixels.
    """
    if isinstance(module, StackedNet):
        raise ValueError(
            "`teacher` must have a single network; got a classifier with a companion. Fit it "
            "with fine_tuning=FineTuning(companion='none')."
        )
    whole = (backbone.name, backbone.depths, 1, backbone.planes[-len(module.branch_planes) :])
    given = (module.backbone_name, module.blocks, module.n_branches, module.branch_planes)
    if given != whole or module.is_reduced:
        raise ValueError(
            f"`teacher` must have the backbone {backbone.name!r} with all its blocks "
            f"{backbone.depths}, unsplit and not pruned; got {given[0]!r} with the "
            f"blocks {given[1]} and {given[2]} branch(es) of {given[3]} planes. "
            "Use blocks=None, n_branches=1."
        )
    if not np.array_equal(teacher.classes_, classes):
        raise ValueError(
            f"`teacher` must be fitted on the classes of y, {classes.tolist()}; got a "
            f"teacher fitted on {teacher.classes_.tolist()}. Fit it on the same labels."
        )
    if teacher.image_size_ != image_size:
        raise ValueError(
            f"`teacher` must be fitted on images of the same size; got {teacher.image_size_}, "
            f"not {image_size}. Use image_size={teacher.image_size_}."
        )
