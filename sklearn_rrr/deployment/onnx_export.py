"""Export fitted classifiers to ONNX."""

import torch
from torch import nn

from sklearn_rrr._files import write_atomically
from sklearn_rrr._surroundings import shielded
from sklearn_rrr.deployment.model_files import check_target, encode, find_classifier
from sklearn_rrr.deployment.onnx_files import make_metadata, seal
from sklearn_rrr.images.readers import read_batches
from sklearn_rrr.networks.image_network import average_probabilities
from sklearn_rrr.networks.norm_folding import fold_norms

OPSET = 18  # version of the ONNX operator set
CALIBRATION_BATCH = 16
FRACTION = 2**-14  # finer than the steps of images of 16 bits


# ---------------------------------------------------------------------------------- ONNX


@shielded()
def export_onnx(estimator, path, *, calibration_images=None):
    """Export a fitted classifier to ONNX, from pixels to probabilities.

    The graph has one input, "images", float32 RGB in [0, 255] of shape (n, h, w, 3), which it
    resizes and normalises as `predict_proba` does. Its outputs are "probabilities" (n, n_classes)
    and "branch_probabilities" (n, n_branches, n_classes). The axes n, h and w are dynamic. The
    metadata contain the classes, the image size and the format of X.

    Parameters
    ----------
    estimator : RRRNetClassifier or other classifier
        Classifier fitted on images, or a search, pruner, selector or pipeline without
        preprocessing, from which the classifier inside is exported.
    path : str or path
        File to write, usually ``.onnx``. An existing file is replaced.
    calibration_images : images, default=None
        If given, the convolutions are quantised to int8: the file is smaller and faster, and its
        probabilities are approximate. The images show how large the activations become; larger
        ones are clipped. Pass about 100 images that represent all classes, such as a random part
        of X of `fit`, in any form that `predict_proba` accepts.

    Raises
    ------
    ImportError
        If onnx or onnxscript is missing, or onnxruntime if `calibration_images` are given:
        ``pip install onnx onnxscript onnxruntime``.
    NotFittedError, TypeError
        If `estimator` is not fitted, or is not an image classifier.
    ValueError
        If `estimator` is a pipeline with preprocessing steps.
    ValueError, TypeError
        If `predict_proba` would not accept the `calibration_images`.

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

    With int8 convolutions:

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export_onnx(clf, f"{folder}/small.onnx", calibration_images=images[:64])
    ...     OnnxClassifier(f"{folder}/small.onnx").predict_proba(images[64:66]).shape
    (2, 3)
    """
    estimator = find_classifier(estimator)
    path = check_target(path)
    try:
        import onnx
        import onnxscript  # noqa: F401

        if calibration_images is not None:
            from sklearn_rrr.deployment.onnx_quantization import quantise_convolutions
    except ImportError as error:
        names = "onnx onnxscript" + (" onnxruntime" if calibration_images is not None else "")
        raise ImportError(
            f"`export_onnx` needs packages that are not installed: pip install {names}."
        ) from error
    metadata = make_metadata(estimator, encode(estimator.classes_, "classes_"))
    if calibration_images is not None:
        source = estimator._read(calibration_images, reset=False)
    module = _Pixels(fold_norms(estimator.module_).cpu(), estimator.image_size_).eval()
    program = torch.onnx.export(
        module,
        (torch.zeros(2, 48, 40, 3),),
        input_names=["images"],
        output_names=["probabilities", "branch_probabilities"],
        dynamic_shapes={"images": {0: "n", 1: "h", 2: "w"}},
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    if calibration_images is not None:
        form = source, estimator.image_size_, CALIBRATION_BATCH
        model = quantise_convolutions(model, lambda: map(_as_pixels, read_batches(*form)))
    onnx.helper.set_model_props(model, metadata)
    write_atomically(path, seal(model.SerializeToString()))


def _as_pixels(images):
    """Return images (B, 3, S, S) as the graph reads them: float32 (B, S, S, 3) in [0, 255]."""
    images = images.float() if images.dtype == torch.uint8 else images * 255
    return images.permute(0, 2, 3, 1).contiguous().numpy()


class _Pixels(nn.Module):
    """Network that maps images (B, h, w, 3) in [0, 255] to probabilities."""

    def __init__(self, network, image_size):
        super().__init__()
        self.network, self.image_size = network, image_size

    def forward(self, images):
        logits = self.network(resize_like_torch(images, self.image_size) / 255)
        return average_probabilities(logits), logits.softmax(2)


def resize_like_torch(images, size):
    """Resize float images (B, h, w, 3) to (B, 3, S, S) as torch resizes uint8 images.

    ONNX's own Resize operator rounds differently. torch's antialiased bilinear filter has 16-bit
    weights and rounds after each axis, width first. Sums of float32 are inexact, so a few values
    in 10,000 differ by 1. Images of size S keep their fractions.
    """
    (across, step_x), (down, step_y) = (_filter(images.shape[axis], size) for axis in (2, 1))
    x = torch.floor(images.permute(0, 3, 1, 2) @ across.T + 0.5)  # (B, 3, h, S)
    x = torch.floor((down * step_x) @ x + 0.5)  # (B, 3, S, S)
    return x * step_y


def _filter(n, size):
    """Return the filter of one axis, (S, n), in steps of 1 or FRACTION, and the step."""
    ratio = torch.scalar_tensor(n, dtype=torch.float64) / size
    support = ratio.clamp(min=1)
    center = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * ratio
    i = torch.arange(n, dtype=torch.float64)
    inside = (i >= torch.floor(center - support + 0.5)) & (i < torch.floor(center + support + 0.5))
    weights = (1 - (i + 0.5 - center).abs() / support).clamp(min=0) * inside
    weights = weights / weights.sum(1, keepdim=True)
    unit = torch.exp2((torch.ceil(torch.log2(32767.5 / weights.max())) - 1).clamp(max=22))
    weights = torch.floor(weights * unit + 0.5) / unit
    step = torch.where(ratio == 1, FRACTION, 1.0)
    return (weights / step).float(), step.float()
