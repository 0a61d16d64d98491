"""Compact image classifiers from pre-trained networks, behind scikit-learn's API.

A public name is imported when it is first used, so that `OnnxClassifier` needs no torch.
"""

from importlib import import_module as _import_module

from sklearn_rrr._version import __version__ as __version__

_HOMES = {
    "BaggingEnsemble": "ensembling",
    "BasisScalingPruner": "basis_scaling",
    "BlockPruner": "block_pruning",
    "BlockSelector": "block_selection",
    "ChannelPruner": "channel_pruning",
    "ElementPruner": "element_pruning",
    "EnsembleStrategy": "ensembling",
    "FastGeometricEnsemble": "ensembling",
    "FineTuningClassifier": "baselines",
    "LastLayerClassifier": "baselines",
    "NaiveEnsemble": "ensembling",
    "SnapshotEnsemble": "ensembling",
    "MultiTaskStore": "tasks",
    "NetTailorClassifier": "nettailor",
    "OnnxClassifier": "onnx_classifier",
    "ProgressiveKernelPruner": "kernel_pruning",
    "RRRNetClassifier": "classifier",
    "cost_report": "costs",
    "count_macs": "costs",
    "count_parameters": "costs",
    "export_onnx": "persistence",
    "list_backbones": "backbones",
    "load": "persistence",
    "load_backbone": "weights",
    "load_task": "tasks",
    "load_image_folder": "images",
    "measure_latency": "costs",
    "register_backbone": "backbones",
    "save": "persistence",
    "save_task": "tasks",
}
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
