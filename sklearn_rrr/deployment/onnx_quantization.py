"""Quantise the convolutions of an exported graph to int8.

Static quantisation after training (Jacob et al. 2018, Quantization and training of neural networks
for efficient integer-arithmetic-only inference): activations have one scale a tensor, which comes
from calibration images; weights have one scale an output channel. Rounded weights shift the means
of channels, which biases correct (Nagel et al. 2019, Data-free quantization through weight
equalization and bias correction, section 4.2). Pre-processing, sums of residual blocks, statistics
and heads remain in float32.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.helper import make_node, make_tensor_value_info
from onnx.numpy_helper import from_array, to_array
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

# An activation is part of the convolution before it: uint8 ends where the activation does.
OPERATORS = ("Conv", "Clip", "Relu")
# Tells onnxruntime that the shapes in a graph are inferred.
PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}
LARGEST = 127  # of the rounded weights of a channel


def quantise_convolutions(model, read):
    """Return an ONNX model whose convolutions are computed in int8.

    Parameters
    ----------
    model : onnx.ModelProto
        Model with the input "images" and convolutions in float32, which this function changes.
    read : callable
        Returns an iterator over batches of calibration images, in the form of the input. Larger
        activations than theirs are clipped.

    Returns
    -------
    quantised : onnx.ModelProto
        The model without metadata.
    """
    _round_weights(model.graph, _measure_shifts(model, read()))
    onnx.helper.set_model_props(model, PREPARED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            _Batches(read()),
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantised = onnx.load(path)
    del quantised.metadata_props[:]
    return quantised


class _Batches(CalibrationDataReader):
    """Batches of images as onnxruntime reads them."""

    def __init__(self, batches):
        self.batches = batches

    def get_next(self):
        images = next(self.batches, None)
        return None if images is None else {"images": images}


def _measure_shifts(model, batches):
    """Return how far rounded weights lower the mean of each output channel.

    Returns
    -------
    shifts : dict of {str: ndarray of shape (n_channels,)}
        Keys are the names of the outputs of convolutions.
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    graph = probe.graph
    weights = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    del graph.output[:]
    graph.initializer.append(from_array(np.array([0, 2, 3]), "shift_axes"))
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    names = [node.output[0] for node in convolutions]
    for node, name in zip(convolutions, names, strict=True):
        error, output, shift = (f"{name}_{part}" for part in ("error", "error_output", "shift"))
        weight = weights[node.input[1]]
        graph.initializer.append(from_array(weight - _round(weight), error))
        added = graph.node.add()
        added.CopyFrom(node)
        added.name = output
        added.input[:], added.output[:] = [node.input[0], error], [output]
        graph.node.append(make_node("ReduceMean", [output, "shift_axes"], [shift], keepdims=0))
        graph.output.append(make_tensor_value_info(shift, onnx.TensorProto.FLOAT, None))
    content = probe.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    totals, n_images = [0] * len(names), 0
    for images in batches:
        means = session.run(None, {"images": images})
        totals = [total + len(images) * m for total, m in zip(totals, means, strict=True)]
        n_images += len(images)
    return {name: total / n_images for name, total in zip(names, totals, strict=True)}


def _round_weights(graph, shifts):
    """Round the weights of convolutions, and add the shifts to their biases, in place."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        weight, *bias = (tensors[name] for name in node.input[1:])
        weight.CopyFrom(from_array(_round(to_array(weight)), weight.name))
        corrected = sum(map(to_array, bias), shifts[node.output[0]])
        # Several convolutions may share one bias, or have none.
        graph.initializer.append(from_array(corrected, f"{node.output[0]}_bias"))
        node.input[2:] = [graph.initializer[-1].name]
    used = {name for node in graph.node for name in node.input}
    for i in reversed(range(len(graph.initializer))):
        if graph.initializer[i].name not in used:
            del graph.initializer[i]


def _round(weight):
    """Round a weight (C, ...) to LARGEST steps below and above 0 in each output channel."""
    step = np.abs(weight).max((1, 2, 3), keepdims=True) / LARGEST
    step[step == 0] = 1
    return np.rint(weight / step) * step
