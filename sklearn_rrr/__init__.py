"""Compact image classifiers from pre-trained networks with scikit-learn's API.

Public names are imported on first use, so that `OnnxClassifier` does not need torch.
"""

from importlib import import_module as _import_module

from sklearn_rrr._version import __version__ as __version__

_HOMES = {
    "Backbone": "backbones.backbone",
    "BackboneFeatures": "classifiers.backbone_features",
    "BaggingEnsemble": "classifiers.ensembles",
    "BasisScalingPruner": "pruning.basis_scaling",
    "BlockPruner": "pruning.block_pruner",
    "BlockSelector": "search.block_selector",
    "ChannelPruner": "pruning.channel_pruner",
    "ElementPruner": "pruning.element_pruner",
    "EnsembleStrategy": "classifiers.ensembles",
    "FastGeometricEnsemble": "classifiers.ensembles",
    "FineTuning": "backbones.fine_tuning",
    "FineTuningClassifier": "classifiers.baselines",
    "LastLayerClassifier": "classifiers.baselines",
    "NaiveEnsemble": "classifiers.ensembles",
    "SnapshotEnsemble": "classifiers.ensembles",
    "MultiTaskStore": "deployment.task_files",
    "NetTailorClassifier": "nettailor.nettailor_classifier",
    "OnnxClassifier": "deployment.onnx_classifier",
    "ProgressiveKernelPruner": "pruning.progressive_pruner",
    "RRRNetClassifier": "classifiers.rrr_net_classifier",
    "TailoringFineTuning": "nettailor.fine_tuning",
    "cost_report": "networks.costs",
    "count_macs": "networks.costs",
    "count_parameters": "networks.costs",
    "export_onnx": "deployment.onnx_export",
    "list_backbones": "backbones.registry",
    "load": "deployment.model_files",
    "load_backbone": "backbones.weights",
    "load_task": "deployment.task_files",
    "load_image_folder": "images.folders",
    "make_mobilenet": "backbones.mobilenet",
    "make_resnet": "backbones.resnet",
    "measure_latency": "networks.costs",
    "paper_models": "classifiers.baselines",
    "register_backbone": "backbones.registry",
    "report_images": "images.folder_report",
    "save": "deployment.model_files",
    "save_task": "deployment.task_files",
}
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__():
    return [*globals(), *__all__]
