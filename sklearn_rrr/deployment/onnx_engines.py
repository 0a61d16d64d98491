"""Engines that run ONNX files: functions from images to the outputs of the graph."""

import threading
from functools import cache

from sklearn_rrr.deployment.onnx_files import METADATA


def start_onnxruntime(content, n_threads, precision):
    """Return a function that maps images to the outputs, and the file's metadata."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads or 0
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    return lambda images: session.run(None, {"images": images}), metadata


_first_use = threading.Lock()


@cache
def _openvino_core():
    """Return the process's only OpenVINO core, which is never released.

    OpenVINO's CPU plugin gives the thread that first compiles a model an alternate signal stack,
    and unmaps it with the last model, in whichever thread; the next signal would then be fatal.
    """
    import openvino

    return openvino.Core()


def start_openvino(content, n_threads, precision):
    """Return a function that maps images to the outputs, and the file's metadata."""
    with _first_use:
        core = _openvino_core()
    model = core.read_model(content)
    try:
        metadata = {k: model.get_rt_info(["framework", k]).astype(str) for k in METADATA}
    except RuntimeError:  # the file has no such metadata
        metadata = {}
    config = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision]}
    if n_threads:
        config["INFERENCE_NUM_THREADS"] = n_threads
    compiled, own = core.compile_model(model, "CPU", config), threading.local()

    def run(images):
        if not hasattr(own, "request"):  # a request is not thread-safe
            own.request = compiled.create_infer_request()
        return list(own.request.infer([images]).values())

    return run, metadata


ENGINES = {"onnxruntime": start_onnxruntime, "openvino": start_openvino}
