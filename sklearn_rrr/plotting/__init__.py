"""Plots of trainings, searches, costs, branches, calibration and kernels.

As in scikit-learn, a display stores the data, class methods compute them, and ``plot`` draws them
again. matplotlib is imported when something is drawn.
"""

from sklearn_rrr.plotting.block_selection import BlockSelectionDisplay
from sklearn_rrr.plotting.branch_agreement import BranchAgreementDisplay
from sklearn_rrr.plotting.cost_radar import CostRadarDisplay
from sklearn_rrr.plotting.kernel_mosaic import KernelMosaicDisplay
from sklearn_rrr.plotting.reliability import ReliabilityDisplay
from sklearn_rrr.plotting.training_curve import TrainingCurveDisplay

__all__ = [
    "BlockSelectionDisplay",
    "BranchAgreementDisplay",
    "CostRadarDisplay",
    "KernelMosaicDisplay",
    "ReliabilityDisplay",
    "TrainingCurveDisplay",
]
