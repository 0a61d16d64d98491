"""Export of a fitted classifier to ONNX."""

import json

import torch
from torch import nn

from sklearn_rrr._files import write_atomically
from sklearn_rrr._version import __version__
from sklearn_rrr.deployment.model_files import check_target, encode, find_classifier
from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.norm_folding import fold_norms

OPSET = 18  # of ONNX


# ---------------------------------------------------------------------------------- ONNX


def export_onnx(estimator, path):
    """Export a fitted classifier to ONNX, from pixels to probabilities.

    The graph takes "images", uint8 RGB of any size, (n, h, w, 3), resizes and normalises
    them as `predict_proba` does, and gives "probabilities" (n, n_classes) and
    "branch_probabilities" (n, n_branches, n_classes). n, h and w are free. Classes and
    image size stand in the metadata.

    Parameters
    ----------
    estimator : RRRNetClassifier or other classifier
        Fitted on images, not on rows that are no pixels. Of a search, a pruner, a selector or a
        pipeline without preprocessing, the classifier inside is exported.
    path : str or path
        The file to write, usually ``.onnx``.

    Raises
    ------
    ImportError
        Without onnx and onnxscript: ``pip install onnx onnxscript``.
    NotFittedError, TypeError, ValueError
        If it was not fitted, is no image classifier, was fitted on numbers that uint8 images do
        not cover, or is a pipeline with preprocessing steps.

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
    >>> clf = RRRNetClassifier(n_branches=2, max_epochs=1, weights=None).fit(images[:64], y[:64])
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
            "The classifier was fitted on rows of numbers, not on images: ONNX export is for "
            f"uint8 images, and rows of shape {estimator.image_shape_in_} are scaled otherwise."
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
    write_atomically(path, model.SerializeToString())


class _Pixels(nn.Module):
    """A network from uint8 images to probabilities."""

    def __init__(self, network, image_size):
        super().__init__()
        self.network, self.image_size = network, image_size

    def forward(self, images):
        x = resize_like_torch(images, self.image_size) / 255
        logits = self.network(x)
        return average_probabilities(logits), logits.softmax(2)


def resize_like_torch(images, size):
    """Resize uint8 (B, h, w, 3) -> float (B, 3, S, S) as torch does uint8.

    ONNX's Resize rounds otherwise. torch's antialiased bilinear filter has weights of 16
    bits, and rounds after each axis, width first; hardly one value in 1,000 is one off.
    """
    (across, unit_x), (down, unit_y) = (_filter(images.shape[axis], size) for axis in (2, 1))
    x = images.float().permute(0, 3, 1, 2) @ across.T  # (B, 3, h, S)
    x = torch.floor(x / unit_x + 0.5)
    x = down @ x  # (B, 3, S, S)
    return torch.floor(x / unit_y + 0.5)


def _filter(n, size):
    """Return the weights of one axis, whole numbers (S, n), and the number that means 1."""
    ratio = torch.scalar_tensor(n, dtype=torch.float64) / size
    support = ratio.clamp(min=1)
    center = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * ratio
    i = torch.arange(n, dtype=torch.float64)
    inside = (i >= torch.floor(center - support + 0.5)) & (i < torch.floor(center + support + 0.5))
    weights = (1 - (i + 0.5 - center).abs() / support).clamp(min=0) * inside
    weights = weights / weights.sum(1, keepdim=True)
    unit = torch.exp2((torch.ceil(torch.log2(32767.5 / weights.max())) - 1).clamp(max=22))
    return torch.floor(weights * unit + 0.5).float(), unit.float()
