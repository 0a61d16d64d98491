"""Compact image classifiers from pre-trained networks, behind scikit-learn's API."""

from sklearn_rrr._version import __version__ as __version__
from sklearn_rrr.backbones import list_backbones, register_backbone
from sklearn_rrr.classifier import RRRNetClassifier
from sklearn_rrr.costs import cost_report, count_macs, count_parameters, measure_latency
from sklearn_rrr.images import load_image_folder
from sklearn_rrr.weights import load_backbone

__all__ = [
    "RRRNetClassifier",
    "cost_report",
    "count_macs",
    "count_parameters",
    "list_backbones",
    "load_backbone",
    "load_image_folder",
    "measure_latency",
    "register_backbone",
]
