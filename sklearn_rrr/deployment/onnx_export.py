"""Export fitted classifiers to ONNX."""

import json

import torch
from torch import nn

from sklearn_rrr._files import write_atomically
from sklearn_rrr._surroundings import shielded
from sklearn_rrr._version import __version__
from sklearn_rrr.deployment.model_files import check_target, encode, find_classifier
from sklearn_rrr.deployment.onnx_classifier import seal
from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.norm_folding import fold_norms

OPSET = 18  # version of the ONNX operator set


# ---------------------------------------------------------------------------------- ONNX


@shielded()
def export_onnx(estimator, path):
    """Export a fitted classifier to ONNX, from pixels to probabilities.

    The graph has one input, "images", uint8 RGB of shape (n, h, w, 3), which it resizes and
    normalises as `predict_proba` does. Its outputs are "probabilities" (n, n_classes) and
    "branch_probabilities" (n, n_branches, n_classes). The axes n, h and w are dynamic. The
    metadata contain the classes and the image size.

    Parameters
    ----------
    estimator : RRRNetClassifier or other classifier
        Classifier fitted on images, or a search, pruner, selector or pipeline without
        preprocessing, from which the classifier inside is exported.
    path : str or path
        File to write, usually ``.onnx``. An existing file is replaced.

    Raises
    ------
    ImportError
        If onnx or onnxscript is missing: ``pip install onnx onnxscript``.
    NotFittedError, TypeError
        If `estimator` is not fitted, or is not an image classifier.
    ValueError
        If `estimator` was fitted on rows of numbers that are not images, or is a pipeline with
        preprocessing steps.

    See Also
    --------
    OnnxClassifier : Predict with the file, without torch.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.datasets import load_digits
    >>> from sklearn_rrr import OnnxClassifier, RRRNetClassifier, export_onnx
    >>> X, y = load_digits(n_class=3, return_X_y=True)
    >>> images = (X.reshape(-1, 8, 8) * 15.9).astype("uint8")
    >>> clf = RRRNetClassifier("synth50", blocks=(1, 1, 1, 1), image_size=32, max_epochs=1)
    >>> clf = clf.fit(images[:64], y[:64])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(clf, f"{folder}/digits.onnx")
    ...     light = OnnxClassifier(f"{folder}/digits.onnx")
    ...     light.predict_proba(images[64:66]).shape
    (2, 3)
    """
    estimator = find_classifier(estimator)
    path = check_target(path)
    if estimator._image_format.black is not None:
        raise ValueError(
            "The classifier was fitted on rows of numbers, not on images: ONNX export needs uint8 "
            f"images, but rows of shape {estimator.image_shape_in_} are scaled by their own range."
        )
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "`export_onnx` needs onnx and onnxscript: pip install onnx onnxscript."
        ) from error
    classes = json.dumps(encode(estimator.classes_, "classes_"))
    module = _Pixels(fold_norms(estimator.module_).cpu(), estimator.image_size_).eval()
    program = torch.onnx.export(
        module,
        (torch.zeros(2, 48, 40, 3, dtype=torch.uint8),),
        input_names=["images"],
        output_names=["probabilities", "branch_probabilities"],
        dynamic_shapes={"images": {0: "n", 1: "h", 2: "w"}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    metadata = {
        "sklearn_rrr": __version__,
        "classes": classes,
        "image_size": str(estimator.image_size_),
    }
    onnx.helper.set_model_props(model, metadata)
    write_atomically(path, seal(model.SerializeToString()))


class _Pixels(nn.Module):
    """Network that maps uint8 images to probabilities."""

    def __init__(self, network, image_size):
        super().__init__()
        self.network, self.image_size = network, image_size

    def forward(self, images):
        x = resize_like_torch(images, self.image_size) / 255
        logits = self.network(x)
        return average_probabilities(logits), logits.softmax(2)


def resize_like_torch(images, size):
    """Resize uint8 (B, h, w, 3) to float (B, 3, S, S) as torch resizes uint8 images.

    ONNX's own Resize operator rounds differently. torch's antialiased bilinear filter has 16-bit
    weights and rounds after each axis, width first; about one value in 1,000 differs by one.
    """
    (across, unit_x), (down, unit_y) = (_filter(images.shape[axis], size) for axis in (2, 1))
    x = images.float().permute(0, 3, 1, 2) @ across.T  # (B, 3, h, S)
    x = torch.floor(x / unit_x + 0.5)
    x = down @ x  # (B, 3, S, S)
    return torch.floor(x / unit_y + 0.5)


def _filter(n, size):
    """Return the filter of one axis as integer weights (S, n), and the integer that means 1."""
    ratio = torch.scalar_tensor(n, dtype=torch.float64) / size
    support = ratio.clamp(min=1)
    center = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * ratio
    i = torch.arange(n, dtype=torch.float64)
    inside = (i >= torch.floor(center - support + 0.5)) & (i < torch.floor(center + support + 0.5))
    weights = (1 - (i + 0.5 - center).abs() / support).clamp(min=0) * inside
    weights = weights / weights.sum(1, keepdim=True)
    unit = torch.exp2((torch.ceil(torch.log2(32767.5 / weights.max())) - 1).clamp(max=22))
    return torch.floor(weights * unit + 0.5).float(), unit.float()
