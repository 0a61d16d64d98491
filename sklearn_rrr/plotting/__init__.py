"""Plots of trainings, searches, costs, branches, calibration, kernels, explanations and errors.

As in scikit-learn, a display stores the data, class methods compute them, and ``plot`` draws them
again. matplotlib is imported when something is drawn.
"""

from sklearn_rrr.plotting.activation_map import ActivationMapDisplay
from sklearn_rrr.plotting.augmentation import AugmentationDisplay
from sklearn_rrr.plotting.block_selection import BlockSelectionDisplay
from sklearn_rrr.plotting.branch_agreement import BranchAgreementDisplay
from sklearn_rrr.plotting.cost_radar import CostRadarDisplay
from sklearn_rrr.plotting.error_gallery import ErrorGalleryDisplay
from sklearn_rrr.plotting.kernel_mosaic import KernelMosaicDisplay
from sklearn_rrr.plotting.reliability import ReliabilityDisplay
from sklearn_rrr.plotting.training_curve import TrainingCurveDisplay

__all__ = [
    "ActivationMapDisplay",
    "AugmentationDisplay",
    "BlockSelectionDisplay",
    "BranchAgreementDisplay",
    "CostRadarDisplay",
    "ErrorGalleryDisplay",
    "KernelMosaicDisplay",
    "ReliabilityDisplay",
    "TrainingCurveDisplay",
]
